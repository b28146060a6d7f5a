"""The whole settings tree of a run, without Hydra: what `repast_dist.settings` loads."""

import dataclasses
import functools
import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import field
from functools import cached_property
from typing import Annotated, Any, Literal, get_type_hints

from annotated_types import Ge

from repast_dist.analog.schemes.base import SCHEMES, Scheme
from repast_dist.analog.specs import DeviceSpec
from repast_dist.farm.setup import TrainingJob
from repast_dist.farm.specs import FarmSpec
from repast_dist.farm.storage.specs import StorageSpec, is_uri
from repast_dist.ground.errors import SettingsError
from repast_dist.ground.plugins import activate, read_plugins
from repast_dist.ground.registry import Registry
from repast_dist.ground.spec import load, replaced, spec, to_dict
from repast_dist.ground.user_code import bring
from repast_dist.hardware.components import ComponentTable
from repast_dist.hardware.hardware import Hardware
from repast_dist.hardware.interconnect import InterconnectSpec
from repast_dist.hardware.specs import ChipSpec
from repast_dist.network.workload import WorkloadSpec
from repast_dist.planning.baselines import BaselineSpec, EpochsSpec
from repast_dist.planning.gpu import GpuSpec
from repast_dist.planning.machine import Machine
from repast_dist.planning.specs import PartitionSpec, Policy, SoiSpec
from repast_dist.studies.study import STUDIES, Study
from repast_dist.training.datasets import DATASETS, DataSource
from repast_dist.training.models import MODELS, ModelSource
from repast_dist.training.optimizers import OPTIMIZERS, Optimizer
from repast_dist.training.specs import EngineSpec, TrainSpec

Export = Literal["tensorboard", "mlflow"]


@spec
class RunSettings:
    """Everything that decides what a run does.

    Attributes
    ----------
    study : Study
        The question asked.
    seed : int
        Seed of every random stream.
    run_root : str
        Folder below which run directories are made.
    objective : tuple of str
        Key figures of the study's answer that decide which run of a sweep is best, each the better
        the smaller; with a minus, ``"-test accuracy"``, the larger. A sweeper of Hydra, such as
        Optuna's, gets them for a run.
    plugins : tuple of str
        Parts of your own: ``.py`` files, or entry points of installed packages, that register cell
        models, layers, optimizers and the like.
    export : {"tensorboard", "mlflow"}, optional
        Another program that gets the run when it has ended: curves, key figures and settings.
        TensorBoard finds it in the run directory; MLflow's server is named by
        ``MLFLOW_TRACKING_URI``, without it ``mlflow.db`` in ``run_root`` is written.
    storage : StorageSpec
        Where the run directory is copied to while the run goes on.
    workload : WorkloadSpec
        The network that cost-only studies price.
    baseline : GpuSpec or PipeLayerSpec
        The machine ``study=headline`` compares with.
    epochs : EpochsSpec
        Epochs to target that turn a ratio per epoch into one to target.
    train, model, dataset, optimizer, engine
        What is trained, on what, how, and in which arithmetic.
    device, chip, components, inversion
        The hardware.
    soi, partition, interconnect, farm
        How the work is spread and exchanged.
    """

    study: Annotated[Study, STUDIES.choice()]
    seed: Annotated[int, Ge(0)] = 0
    run_root: str = "runs"
    objective: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()
    export: Export | None = None
    storage: StorageSpec = field(default_factory=StorageSpec)
    workload: WorkloadSpec
    baseline: BaselineSpec
    epochs: EpochsSpec
    train: TrainSpec
    model: Annotated[ModelSource, MODELS.choice()]
    dataset: Annotated[DataSource, DATASETS.choice()]
    optimizer: Annotated[Optimizer, OPTIMIZERS.choice()]
    engine: EngineSpec
    device: DeviceSpec
    chip: ChipSpec
    components: ComponentTable
    soi: SoiSpec
    inversion: Annotated[Scheme, SCHEMES.choice()]
    partition: PartitionSpec
    interconnect: InterconnectSpec
    farm: FarmSpec

    def __post_init__(self) -> None:
        if self.partition.idle_chips == "auto" and self.farm.chip_overrides:
            raise ValueError(
                "partition.idle_chips=auto with farm.chip_overrides: chips that differ might be "
                "switched off; valid: none"
            )

    @cached_property
    def hardware(self) -> Hardware:
        """The chips and the network between them, as one object."""
        return Hardware(
            chip=self.chip,
            device=self.device,
            components=self.components,
            interconnect=self.interconnect,
        )

    @cached_property
    def machine(self) -> Machine:
        """The hardware and the policy of its use."""
        policy = Policy(soi=self.soi, partition=self.partition, inversion=self.inversion)
        return Machine(self.hardware, policy)

    @property
    def code(self) -> tuple[str, ...]:
        """What they name of the user's own code, ``module:function`` each."""
        return (*self.model.code, *self.dataset.code)

    @property
    def gpu(self) -> GpuSpec:
        """The baseline, for a study that compares with a GPU.

        Raises
        ------
        SettingsError
            It is none.
        """
        if not isinstance(self.baseline, GpuSpec):
            raise SettingsError(
                f"baseline: study={self.study.name} compares with a GPU, got "
                f"{self.baseline.name}; valid: baseline=gpu_v100, gpu_a100, gpu_h200 or a measured "
                "file"
            )
        return self.baseline


def checked_settings(data: Mapping[str, Any], named: Collection[str] = ()) -> RunSettings:
    """Build the settings of a run from plain data, with the plug-ins that it names at work.

    Parameters
    ----------
    data : mapping
        All settings, as YAML files and overrides give them. Plug-ins are run first, so that what
        they add can be named.
    named : collection of str
        Dotted paths of the values that the user gave. Where one names which member of a kind is
        used (``dataset.name``), what the files say for another member and the named one does not
        have is dropped; where one implies a member (``model.factory``), all they say of the kind.

    Raises
    ------
    SettingsError
        A plug-in cannot be used, or the data are not valid settings.
    """
    names = data.get("plugins", ())
    if isinstance(names, list | tuple) and all(isinstance(name, str) for name in names):
        activate(read_plugins(names))
    settings = load(RunSettings, _switched(data, RunSettings, "", named))
    if is_uri(settings.run_root) and settings.study.name != "runs":
        raise SettingsError(
            "run_root: runs work in a local folder; valid: a folder, and storage.uri=... for a copy"
        )
    bring(settings.code)
    return settings


def _switched(
    data: Mapping[str, Any], kind: Any, path: str, named: Collection[str]
) -> dict[str, Any]:
    """Return settings without those of members the user has put others in the place of."""
    hints = get_type_hints(kind, include_extras=True)
    result = dict(data)
    for name, value in data.items():
        where, registry = f"{path}{name}", Registry.of(hints.get(name))
        if not isinstance(value, Mapping):
            continue
        if registry is None:
            if dataclasses.is_dataclass(hints.get(name)):
                result[name] = _switched(value, hints[name], f"{where}.", named)
        elif f"{where}.{registry.tag}" in named and registry.has(value.get(registry.tag)):
            given = _given(value, where, named)
            tag = f"{where}.{registry.tag}"
            result[name] = _as_other_member(registry, value, value[registry.tag], tag) | given
        else:
            given = _given(value, where, named)
            if implied := registry.implied_by(given):
                # Nothing that the files say is of it.
                result[name] = given | {registry.tag: implied}
    return result


def _given(data: Mapping[str, Any], where: str, named: Collection[str]) -> dict[str, Any]:
    """Return those of a group's settings that the user named, or of which a part."""
    return {
        key: value
        for key, value in data.items()
        if any(_within(path, f"{where}.{key}") for path in named)
    }


def _as_other_member(
    registry: Registry[Any], data: Mapping[str, Any], name: str, tag: str
) -> dict[str, Any]:
    """Return plain settings of one member as those of another, which the setting `tag` names."""
    try:
        return registry.switched(data, name)
    except SettingsError as error:
        raise SettingsError(f"{tag}: {error}") from None


def changed(settings: RunSettings, changes: Mapping[str, Any]) -> RunSettings:
    """Return settings that differ in some places, checked as if they had been loaded.

    Parameters
    ----------
    settings : RunSettings
        What the changes start from.
    changes : mapping
        Dotted path -> plain value. A group of settings replaces the group that was there. Where
        the path names which member of a kind is used (``inversion.method``), settings that the new
        one does not have are dropped.

    Raises
    ------
    SettingsError
        There is no such setting, or the value is not valid.
    """
    touched = {path.partition(".")[0] for path in changes if "." in path}
    groups_before = {group: getattr(settings, group, None) for group in touched}
    # What is not touched has been checked before.
    data = {
        group: to_dict(old) for group, old in groups_before.items() if dataclasses.is_dataclass(old)
    }
    for path in sorted(changes, key=_from_whole_to_part):
        *groups, name = path.split(".")
        place, hint = _place(data, groups, path)
        registry = Registry.of(hint)
        if registry is not None and name == registry.tag:
            other = _as_other_member(registry, place, changes[path], path)
            place.clear()
            place.update(other)
        place[name] = changes[path]
    return replaced(settings, data)


@functools.lru_cache(maxsize=1024)
def _from_whole_to_part(path: str) -> tuple[int, bool]:
    """Order changes so that none undoes another: a group before what is in it, and which member
    of a kind is used before the member's settings.
    """
    *groups, name = path.split(".")
    registry = Registry.of(_hint(groups))
    return len(groups), registry is None or name != registry.tag


def _place(data: dict[str, Any], groups: Sequence[str], path: str) -> tuple[dict[str, Any], Any]:
    """Return the group of plain settings that a path is in, and the group's annotation."""
    place = data
    for group in groups:
        place = place.get(group)  # type: ignore[assignment]
        if not isinstance(place, dict):
            raise SettingsError(f"{path}: no group of settings '{group}'")
    return place, _hint(groups)


def _hint(groups: Sequence[str]) -> Any:
    """Return the annotation of a group; None where it depends on which member of a kind is used."""
    hint: Any = RunSettings
    for group in groups:
        is_group = dataclasses.is_dataclass(hint)
        hint = _hints(hint).get(group) if is_group else None
    return hint


@functools.cache
def _hints(group: Any) -> dict[str, Any]:
    """Return the annotations of a group's settings; a search asks for them at every point."""
    return get_type_hints(group, include_extras=True)


def unread(settings: RunSettings, paths: Iterable[str]) -> list[str]:
    """Return which settings have no effect on the chosen study.

    Parameters
    ----------
    settings : RunSettings
        What the named settings led to.
    paths : iterable of str
        Dotted paths of settings that were given.

    Returns
    -------
    list of str
        One line per setting without effect: what it is, why, and what would be valid.
    """
    ignored = settings.study.ignores(settings)
    reads = (*_ALWAYS, *settings.study.reads, *_read_by_model(settings, ignored))
    found = [why for path in paths if (why := _why_unread(settings, path, ignored, reads))]
    return list(dict.fromkeys(found))


def _why_unread(
    settings: RunSettings, path: str, ignores: Mapping[str, str], reads: Sequence[str]
) -> str:
    """Return why a setting has no effect, or nothing if it has one, with what the study ignores and
    reads.
    """
    study, name = settings.study, settings.study.name
    if path == "hydra.searchpath":
        return ""
    if path == "hydra" or path.startswith("hydra."):
        return f"{path}: Hydra's own settings are for the command line; valid: run_root=FOLDER"
    groups = _groups(path)
    ignored = [why for where, why in ignores.items() if where in groups]
    if ignored:
        return f"{path}: not read by study={name}: {ignored[0]}"
    # An experiment presets a training run.
    known = (*reads, "experiment") if "model" in reads else reads
    if not groups.isdisjoint(known) or any(_within(where, path) for where in known):
        return ""
    others = [n for n in STUDIES.names() if _reads(n, path)]
    elsewhere = f", or study={'|'.join(others)}" if others else ""
    own = ", ".join(sorted(dict.fromkeys(["study", *study.reads]))) + elsewhere
    return f"{path}: not read by study={name}; valid: {own}"


def _read_by_model(settings: RunSettings, ignores: Mapping[str, str]) -> tuple[str, ...]:
    """Return what the model needs of other settings where a study reads it."""
    reads = "model" in settings.study.reads and "model" not in ignores
    return ("dataset", "seed") if reads and settings.model.needs_data else ()


_ALWAYS = ("study", "run_root", "objective", "plugins", "export", "storage")
"""Settings that every study reads."""


@functools.lru_cache(maxsize=1024)
def _groups(path: str) -> frozenset[str]:
    """Return a path and those of the groups of settings that it is in."""
    return frozenset(itertools.accumulate(path.split("."), "{}.{}".format))


def _within(path: str, where: str) -> bool:
    return path == where or path.startswith(f"{where}.")


def _reads(study: str, path: str) -> bool:
    reads = STUDIES.get(study).reads
    return any(_within(path, where) or _within(where, path) for where in reads)


def in_one_process(settings: RunSettings) -> RunSettings:
    """Return the settings of one point of a study: all chips in this process, no checkpoints.

    How points are spread over processes does not decide what they are.
    """
    farm = FarmSpec(
        backend="inprocess",
        chips=settings.farm.chips,
        chip_overrides=settings.farm.chip_overrides,
        checkpoint_every=_NEVER,
    )
    return dataclasses.replace(settings, farm=farm, storage=StorageSpec())


_NEVER = 1_000_000_000


def training_job(settings: RunSettings) -> TrainingJob:
    """Return what of all settings decides a training run."""
    return TrainingJob(
        seed=settings.seed,
        train=settings.train,
        model=settings.model,
        dataset=settings.dataset,
        optimizer=settings.optimizer,
        engine=settings.engine,
        machine=settings.machine,
        farm=settings.farm,
    )

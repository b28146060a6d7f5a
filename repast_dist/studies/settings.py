"""The whole settings tree of a run, without Hydra: what `repast_dist.settings` loads."""

import dataclasses
from collections.abc import Collection, Mapping
from functools import cached_property
from typing import Annotated, Any, get_type_hints

from annotated_types import Ge

from repast_dist.analog.schemes.base import SCHEMES, Scheme
from repast_dist.analog.specs import DeviceSpec
from repast_dist.farm.setup import TrainingJob
from repast_dist.farm.specs import FarmSpec
from repast_dist.ground.errors import SettingsError
from repast_dist.ground.plugins import activate, read_plugins
from repast_dist.ground.registry import Registry
from repast_dist.ground.spec import load, spec, to_dict
from repast_dist.hardware.components import ComponentTable
from repast_dist.hardware.hardware import Hardware
from repast_dist.hardware.interconnect import InterconnectSpec
from repast_dist.hardware.specs import ChipSpec
from repast_dist.mapping.baselines import BaselineSpec, EpochsSpec
from repast_dist.mapping.machine import Machine
from repast_dist.mapping.specs import PartitionSpec, Policy, SoiSpec
from repast_dist.network.model import ModelSpec
from repast_dist.network.workload import WorkloadSpec
from repast_dist.studies.study import STUDIES, Study
from repast_dist.training.datasets import DATASETS, DataSource
from repast_dist.training.optimizers import OPTIMIZERS, Optimizer
from repast_dist.training.specs import EngineSpec, TrainSpec


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
    plugins : tuple of str
        Parts of your own: ``.py`` files, or entry points of installed packages, that register cell
        models, layers, optimizers and the like.
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
    plugins: tuple[str, ...] = ()
    workload: WorkloadSpec
    baseline: BaselineSpec
    epochs: EpochsSpec
    train: TrainSpec
    model: ModelSpec
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
        have is dropped.

    Raises
    ------
    SettingsError
        A plug-in cannot be used, or the data are not valid settings.
    """
    names = data.get("plugins", ())
    if isinstance(names, list | tuple) and all(isinstance(name, str) for name in names):
        activate(read_plugins(names))
    return load(RunSettings, _switched(data, RunSettings, "", named))


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
            given = {key: item for key, item in value.items() if f"{where}.{key}" in named}
            result[name] = registry.switched(value, value[registry.tag]) | given
    return result


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
    data = to_dict(settings)
    for path, value in changes.items():
        *groups, name = path.split(".")
        place, hint = data, None
        kind: Any = RunSettings
        for group in groups:
            place = place.get(group)  # type: ignore[assignment]
            if not isinstance(place, dict):
                raise SettingsError(f"{path}: no group of settings '{group}'")
            hint = get_type_hints(kind, include_extras=True).get(group) if kind else None
            kind = hint if dataclasses.is_dataclass(hint) else None
        registry = Registry.of(hint)
        if registry is not None and name == registry.tag:
            other = registry.switched(place, value)
            place.clear()
            place.update(other)
        place[name] = value
    return load(RunSettings, data)


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

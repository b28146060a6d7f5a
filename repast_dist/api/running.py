"""Running studies, training runs and sweeps."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from repast_dist.api.loading import Override, as_overrides, as_text, checked_settings
from repast_dist.api.runs import Run, Sweep
from repast_dist.farm.storage.specs import is_uri
from repast_dist.ground.errors import SettingsError
from repast_dist.ground.files import SWEEP
from repast_dist.settings import (
    CONFIG,
    compose_plain,
    expand_sweep,
    farm_overrides,
    refuse_other_encodings,
)
from repast_dist.studies import resume_stored, resume_study, run_study
from repast_dist.studies.multirun import resume_sweep, run_sweep


def train(
    *overrides: Override,
    quiet: bool | None = None,
    config_dir: str | Path | None = None,
    **groups: Any,
) -> Run:
    """Train a network on the simulated chips.

    Parameters
    ----------
    *overrides, config_dir, **groups
        As in `load_settings`.
    quiet : bool, optional
        True prints nothing, False prints what the command line does; None prints it where a
        terminal or a notebook shows it.

    Raises
    ------
    SettingsError
        A setting is wrong, or training does not read it.
    RepastError
        The run failed; its directory says so, too.
    """
    return study("train", *overrides, quiet=quiet, config_dir=config_dir, **groups)


def study(
    name: str,
    *overrides: Override,
    quiet: bool | None = None,
    config_dir: str | Path | None = None,
    **groups: Any,
) -> Run:
    """Run a study.

    Parameters
    ----------
    name : str
        A file of ``conf/study``: ``"headline"``, ``"scaling"``, ``"precision"``, ...
    *overrides, quiet, config_dir, **groups
        As in `train`.

    Raises
    ------
    SettingsError
        There is no such study, a setting is wrong, or the study does not read it.
    RepastError
        The question cannot be answered.
    """
    texts = [*as_overrides([], {"study": name}), *as_overrides(overrides, groups)]
    return answer(texts, quiet=quiet, config_dir=config_dir)


def answer(
    overrides: Sequence[str],
    *,
    quiet: bool | None = None,
    config_dir: str | Path | None = None,
    config_name: str = CONFIG,
) -> Run:
    """Run the study that the words of a command line ask for; without ``study=NAME``, train.

    Parameters
    ----------
    overrides : sequence of str
        Settings as on the command line.
    quiet, config_dir
        As in `train`.
    config_name : str
        The file that lists the defaults, in the package's folder or in ``config_dir``.

    Raises
    ------
    SettingsError, RepastError
        As `study`.
    """
    settings = checked_settings(overrides, config_dir, config_name)
    return Run(run_study(settings, console(quiet)).resolve())


def sweep(
    axes: Mapping[str, Iterable[Any]] | str,
    *overrides: Override,
    jobs: int | None = None,
    quiet: bool | None = None,
    config_dir: str | Path | None = None,
    config_name: str = CONFIG,
    **groups: Any,
) -> Sweep:
    """Run every combination of some settings.

    Parameters
    ----------
    axes : mapping or str
        Setting -> its values, ``{"farm.chips": [1, 2], "inversion": ["taylor", "fcg"]}``, or one
        axis as on the command line, ``"farm.chips=1,2"``; such text among the overrides is one
        more.
    jobs : int, optional
        How many runs at a time; None: as many as this machine has processors for. They are
        computed in processes of their own; a single one at a time in this process.
    *overrides, quiet, config_dir, **groups
        As in `train`; ``study="plan"`` asks another question than a training run.
    config_name : str
        As in `answer`.

    Returns
    -------
    Sweep
        The runs, and one table of the settings that differ and the key figures.

    Raises
    ------
    SettingsError
        An axis has no values; or one point has a wrong setting: then nothing is run.
    RepastError
        A run failed.
    """
    varied = [axes] if isinstance(axes, str) else [_axis(*axis) for axis in axes.items()]
    points = expand_sweep([*as_overrides(overrides, groups), *varied])
    settings = [checked_settings(point, config_dir, config_name) for point in points]
    return Sweep(run_sweep(settings, points, console(quiet), jobs).resolve())


def resume(
    run_dir: str | Path,
    *overrides: Override,
    jobs: int | None = None,
    quiet: bool | None = None,
) -> Run:
    """Go on with a run or a sweep that was stopped.

    Parameters
    ----------
    run_dir : str or Path
        Its directory, or the URI of a store that it was copied to (``storage.uri``): it is fetched
        into a new directory.
    *overrides : str or mapping
        Settings of ``farm`` to change; nothing else may change, but the ``run_root`` of a run that
        is fetched.
    jobs : int, optional
        Of a sweep: as in `sweep`.
    quiet : bool, optional
        As in `train`.

    Raises
    ------
    SettingsError
        A setting is not of ``farm``, or wrong.
    RunDirectoryError
        No run directory, in use, or there is nothing to go on with.
    """
    refuse_other_encodings([str(run_dir)])
    if is_uri(str(run_dir)):
        words = as_overrides(overrides, {})
        roots = [word for word in words if word.startswith("run_root=")]
        farm = farm_overrides([word for word in words if word not in roots])
        root = Path(compose_plain(roots)["run_root"]) if roots else None
        return Run(resume_stored(str(run_dir), farm, root, console(quiet)).resolve())
    folder = Path(run_dir)
    farm = farm_overrides(as_overrides(overrides, {}))
    if (folder / SWEEP).is_file():
        return Sweep(resume_sweep(folder, farm, console(quiet), jobs).resolve())
    return Run(resume_study(folder, farm, console(quiet)).resolve())


def console(quiet: bool | None) -> Console:
    """Return where to print: standard output, or nowhere; None asks whether somebody reads it."""
    seen = Console()
    if quiet is None:
        quiet = not (seen.is_terminal or seen.is_jupyter)
    return Console(quiet=True) if quiet else seen


def _axis(name: str, values: Iterable[Any]) -> str:
    texts = [values] if isinstance(values, str) else [as_text(value, name) for value in values]
    if not texts:
        raise SettingsError(f"{name}: an axis without values; valid: at least one")
    return f"{name}={','.join(texts)}"

"""The questions a user asks: a study is chosen by ``study.name`` and answers itself."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from repast_dist.ground.errors import RunDirectoryError
from repast_dist.ground.files import SETTINGS, checked_entries, read_json
from repast_dist.ground.spec import to_dict
from repast_dist.studies.exports import export_run, exporter
from repast_dist.studies.run_result import decisive
from repast_dist.studies.settings import RunSettings, checked_settings
from repast_dist.studies.stored import (
    brought,
    copied,
    fetched,
    is_complete,
    is_stored,
    stored_settings,
)


def run_study(settings: RunSettings, console: Console | None = None) -> Path:
    """Run the study the settings name and return the directory it left.

    With ``storage.go_on`` it may be what is left of one that another machine began.
    """
    shown = console or Console()
    storage = settings.storage
    if storage.uri is not None and storage.go_on and is_stored(storage.uri):
        return _gone_on(settings, storage.uri, shown)
    with copied(settings.storage, settings.study.name, None, shown):
        return _answered(settings, None, shown)


def resume_study(run_dir: Path, farm: Mapping[str, Any], console: Console | None = None) -> Path:
    """Go on with a run that was stopped.

    Parameters
    ----------
    run_dir : Path
        Its directory.
    farm : mapping
        Settings of ``farm`` to change; nothing else may change, since it would change the result.

    Raises
    ------
    RunDirectoryError
        Not a run directory, in use, or of a study that has nothing to go on with.
    """
    if not run_dir.is_dir():
        raise RunDirectoryError(f"resume: no run directory at {run_dir}")
    settings, shown = _begun(run_dir, farm), console or Console()
    with copied(settings.storage, settings.study.name, run_dir, shown):
        return _answered(settings, run_dir, shown)


def resume_stored(
    uri: str, farm: Mapping[str, Any], root: Path | None = None, console: Console | None = None
) -> Path:
    """Go on with a run that was copied to a store, in a new directory on this machine.

    Parameters
    ----------
    uri : str
        The prefix of the store; what the run does from now on is copied there, too.
    farm : mapping
        As of `resume_study`.
    root : Path, optional
        Folder of all runs; None: that of the run's settings.

    Raises
    ------
    SettingsError
        It is no URI of a store.
    StorageError
        No whole run is there, it is in use, or the store cannot be reached.
    RunDirectoryError
        The run is finished, or of a study that has nothing to go on with.
    """
    shown = console or Console()
    with brought(uri, root, shown) as (run_dir, storage):
        settings = dataclasses.replace(_begun(run_dir, farm), storage=storage)
        return _answered(settings, run_dir, shown)


def _gone_on(settings: RunSettings, uri: str, console: Console) -> Path:
    """Do what is left of a run that was copied to a store; fetch it if it is finished."""
    # A version before may not have known all settings.
    stored, asked = to_dict(checked_settings(stored_settings(uri))), to_dict(settings)
    if decisive(stored) != decisive(asked):
        raise RunDirectoryError(
            f"storage.uri: {uri} holds a run with other settings; valid: another prefix"
        )
    root = Path(settings.run_root)
    if is_complete(uri):
        console.print(f"Finished before: {uri}", markup=False, soft_wrap=True)
        return fetched(uri, root)
    return resume_stored(uri, asked["farm"], root, console)


def _begun(run_dir: Path, farm: Mapping[str, Any]) -> RunSettings:
    """Return the settings of a run that can go on."""
    plain = read_json(run_dir / SETTINGS)
    checked_entries(run_dir / SETTINGS, plain, {"farm": dict})
    plain["farm"] |= farm
    settings = checked_settings(plain)
    if not settings.study.can_resume(run_dir):
        raise RunDirectoryError(
            f"{run_dir}: study {settings.study.name} keeps nothing to go on with; run it again"
        )
    return settings


def _answered(settings: RunSettings, run_dir: Path | None, console: Console) -> Path:
    if settings.export is None:
        return settings.study.answer(settings, run_dir, console)
    # What is missing should be said before a long run.
    exporter(settings.export)
    folder = settings.study.answer(settings, run_dir, console)
    where = export_run(settings.export, folder)
    console.print(f"Exported:      {where}", markup=False, soft_wrap=True)
    return folder

"""Reads ``result.json`` of a training run, and tells whether its settings are still the same."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from repast_dist.ground.errors import RunDirectoryError
from repast_dist.ground.files import ANSWER, RESULT, SETTINGS, checked_entries, read_json

_ENTRIES: dict[str, type | tuple[type, ...]] = {
    "study": str,
    "settings": dict,
    "settings_sha256": str,
    "versions": dict,
    "plugins": dict,
    "wall_s": (int, float),
    "epochs": list,
    "steps": list,
    "events": list,
    "status": str,
}


def read_result(run_dir: Path) -> dict[str, Any]:
    """Read ``result.json`` of a training run.

    Raises
    ------
    RunDirectoryError
        It is missing or damaged; the message names the entry.
    """
    path = run_dir / RESULT
    result = read_json(path)
    checked_entries(path, result, _ENTRIES)
    for name in ("epochs", "steps", "events"):
        for item in result[name]:
            checked_entries(path, item, {"step": int})
    names = result.get("kernels", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise RunDirectoryError(f"{path}: damaged, 'kernels' is no list of names")
    for item in result["events"]:
        checked_entries(path, item, {"kind": str, "message": str})
    return result


def has_finished(run_dir: Path) -> bool:
    """Return whether a run of any study has its answer, and a training run all its steps.

    Raises
    ------
    RunDirectoryError
        ``result.json`` is damaged.
    """
    if not (run_dir / ANSWER).is_file():
        return False
    trained = run_dir / RESULT
    return not trained.is_file() or read_json(trained).get("status") == "finished"


def decisive(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings without those that say how a run is computed and where it is kept."""
    chips = {name: settings["farm"][name] for name in ("chips", "chip_overrides")}
    return {**settings, "farm": chips, "run_root": None, "objective": None, "storage": None}


def settings_digest(settings: Mapping[str, Any]) -> str:
    """Return the SHA-256 that identifies settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def refuse_other_settings(run_dir: Path, result: Mapping[str, Any]) -> None:
    """Refuse settings that are not those the run began with: its numbers would change.

    Raises
    ------
    RunDirectoryError
        ``settings.json`` or the copy in ``result.json`` was changed.
    """
    for name, settings in (
        (SETTINGS, read_json(run_dir / SETTINGS)),
        (RESULT, result["settings"]),
    ):
        found = settings_digest(settings)
        if found != result["settings_sha256"]:
            raise RunDirectoryError(
                f"{run_dir / name}: the settings have changed since the run began; valid: those "
                f"with SHA-256 {result['settings_sha256']}, found {found}"
            )

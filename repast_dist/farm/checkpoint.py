"""A checkpoint holds arrays and plain data, has checksums, and is never half written.

A checkpoint is a folder ``step-00000120`` with ``arrays.npz`` (no pickle), ``state.json`` and
``checksums.json`` (SHA-256 of both). It is written under another name and renamed, so a folder
with the final name is whole unless somebody changed it later, which the checksums tell.
"""

import dataclasses
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from repast_dist.ground.errors import RunDirectoryError
from repast_dist.ground.files import replaced, sha256

ARRAYS, STATE, CHECKSUMS = "arrays.npz", "state.json", "checksums.json"


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The state of a run from which training can continue at the start of `step`.

    Attributes
    ----------
    step : int
        First step that has not been done yet.
    arrays : dict
        Flat name -> array (weights, optimizer state, factor averages).
    state : dict
        Plain data (counters, epoch records).
    """

    step: int
    arrays: dict[str, np.ndarray]
    state: dict[str, Any]


def save_checkpoint(
    folder: Path, step: int, arrays: Mapping[str, np.ndarray], state: Mapping[str, Any], keep: int
) -> Path:
    """Write a checkpoint, and delete those of later steps and all but the newest `keep`.

    A run that goes on from an earlier step has refused those of later ones.

    Returns
    -------
    Path
        The checkpoint's folder.

    Raises
    ------
    OSError
        The disk is full or not writable; older checkpoints are untouched.
    """
    final = folder / f"step-{step:08d}"
    folder.mkdir(parents=True, exist_ok=True)
    with replaced(final) as aside:
        aside.mkdir()
        _write_synced(aside / ARRAYS, lambda file: np.savez(file, allow_pickle=False, **arrays))
        text = json.dumps({"step": step, **state})
        _write_synced(aside / STATE, lambda file: file.write(text.encode()))
        sums = json.dumps({name: sha256(aside / name) for name in (ARRAYS, STATE)}, indent=1)
        _write_synced(aside / CHECKSUMS, lambda file: file.write(sums.encode()))
    others = list_checkpoints(folder)
    place = others.index(final)
    for old in others[place + 1 :] + others[: place + 1][:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoint folders, oldest first."""
    return sorted(folder.glob("step-" + "[0-9]" * 8)) if folder.is_dir() else []


def load_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint after checking its sums.

    Raises
    ------
    RunDirectoryError
        A file is missing, torn or changed; the message names it.
    """
    try:
        sums = json.loads((path / CHECKSUMS).read_text())
        for name in (ARRAYS, STATE):
            if sha256(path / name) != sums[name]:
                raise RunDirectoryError(f"{path / name}: checksum differs, the file is damaged")
        state = json.loads((path / STATE).read_text())
        with np.load(path / ARRAYS, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        return Checkpoint(step=int(state.pop("step")), arrays=arrays, state=state)
    except (
        OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError,
        zipfile.BadZipFile, EOFError, NotImplementedError,
    ) as error:  # fmt: skip
        raise RunDirectoryError(f"{path}: not a readable checkpoint ({error})") from error


def latest_checkpoint(
    folder: Path, whole_steps: int | None = None
) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest good checkpoint and, for each newer one refused, why.

    Parameters
    ----------
    folder : Path
        The folder of the checkpoints.
    whole_steps : int, optional
        Number of steps that the trace holds; a checkpoint after more steps is refused.
    """
    refused: list[str] = []
    for path in reversed(list_checkpoints(folder)):
        step = int(path.name.removeprefix("step-"))
        if whole_steps is not None and step > whole_steps:
            refused.append(
                f"{path}: step {whole_steps} of the trace or of the solve reports is missing "
                "or damaged"
            )
            continue
        try:
            return load_checkpoint(path), refused
        except RunDirectoryError as error:
            refused.append(str(error))
    return None, refused


def _write_synced(path: Path, write: Callable[[BinaryIO], object]) -> None:
    with path.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())

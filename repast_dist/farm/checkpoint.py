"""A checkpoint holds arrays and plain data, has checksums, and is never half written.

A checkpoint is a folder ``step-00000120`` with ``arrays.npz`` (no pickle), ``state.json`` and
``checksums.json`` (SHA-256 of both). The state of a PyTorch module is in ``model.safetensors``
(no pickle either), which plain PyTorch loads. The folder is written under another name and
renamed, so one with the final name is whole unless somebody changed it later, which the checksums
tell.
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
MODULE = "model.safetensors"

STATE_DICT = "state_dict/"
"""What the names of a PyTorch module's arrays begin with."""


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
        others = {name: value for name, value in arrays.items() if not _of_module(name)}
        _write_synced(aside / ARRAYS, lambda file: np.savez(file, allow_pickle=False, **others))
        names = [ARRAYS, STATE]
        if len(others) < len(arrays):
            _write_synced(aside / MODULE, lambda file: file.write(_module_bytes(arrays)))
            names.append(MODULE)
        text = json.dumps({"step": step, **state})
        _write_synced(aside / STATE, lambda file: file.write(text.encode()))
        sums = json.dumps({name: sha256(aside / name) for name in names}, indent=1)
        _write_synced(aside / CHECKSUMS, lambda file: file.write(sums.encode()))
    held = list_checkpoints(folder)
    place = held.index(final)
    for old in held[place + 1 :] + held[: place + 1][:-keep]:
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
        for name in (ARRAYS, STATE, *([MODULE] if MODULE in sums else [])):
            if sha256(path / name) != sums[name]:
                raise RunDirectoryError(f"{path / name}: checksum differs, the file is damaged")
        state = json.loads((path / STATE).read_text())
        with np.load(path / ARRAYS, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        if MODULE in sums:
            arrays |= _module_arrays((path / MODULE).read_bytes())
        return Checkpoint(step=int(state.pop("step")), arrays=arrays, state=state)
    except (
        OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError,
        zipfile.BadZipFile, EOFError, NotImplementedError, ImportError,
    ) as error:  # fmt: skip
        raise RunDirectoryError(f"{path}: not a readable checkpoint ({error})") from error


def latest_checkpoint(
    folder: Path, whole_steps: int | None = None, run: str | None = None
) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest good checkpoint and, for each newer one refused, why.

    Parameters
    ----------
    folder : Path
        The folder of the checkpoints.
    whole_steps : int, optional
        Number of steps that the trace holds; a checkpoint after more steps is refused.
    run : str, optional
        The run's mark, ``state["run"]``; a checkpoint of another run is refused.
    """
    refused: list[str] = []
    for path in reversed(list_checkpoints(folder)):
        step = int(path.name.removeprefix("step-"))
        if whole_steps is not None and step > whole_steps:
            refused.append(
                f"{path}: step {whole_steps} of the trace or of the solve reports is missing, "
                "damaged or of another run"
            )
            continue
        try:
            found = load_checkpoint(path)
            if run is None or found.state.get("run") == run:
                return found, refused
            refused.append(f"{path}: it is of a run with other settings")
        except RunDirectoryError as error:
            refused.append(str(error))
    return None, refused


def _of_module(name: str) -> bool:
    return name.startswith(STATE_DICT)


def _module_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return the state of a module as the bytes of its file."""
    # It comes with PyTorch's extra: no other network needs it.
    from safetensors.numpy import save

    state = {
        name.removeprefix(STATE_DICT): np.ascontiguousarray(value).reshape(value.shape)
        for name, value in arrays.items()
        if _of_module(name)
    }
    stored: bytes = save(state, {"format": "pt"})
    return stored


def _module_arrays(stored: bytes) -> dict[str, np.ndarray]:
    """Return the state of a module in the bytes of its file."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return {f"{STATE_DICT}{name}": value for name, value in load(stored).items()}
    except SafetensorError as error:
        raise ValueError(f"{MODULE}: {error}") from None


def _write_synced(path: Path, write: Callable[[BinaryIO], object]) -> None:
    with path.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())

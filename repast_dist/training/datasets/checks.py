"""What a data set checks of the arrays that come from files of one's own."""

from collections.abc import Callable

import numpy as np

from repast_dist.ground.errors import DataError
from repast_dist.training.datasets.split import Samples

_LEVELS = 255.0


def as_classes(labels: np.ndarray, where: str) -> np.ndarray:
    """Return labels (N,) or (N, 1) as classes, (N,) int64 counted from 0.

    Raises
    ------
    DataError
        They are no whole numbers from 0.
    """
    if labels.size != len(labels):
        raise DataError(
            f"{where}: labels of shape {labels.shape}; valid: ({len(labels)},) classes, or "
            "dataset.targets=numbers where there is such a setting"
        )
    return _classes(labels.reshape(-1), where)


def as_numbers(labels: np.ndarray, where: str) -> np.ndarray:
    """Return labels (N,) or (N, K) as real numbers, (N, K) float32.

    Raises
    ------
    DataError
        They are no finite numbers, or have more dimensions.
    """
    if labels.ndim not in (1, 2) or labels.dtype.kind not in "iuf":
        raise DataError(
            f"{where}: labels of shape {labels.shape} and type {labels.dtype}; valid: real numbers "
            f"({len(labels)},) or ({len(labels)}, K)"
        )
    values = labels.reshape(len(labels), -1).astype(np.float32)
    if not np.isfinite(values).all():
        raise DataError(f"{where}: labels have NaN or infinity; valid: finite numbers")
    return values


def as_tokens(inputs: np.ndarray, labels: np.ndarray, where: str) -> Samples:
    """Return tokens (N, T) and those that are to be told, (N, T), as int64.

    Raises
    ------
    DataError
        They have other or different shapes, or are no whole numbers from 0.
    """
    if inputs.ndim != 2 or not inputs.size or inputs.shape != labels.shape:
        raise DataError(
            f"{where}: tokens of shape {inputs.shape} and labels of shape {labels.shape}; valid: "
            "(N, T) for both"
        )
    return _classes(inputs, where), _classes(labels, where)


def as_samples(
    inputs: np.ndarray,
    labels: np.ndarray,
    where: str,
    as_labels: Callable[[np.ndarray, str], np.ndarray] = as_classes,
) -> Samples:
    """Return arrays of any layout as samples that a network takes.

    Parameters
    ----------
    inputs : ndarray
        (N, D) features, (N, H, W) grey pictures or (N, C, H, W). Unsigned bytes are divided by
        255; floats are taken as they are.
    labels : ndarray
        One per input.
    where : str
        What they are of, for messages.
    as_labels : callable
        Checks and converts the labels.

    Raises
    ------
    DataError
        A shape or a value is not valid.
    """
    if inputs.ndim not in (2, 3, 4) or not inputs.size:
        raise DataError(
            f"{where}: inputs of shape {inputs.shape}; valid: (N, D), (N, H, W) or (N, C, H, W)"
        )
    if not labels.ndim or len(labels) != len(inputs):
        raise DataError(
            f"{where}: labels of shape {labels.shape} for {len(inputs)} inputs; valid: "
            f"({len(inputs)},)"
        )
    return _scaled(_with_channels(inputs), where), as_labels(labels, where)


def _with_channels(inputs: np.ndarray) -> np.ndarray:
    if inputs.ndim == 2:
        return inputs[:, None, None, :]
    return inputs[:, None] if inputs.ndim == 3 else inputs


def _scaled(inputs: np.ndarray, where: str) -> np.ndarray:
    if inputs.dtype == np.uint8:
        return np.asarray(inputs.astype(np.float32) / np.float32(_LEVELS))
    if inputs.dtype.kind not in "fiu":
        raise DataError(f"{where}: inputs of type {inputs.dtype}; valid: real numbers")
    # What is beyond the range of float32 becomes infinite, and is told below.
    with np.errstate(over="ignore"):
        values = inputs.astype(np.float32)
    if not np.isfinite(values).all():
        raise DataError(f"{where}: inputs have NaN or infinity; valid: finite numbers")
    return values


def _classes(labels: np.ndarray, where: str) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        whole = labels.astype(np.int64) if labels.dtype.kind in "iuf" else None
    if whole is None or not (whole == labels).all():
        raise DataError(f"{where}: labels of type {labels.dtype}; valid: whole numbers from 0")
    if whole.min() < 0:
        raise DataError(f"{where}: a label of {whole.min()}; valid: whole numbers from 0")
    return whole

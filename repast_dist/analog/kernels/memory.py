"""Memory of a product that is used again by the next one: new memory costs more than filling it."""

import math
import threading

import numpy as np
import numpy.typing as npt

_ALIGNMENT = 64
_KEPT_BYTES = 8 * 2**20

_threads = threading.local()


def aligned(size: int) -> np.ndarray:
    """Return new memory of so many bytes, (size,) uint8, that begins where a cache line does."""
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    first = -memory.ctypes.data % _ALIGNMENT
    return memory[first : first + size]


def reused(purpose: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> np.ndarray:
    """Return an array whose contents are lost when the same thread asks for the same purpose again.

    Parameters
    ----------
    purpose : str
        Names the memory.
    shape, dtype
        Of the array. Above 8 MB it is new memory.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size > _KEPT_BYTES:
        return np.empty(shape, dtype)
    kept: dict[str, np.ndarray] = _threads.__dict__
    if purpose not in kept or len(kept[purpose]) < size:
        kept[purpose] = aligned(size)
    return kept[purpose][:size].view(dtype).reshape(shape)

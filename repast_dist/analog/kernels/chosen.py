"""Which kernels this process computes with: a matter of speed, never of the numbers."""

import contextlib
import functools
import os
from collections.abc import Iterator
from typing import Literal, get_args

from repast_dist.analog.kernels.amx import Amx
from repast_dist.analog.kernels.base import Kernels
from repast_dist.analog.kernels.float32 import Float32
from repast_dist.analog.kernels.int8 import Int8
from repast_dist.analog.kernels.onednn import OneDnn
from repast_dist.analog.kernels.tile_registers import has_matrix_unit
from repast_dist.ground.errors import SettingsError

KernelChoice = Literal["auto", "amx", "int8", "float32", "cuda", "torch"]
"""Kernels by name; ``auto``: the fastest that the machine's processor has."""

VARIABLE = "REPAST_DIST_KERNELS"
"""Environment variable of processes that have no settings of their own, such as workers."""

_using: list[Kernels] = []


def current() -> Kernels:
    """Return the kernels of this process.

    Raises
    ------
    SettingsError
        Those that `VARIABLE` names do not exist here.
    """
    return _using[-1] if _using else kernels(os.environ.get(VARIABLE, "auto"))


@contextlib.contextmanager
def using(name: str) -> Iterator[Kernels]:
    """Compute with some kernels inside the block.

    Raises
    ------
    SettingsError
        See `kernels`.
    """
    _using.append(kernels(name))
    try:
        yield _using[-1]
    finally:
        _using.pop()


@functools.cache
def kernels(name: str) -> Kernels:
    """Return the kernels of a name, see `KernelChoice`.

    Raises
    ------
    SettingsError
        This machine does not have them, or nothing is called so.
    """
    if name == "auto":
        return kernels(_of_processor()[0])
    if name == "float32":
        return Float32()
    if name == "amx":
        if not has_matrix_unit():
            raise SettingsError(
                "farm.kernels=amx: the processor has no matrix unit for 8-bit numbers (AMX), or "
                "the system does not grant it; valid: auto, int8 or float32"
            )
        return Amx()
    if name in ("cuda", "torch"):
        return _of_pytorch(name)
    if name != "int8":
        valid = ", ".join(get_args(KernelChoice))
        raise SettingsError(f"farm.kernels={name}: there are none of that name; valid: {valid}")
    library = OneDnn()
    if not library.multiplies_int8:
        raise SettingsError(
            "farm.kernels=int8: the processor has no exact products of 8-bit numbers (AMX, "
            "AVX512-VNNI or AVX-VNNI); valid: auto or float32"
        )
    return Int8(library)


def available() -> tuple[str, ...]:
    """Return the names of all kernels that this machine has for use, those of ``auto`` first."""
    found = _of_processor()
    try:
        return (*found, kernels("cuda").name)
    except SettingsError:
        return found


def _of_processor() -> tuple[str, ...]:
    """Return the names of all kernels that the processor has, the fastest first."""
    found = []
    for name in ("amx", "int8", "float32"):
        with contextlib.suppress(SettingsError):
            found.append(kernels(name).name)
    return tuple(found)


def _of_pytorch(name: str) -> Kernels:
    try:
        from repast_dist.analog.kernels.pytorch import Torch
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise SettingsError(
            f"farm.kernels={name} needs PyTorch (pip install 'repast-dist[torch]'); valid without "
            "it: auto, float32 or int8"
        ) from None
    return Torch(name)

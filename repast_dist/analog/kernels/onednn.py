"""oneDNN's products of 8-bit numbers, called through its C interface (oneAPI, Apache 2.0).

The library is that of the package ``onednn-cpu-gomp``; see the C reference of oneDNN 3 for what
the functions do. A primitive is a product of one shape, compiled when it is first asked for.
"""

import ctypes
import functools
import importlib.metadata
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from repast_dist.analog.kernels.memory import aligned
from repast_dist.ground.errors import SettingsError

PACKAGE = "onednn-cpu-gomp"
_LIBRARY = "libdnnl.so.3"

# From dnnl_types.h and dnnl_common_types.h.
_CPU, _IN_ORDER = 1, 1
_S32, _S8 = 4, 5
_ANY = 1
_NO_MEMORY = ctypes.c_void_p()
_QUERY_WEIGHTS = 131
_SRC, _WEIGHTS, _DST = 1, 33, 17
_FROM, _TO = 1, 17
_AVX2_VNNI, _AVX512_VNNI, _AMX = 0x0F, 0x67, 0xFEF

_SHAPES = 256
"""Products of different shapes that are kept compiled."""


class _Argument(ctypes.Structure):
    _fields_ = [("number", ctypes.c_int), ("memory", ctypes.c_void_p)]


class _Memories:
    """The arguments of a primitive: memory objects that point to arrays."""

    def __init__(self, library: ctypes.CDLL, made: list[tuple[int, ctypes.c_void_p]]) -> None:
        self._library = library
        self._made = [memory for _, memory in made]
        self._addresses = [0] * len(made)
        self.arguments = (_Argument * len(made))(*(_Argument(*one) for one in made))

    def point_to(self, arrays: Sequence[np.ndarray]) -> None:
        """Let them point to arrays; most calls use the memory of the one before."""
        for place, array in enumerate(arrays):
            address = array.__array_interface__["data"][0]
            if address != self._addresses[place]:
                self._library.dnnl_memory_set_data_handle(
                    self._made[place], ctypes.c_void_p(address)
                )
                self._addresses[place] = address

    def __del__(self) -> None:
        """Give back what the library holds for them."""
        for memory in self._made:
            self._library.dnnl_memory_destroy(memory)


class OneDnn:
    """The loaded library.

    Raises
    ------
    SettingsError
        The package is not installed, or does not hold the library for this system.
    """

    def __init__(self) -> None:
        self._library = _load()
        self._lock = threading.Lock()
        self._execute = self._library.dnnl_primitive_execute
        self._wait = self._library.dnnl_stream_wait
        self._engine, self._stream = ctypes.c_void_p(), ctypes.c_void_p()
        self.check("dnnl_engine_create", ctypes.byref(self._engine), _CPU, ctypes.c_size_t(0))
        self.check("dnnl_stream_create", ctypes.byref(self._stream), self._engine, _IN_ORDER)
        self._layouts: dict[tuple[int, int], list[ctypes.c_void_p]] = {}
        self.product = functools.lru_cache(_SHAPES)(self._compiled)

    @property
    def multiplies_int8(self) -> bool:
        """Whether the processor has exact products of 8-bit numbers.

        Without them, oneDNN adds pairs of products in 16 bits, which saturates.
        """
        return self._has(_AVX2_VNNI) or self._has(_AVX512_VNNI)

    @property
    def has_matrix_unit(self) -> bool:
        """Whether the processor multiplies 8-bit matrices as a whole."""
        return self._has(_AMX)

    def _has(self, instructions: int) -> bool:
        found = int(self._library.dnnl_get_effective_cpu_isa())
        return found & instructions == instructions

    def check(self, function: str, *arguments: object) -> None:
        """Call a function that returns a status, and raise RuntimeError if it is not success."""
        status = getattr(self._library, function)(*arguments)
        if status:
            raise RuntimeError(f"{_LIBRARY}: {function} returned status {status}")

    def _compiled(self, shape: tuple[int, int, int]) -> "Int8Product":
        """Return ``out = left @ right`` for shapes (n, k), (k, m), (n, m)."""
        return Int8Product(self, shape)

    def description(self, shape: tuple[int, int], kind: int, any_layout: bool) -> ctypes.c_void_p:
        """Return the description of a matrix."""
        made, sizes = ctypes.c_void_p(), (ctypes.c_int64 * 2)(*shape)
        if any_layout:
            self.check("dnnl_memory_desc_create_with_tag", ctypes.byref(made), 2, sizes, kind, _ANY)
        else:
            strides = (ctypes.c_int64 * 2)(shape[1], 1)
            self.check(
                "dnnl_memory_desc_create_with_strides", ctypes.byref(made), 2, sizes, kind, strides
            )
        return made

    def memories(self, described: Sequence[tuple[int, ctypes.c_void_p]]) -> "_Memories":
        """Return memory objects without memory, of numbers of arguments and descriptions."""
        made = []
        for number, description in described:
            memory = ctypes.c_void_p()
            self.check(
                "dnnl_memory_create", ctypes.byref(memory), description, self._engine, _NO_MEMORY
            )
            made.append((number, memory))
        return _Memories(self._library, made)

    def layout(self, shape: tuple[int, int], description: ctypes.c_void_p) -> int:
        """Return the number of a layout among those met for matrices of a shape."""
        met = self._layouts.setdefault(shape, [])
        for number, other in enumerate(met):
            if self._library.dnnl_memory_desc_equal(other, description):
                return number
        made = ctypes.c_void_p()
        self.check("dnnl_memory_desc_clone", ctypes.byref(made), description)
        met.append(made)
        return len(met) - 1

    def size(self, description: ctypes.c_void_p) -> int:
        """Return the bytes that a matrix takes."""
        return int(self._library.dnnl_memory_desc_get_size(description))

    def weights(self, primitive: ctypes.c_void_p) -> ctypes.c_void_p:
        """Return the description of the right operand that a product has chosen; it owns it."""
        return ctypes.c_void_p(
            self._library.dnnl_primitive_desc_query_md(primitive, _QUERY_WEIGHTS, 0)
        )

    def run(self, primitive: ctypes.c_void_p, bound: "_Memories", *arrays: np.ndarray) -> None:
        """Run a primitive on arrays, through its memory objects."""
        with self._lock:
            bound.point_to(arrays)
            status = self._execute(primitive, self._stream, len(arrays), bound.arguments)
            status = status or self._wait(self._stream)
        if status:
            raise RuntimeError(f"{_LIBRARY}: a primitive returned status {status}")

    def product_primitive(
        self, left: ctypes.c_void_p, right: ctypes.c_void_p, out: ctypes.c_void_p
    ) -> tuple[ctypes.c_void_p, ctypes.c_void_p]:
        """Return the description and the primitive of ``out = left @ right``."""
        described, made = ctypes.c_void_p(), ctypes.c_void_p()
        self.check(
            "dnnl_matmul_primitive_desc_create",
            *(ctypes.byref(described), self._engine, left, right, ctypes.c_void_p(), out),
            ctypes.c_void_p(),
        )
        self.check("dnnl_primitive_create", ctypes.byref(made), described)
        return described, made

    def reorder_primitive(self, plain: ctypes.c_void_p, packed: ctypes.c_void_p) -> ctypes.c_void_p:
        """Return the primitive that brings a matrix into another layout."""
        described, made = ctypes.c_void_p(), ctypes.c_void_p()
        self.check(
            "dnnl_reorder_primitive_desc_create",
            *(ctypes.byref(described), plain, self._engine, packed, self._engine),
            ctypes.c_void_p(),
        )
        self.check("dnnl_primitive_create", ctypes.byref(made), described)
        self.check("dnnl_primitive_desc_destroy", described)
        return made


class Int8Product:
    """A compiled product of int8 matrices into int32, of one shape.

    Parameters
    ----------
    library : OneDnn
        Compiles and runs it.
    shape : tuple of int
        n, k, m.

    Attributes
    ----------
    layout : int
        Products of a right operand with the same number share its packed form.
    """

    def __init__(self, library: OneDnn, shape: tuple[int, int, int]) -> None:
        rows, inner, columns = shape
        self._library = library
        left = library.description((rows, inner), _S8, False)
        out = library.description((rows, columns), _S32, False)
        plain = library.description((inner, columns), _S8, False)
        anyhow = library.description((inner, columns), _S8, True)
        described, self._product = library.product_primitive(left, anyhow, out)
        weights = library.weights(described)
        self.layout = library.layout((inner, columns), weights)
        self._bytes = library.size(weights)
        self._reorder = library.reorder_primitive(plain, weights)
        self._operands = library.memories([(_SRC, left), (_WEIGHTS, weights), (_DST, out)])
        self._packing = library.memories([(_FROM, plain), (_TO, weights)])
        library.check("dnnl_primitive_desc_destroy", described)
        for description in (left, out, plain, anyhow):
            library.check("dnnl_memory_desc_destroy", description)

    def pack(self, right: np.ndarray) -> np.ndarray:
        """Return the right operand, (k, m) int8, in the layout that the product wants."""
        packed = aligned(self._bytes)
        plain = np.ascontiguousarray(right)
        self._library.run(self._reorder, self._packing, plain, packed)
        return packed

    def __call__(self, left: np.ndarray, packed: np.ndarray, out: np.ndarray) -> None:
        """Multiply (n, k) int8 with a packed operand into (n, m) int32, all without gaps."""
        self._library.run(self._product, self._operands, left, packed, out)

    def __del__(self) -> None:
        """Give back what the library holds for it."""
        for primitive in (self._product, self._reorder):
            self._library.check("dnnl_primitive_destroy", primitive)


def _load() -> ctypes.CDLL:
    """Return the library of the installed package."""
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        raise SettingsError(
            f"farm.kernels=int8 needs the package {PACKAGE} (pip install 'repast-dist[fast]', "
            "Linux on x86-64); valid without it: auto or float32"
        ) from None
    found = [file for file in files if Path(file).name == _LIBRARY]
    try:
        library = ctypes.CDLL(str(found[0].locate()))
    except (IndexError, OSError) as error:
        raise SettingsError(
            f"farm.kernels=int8: {PACKAGE} has no {_LIBRARY} that this system loads ({error}); "
            "valid: auto or float32"
        ) from None
    library.dnnl_memory_desc_get_size.restype = ctypes.c_size_t
    library.dnnl_primitive_desc_query_md.restype = ctypes.c_void_p
    return library

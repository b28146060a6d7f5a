"""What a solve gives back: the answer, and an honest account of it."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class SolveCounts:
    """What a preparation or a solve made the hardware do.

    Attributes
    ----------
    inv_ops : int
        Settlings of inverting arrays, one per right-hand side.
    beside : int
        Those of them that take place beside another of the same right-hand side.
    vmm_ops : int
        Matrix-vector products on the multipliers, at ``product_bits``; of a fused block, through
        both its matrices.
    digital_ops : int
        Scalar operations of the digital unit; a multiplication with its addition is one.
    moved : int
        Numbers that the digital unit reads from buffers, or writes there, for its scalar
        operations; inputs and results of products and settlings are not among them.
    spared_slices : int
        Slices of the weights that products leave out, summed over these: a product with the high
        bits of a block reads the cells that hold them.
    spared_passes : int
        Passes of the inputs that products leave out, summed over these, of those that inputs of all
        bits take.
    factorisations : int
        Cholesky factorisations of the whole block by the digital unit; not among its scalar
        operations.
    factored_sides : int
        Right-hand sides that it solved with the factors; not among its scalar operations.
    program_cells : int
        Cells that a preparation takes.
    kept_cells : int
        Those of them, in multiplying arrays, that hold their level already and are not written.
    settling_s : float
        Time of all settlings, one after the other, in seconds.
    """

    inv_ops: int = 0
    beside: int = 0
    vmm_ops: int = 0
    digital_ops: int = 0
    moved: int = 0
    spared_slices: int = 0
    spared_passes: int = 0
    factorisations: int = 0
    factored_sides: int = 0
    program_cells: int = 0
    kept_cells: int = 0
    settling_s: float = 0.0

    def __add__(self, other: "SolveCounts") -> "SolveCounts":
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return SolveCounts(*(a + b for a, b in pairs))

    def __sub__(self, other: "SolveCounts") -> "SolveCounts":
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return SolveCounts(*(a - b for a, b in pairs))


@dataclasses.dataclass(frozen=True)
class Answered:
    """What a solve found, for the next one with the same block to begin with.

    Attributes
    ----------
    x : ndarray
        (n, r) answers, in the units of the hardware; every column has a scale of its own.
    image : ndarray
        (n, r) what the scaled block makes of them, as the hardware knows it.
    drift : ndarray
        (r,) bound on the norms of what roundings have added to it.
    """

    x: np.ndarray
    image: np.ndarray
    drift: np.ndarray


@dataclasses.dataclass(frozen=True)
class Solution:
    """Answer and honest account of a solve with r right-hand sides.

    Attributes
    ----------
    x : ndarray
        (n, r) float64.
    iterations : ndarray
        (r,) int64, rounds of the outer scheme.
    residual : ndarray
        (r,) float64, ``|b - A x| / |b|`` in the 2-norm; 0 for a zero right-hand side.
    converged : ndarray
        (r,) bool, residual within the target.
    counts : SolveCounts
        What the hardware did.
    method : str
        The scheme that gave the answer.
    usable : bool
        Whether the scheme takes the answer for good, all right-hand sides together.
    refreshes : int
        Residual products that only the numbers asked for, beside those of every round.
    stable : bool
        Whether the circuits come to rest; nothing is solved with those that do not.
    saturated : bool
        Whether an output went beyond the amplifiers' swing: then no right-hand side converged.
    answered : Answered or None
        What the next solve may begin with, of schemes that do.
    """

    x: np.ndarray
    iterations: np.ndarray
    residual: np.ndarray
    converged: np.ndarray
    counts: SolveCounts
    method: str
    usable: bool = True
    refreshes: int = 0
    stable: bool = True
    saturated: bool = False
    answered: Answered | None = None

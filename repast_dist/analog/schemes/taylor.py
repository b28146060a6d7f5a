"""``taylor``: the series of RePAST.

A = A_H + A_L, the array holds A_H; every A_H^-1 is bit-sliced over DAC and ADC, and the series
x = sum_k (-A_H^-1 A_L)^k A_H^-1 b restores what the split left out (RePAST, arXiv 2210.15255).
"""

from typing import ClassVar, Literal

import numpy as np

from repast_dist.analog.fixed_point import rounded
from repast_dist.analog.product import Product
from repast_dist.analog.schemes.base import SCHEMES, ArrayScheme, IterativeScheme
from repast_dist.analog.schemes.watch import Watch
from repast_dist.analog.solver import (
    NORM_MOVES,
    RESIDUAL_MOVES,
    UPDATE_MOVES,
    BlockSolver,
    Run,
)
from repast_dist.analog.specs import InvSpec
from repast_dist.ground.numbers import ceil_div
from repast_dist.ground.spec import spec

_PATIENCE = 4
_UPDATE_OPS = 4
_MOVES = UPDATE_MOVES + RESIDUAL_MOVES + NORM_MOVES
"""Numbers per row and round: the answer, the residual, and its norm, but not slices of a term."""


@SCHEMES.register
@spec
class Taylor(ArrayScheme, IterativeScheme):
    """The Taylor series of RePAST over the split of a block into high and low bits.

    Attributes
    ----------
    method : {"taylor"}
        The scheme's name.
    """

    method: Literal["taylor"] = "taylor"

    fusible: ClassVar[bool] = False

    def solve(self, run: Run) -> None:
        """Sum the series; each term is one bit-sliced application of A_H^-1."""
        watch = Watch(run, self.tolerance, _PATIENCE)
        high, low = _halves(run.solver)
        spared_of_high, spared_of_low = self._spared(run.solver.inv)
        active = np.flatnonzero(run.norm > 0)
        term = run.b[:, active]
        for number in range(self.max_iterations):
            if not active.size:
                return
            if number:
                term = -run.product_with(low, term, spared_of_low)
            term = self._sliced_inverse(run, high, term, spared_of_high)
            run.x[:, active] += term
            run.moved += UPDATE_MOVES * term.size
            run.iterations[active] += 1
            residual = run.residual(active)
            run.digital_ops += _UPDATE_OPS * residual.size
            keep = watch.keep(run.relative(residual, active), active)
            active, term = active[keep], term[:, keep]

    def per_column(
        self, rounds: np.ndarray, inv: InvSpec
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return slices of the inverse, each with a product, a residual product per round, and a
        product with the low bits between rounds.
        """
        slices = self._slices(inv)
        products = (slices + 1) * rounds + np.maximum(rounds - 1, 0)
        moved = (2 * UPDATE_MOVES * slices + _MOVES) * rounds
        return (slices + 1) * rounds, products, _UPDATE_OPS * rounds, moved

    def spared_slices(self, rounds: np.ndarray, inv: InvSpec) -> np.ndarray:
        """Return the slices that products with the high and with the low bits leave out."""
        of_high, of_low = self._spared(inv)
        return self._slices(inv) * of_high * rounds + of_low * np.maximum(rounds - 1, 0)

    def _spared(self, inv: InvSpec) -> tuple[int, int]:
        """Return the slices of the weights that a product with the high bits leaves out, which are
        those of an inverting cell, and one with the low bits.
        """
        bits, each = self.product_bits - 1, inv.device.cell.bits
        high = min(inv.device.inv_cell.bits, bits)
        slices = ceil_div(bits, each)
        return slices - ceil_div(high, each), slices - ceil_div(bits - high, each)

    def _slices(self, inv: InvSpec) -> int:
        """Return the corrections that one application of A_H^-1 takes."""
        bits = min(inv.dac_bits, inv.adc_bits)
        return ceil_div(self.target_bits + 2, max(bits - 2, 1))

    def _sliced_inverse(
        self, run: Run, high: Product, vectors: np.ndarray, spared: int
    ) -> np.ndarray:
        """Apply A_H^-1 with b and x cut into converter-sized slices, most significant first."""
        x = run.invert(vectors)
        with np.errstate(over="ignore", invalid="ignore"):
            for _ in range(self._slices(run.solver.inv)):
                left = vectors - run.product_with(high, x, spared)
                x = x + run.invert(np.nan_to_num(left))
                run.moved += 2 * UPDATE_MOVES * x.size
        return x


def _halves(solver: BlockSolver) -> tuple[Product, Product]:
    """Return what a cell's bits hold of the scaled block, and the rest of it in the other bits."""
    whole = solver.product
    (matrix,) = whole.factors
    loaded = matrix + solver.shift * np.eye(solver.size)
    bits = min(solver.inv.device.inv_cell.bits, whole.bits - 1)
    high = rounded(loaded, bits + 1)
    low = rounded(matrix - high, max(whole.bits - bits, 2))
    return whole.holding(high, "high"), whole.holding(low, "low")

"""``fcg``: flexible conjugate gradients with the array as the preconditioner."""

from typing import Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Ge

from repast_dist.analog.schemes.base import SCHEMES, ArrayScheme, DeflatingScheme
from repast_dist.analog.schemes.gradients import (
    ConjugateScheme,
    conjugate_gradients,
    gradient_moves,
    gradient_ops,
)
from repast_dist.analog.solver import Run
from repast_dist.analog.specs import InvSpec
from repast_dist.ground.numbers import ceil_div
from repast_dist.ground.spec import spec

_PATIENCE = 80


@spec
class GradientScheme(ArrayScheme, DeflatingScheme, ConjugateScheme):
    """Conjugate gradients with the array as the preconditioner.

    Attributes
    ----------
    conjugate : int
        Directions before it that a new one is made conjugate to.
    """

    conjugate: Annotated[int, Ge(1)] = 4

    own_regularisation: ClassVar[float] = 1.0
    own_read_after: ClassVar[float | Literal["settled"]] = 12.0

    def solve(self, run: Run) -> None:
        """Go along conjugate directions that the array proposes."""
        conjugate_gradients(run, self, self.conjugate, _PATIENCE)

    def per_column(
        self, rounds: np.ndarray, inv: InvSpec
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return an application of the inverse and a product per round."""
        ops, moves = self.beginning
        moved = gradient_moves(rounds, self.conjugate) + moves
        return rounds, rounds, gradient_ops(rounds, self.conjugate) + ops, moved


@spec
class PieceScheme(GradientScheme):
    """Conjugate gradients for blocks that may be wider than an array.

    Attributes
    ----------
    array_pieces : {"nested", "diagonal"}
        How a block wider than an array is held. ``nested``: as halves and their Schur complements,
        which are inverted by 3^d settlings and 3^d - 1 products one after the other where it is
        halved d times. ``diagonal``: the pieces along its diagonal alone, as wide as arrays are,
        all of which settle at once; conjugate gradients make up for what couples them.
    """

    array_pieces: Literal["nested", "diagonal"] = "diagonal"

    def depth(self, size: int, array: int) -> int:
        """Return no halvings where the pieces of the diagonal are all that is held."""
        return 0 if self.array_pieces == "diagonal" else super().depth(size, array)

    def pieces(self, size: int, array: int) -> int:
        """Return the pieces, of the diagonal no more than are needed."""
        if self.array_pieces == "diagonal":
            return ceil_div(size, array)
        return super().pieces(size, array)

    def ignores(self, split: bool) -> dict[str, str]:
        """Return also that blocks which fit an array have one piece."""
        unread = super().ignores(split)
        if not split:
            unread["array_pieces"] = (
                "no block is wider than an inverting array; valid: soi.block_size above "
                "chip.inv.size"
            )
        return unread


@SCHEMES.register
@spec
class Fcg(PieceScheme):
    """Flexible conjugate gradients, dominant directions taken out of the array.

    Attributes
    ----------
    method : {"fcg"}
        The scheme's name.
    """

    method: Literal["fcg"] = "fcg"

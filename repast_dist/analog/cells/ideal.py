"""``ideal``: a cell that holds exactly what is programmed; quantisation remains."""

from typing import Literal, Self

import numpy as np

from repast_dist.analog.cells.base import CELLS, Cell
from repast_dist.ground.errors import SettingsError
from repast_dist.ground.spec import spec


@CELLS.register
@spec
class Ideal(Cell):
    """A cell that holds exactly what is programmed; quantisation to its levels remains.

    Attributes
    ----------
    model : {"ideal"}
        The model's name.
    """

    model: Literal["ideal"] = "ideal"

    @property
    def exact(self) -> bool:
        """Whether a cell holds some level exactly: always."""
        return True

    @property
    def pair_error(self) -> float:
        """RMS error of what a pair is programmed to: none."""
        return 0.0

    def program(self, target: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Return the targets."""
        return np.array(target, np.float64)

    def with_programming_sigma(self, sigma: float) -> Self:
        """Return the cell itself; it can have no programming error.

        Raises
        ------
        SettingsError
            The error is not zero.
        """
        if sigma:
            raise SettingsError(
                f"cell model 'ideal' has no programming error, got {sigma}; valid: 0, or another "
                "model, for example device=reram"
            )
        return self

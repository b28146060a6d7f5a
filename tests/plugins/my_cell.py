"""A cell model of one's own: cells that hold a lognormal multiple of their target."""

import dataclasses
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge

from repast_dist.analog.cells.base import CELLS, Cell
from repast_dist.ground.spec import spec


@CELLS.register
@spec
class Multiplied(Cell):
    """A cell whose conductance is off by a factor.

    Attributes
    ----------
    model : {"multiplied"}
        The cell model's name.
    log_sigma : float
        Standard deviation of the factor's logarithm.
    """

    model: Literal["multiplied"] = "multiplied"
    log_sigma: Annotated[float, Ge(0)] = 0.01

    @property
    def exact(self):
        """Whether a cell holds just what is programmed."""
        return not self.log_sigma

    @property
    def pair_error(self):
        """RMS error where levels are evenly used: the mean square of a target is a third."""
        return float(self.log_sigma / np.sqrt(3.0))

    def program(self, target, random):
        """Return what cells hold."""
        return target * np.exp(self.log_sigma * random.standard_normal(target.shape))

    def with_programming_sigma(self, sigma):
        """Return the cell with another RMS error."""
        return dataclasses.replace(self, log_sigma=sigma * np.sqrt(3.0))

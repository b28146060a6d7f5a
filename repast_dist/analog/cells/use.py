"""What cells have been through when they are used."""

import dataclasses
from typing import Annotated

from annotated_types import Ge

from repast_dist.ground.spec import spec


@spec
class CellUse:
    """What the cells of an array have been through when they are used.

    Attributes
    ----------
    age_s : float
        Time since they were written.
    """

    age_s: Annotated[float, Ge(0)] = 0.0

    def older(self, seconds: float) -> "CellUse":
        """Return the same cells after some more seconds."""
        return dataclasses.replace(self, age_s=self.age_s + seconds)


NEW = CellUse()
"""Cells that were written a moment ago."""

"""What cells have been through when they are used."""

import dataclasses
from typing import Annotated

from annotated_types import Ge, Gt

from repast_dist.ground.spec import spec


@spec
class CellUse:
    """What the cells of an array have been through when they are used.

    Attributes
    ----------
    age_s : float
        Time since they were written.
    writes : float
        How often they have been written, the last time included.
    endurance : float or None
        Writes that half of them survive; None: all that come.
    warmer_k : float
        By how much warmer they are than when they were written.
    chip : int
        The chip that they are on, where chips differ.
    """

    age_s: Annotated[float, Ge(0)] = 0.0
    writes: Annotated[float, Ge(0)] = 0.0
    endurance: Annotated[float, Gt(0)] | None = None
    warmer_k: float = 0.0
    chip: int = 0

    def older(self, seconds: float) -> "CellUse":
        """Return the same cells after some more seconds."""
        return dataclasses.replace(self, age_s=self.age_s + seconds)

    def written(self, times: float) -> "CellUse":
        """Return the same cells after more writes."""
        return dataclasses.replace(self, writes=self.writes + times)


NEW = CellUse()
"""Cells that were written a moment ago."""

"""Every combination."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from repast_dist.ground.spec import spec
from repast_dist.studies.sampler import SAMPLERS, Sampler


@SAMPLERS.register
@spec
class Grid(Sampler):
    """Every combination of the levels of all parameters, the last parameter first."""

    kind: Literal["grid"] = "grid"
    needs_points: ClassVar[bool] = False

    def made(self, seed: int) -> None:
        """Return nothing: points are listed."""

    def listed(self, levels: Mapping[str, Sequence[Any]]) -> Sequence[Mapping[str, Any]]:
        """Return all combinations, in order."""
        return [
            dict(zip(levels, item, strict=True)) for item in itertools.product(*levels.values())
        ]

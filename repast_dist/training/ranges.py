"""ADC ranges that training keeps from step to step, one per role, layer and kind of matrix."""

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np

Ranges = Mapping[str, np.ndarray]
"""What is multiplied, see `RangeKeeper` -> (slices,) float32 in units of one level."""


@dataclasses.dataclass
class RangeKeeper:
    """The ranges that an engine's converters are set to, and those its products ask for.

    Products share a range where they have the role, the layer and the kind of matrix in common:
    ``"factor conv1 errors"``. Where none is kept, the ranges are those of the call.

    Attributes
    ----------
    kept : mapping
        Ranges in use.
    """

    kept: Ranges = dataclasses.field(default_factory=dict)
    _needed: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def note(self, what: str, needed: np.ndarray | None) -> None:
        """Note the ranges that a product asks for, (slices,) float32; None: it asks for none."""
        if needed is not None:
            before = self._needed.get(what)
            self._needed[what] = needed if before is None else np.maximum(before, needed)

    def take(self) -> dict[str, np.ndarray]:
        """Return the largest ranges asked for since the last call, and begin again."""
        needed, self._needed = self._needed, {}
        return needed


def wider(ranges: Ranges, margin: float) -> dict[str, np.ndarray]:
    """Return the ranges of products, each wider by a part of itself."""
    factor = np.float32(1.0 + margin)
    return {what: values * factor for what, values in ranges.items()}


def largest(parts: Iterable[Ranges]) -> dict[str, np.ndarray]:
    """Return the largest of the ranges for each product, whatever the order of the parts."""
    found: dict[str, np.ndarray] = {}
    for part in parts:
        for what, ranges in part.items():
            before = found.get(what)
            found[what] = ranges if before is None else np.maximum(before, ranges)
    return found

"""Settings of the network between chips."""

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, MinLen

from repast_dist.ground.numbers import NonNegative, PositiveInt
from repast_dist.ground.spec import spec


@spec
class DimensionSpec:
    """One dimension of the network between chips.

    Attributes
    ----------
    topology : {"ring", "switch", "fully_connected"}
        How the chips of this dimension are connected.
    chips : int or None
        Chips along this dimension; None: as many as are left.
    latency_s : float
        Time of an empty message between neighbours.
    bandwidth_bytes_per_s : float
        Of one chip into this dimension, each way.
    energy_j_per_bit : float
        Energy to move one bit over one link.
    """

    topology: Literal["ring", "switch", "fully_connected"] = "ring"
    chips: PositiveInt | None = None
    latency_s: NonNegative = 1e-6
    bandwidth_bytes_per_s: Annotated[float, Gt(0)] = 6.4e9
    energy_j_per_bit: NonNegative = 5e-11


@spec
class InterconnectSpec:
    """The network between chips, innermost dimension first.

    Attributes
    ----------
    name : str
        Name of the preset.
    source : str
        Where the figures come from.
    dimensions : tuple of DimensionSpec
        One entry per dimension; neighbouring chip numbers lie along the first.
    all_reduce : {"auto", "ring", "halving_doubling", "tree"}
        Algorithm along a dimension; ``auto``: ring on a ring, the fastest elsewhere.
    element_bytes : int
        Bytes of an exchanged number.
    reduce_s_per_byte : float
        Time to add a received byte to a held one.
    """

    name: str = "ring"
    source: str
    dimensions: Annotated[tuple[DimensionSpec, ...], MinLen(1)]
    all_reduce: Literal["auto", "ring", "halving_doubling", "tree"] = "auto"
    element_bytes: Annotated[int, Ge(1), Le(8)] = 4
    reduce_s_per_byte: NonNegative = 0.0

    def __post_init__(self) -> None:
        open_ended = [number for number, d in enumerate(self.dimensions) if d.chips is None]
        if open_ended and open_ended != [len(self.dimensions) - 1]:
            raise ValueError("only the last dimension may leave out chips")

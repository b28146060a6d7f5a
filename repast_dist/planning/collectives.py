"""Prices collectives between chips: textbook alpha-beta times, bytes per link and energy.

Along one dimension there are P chips with n bytes each; a message takes a latency of a seconds and
b seconds per byte, and adding takes c seconds per byte (Thakur et al., 2005; Chan et al., 2007). An
all-reduce over several dimensions is hierarchical: reduce-scatters along one dimension after the
other leave less and less to the next, an all-reduce along the last one follows, and all-gathers go
back. On a 2-D torus these are two ring phases.
"""

import dataclasses
from collections.abc import Mapping

from repast_dist.ground.errors import SettingsError
from repast_dist.ground.numbers import BITS_PER_BYTE
from repast_dist.hardware.all_reduce import ALGORITHMS
from repast_dist.hardware.interconnect import InterconnectSpec
from repast_dist.hardware.topology import Topology


@dataclasses.dataclass(frozen=True)
class Dimension:
    """A dimension of the network, with the number of chips that are along it.

    Attributes
    ----------
    topology : Topology
        How its chips are connected, and the figures of the links.
    chips : int
        Chips along the dimension that take part.
    number : int
        Place in the settings; 0 is the innermost.
    along : int
        All chips along it.
    apart : int
        Those that take part are every so many-th chip, and as many such groups do the same side by
        side.
    """

    topology: Topology
    chips: int
    number: int
    along: int
    apart: int = 1

    @property
    def latency_s(self) -> float:
        """Time of an empty message from a chip to the next that takes part."""
        return self.topology.latency_s * self._crossed

    @property
    def byte_s(self) -> float:
        """Time of a byte that a chip sends: over the links to those that take part, each of which
        carries what several groups send.
        """
        return self._crossed / self.topology.links(self.chips) * self.link_byte_s

    @property
    def byte_j(self) -> float:
        """Energy of a byte from a chip to the next that takes part."""
        return BITS_PER_BYTE * self.topology.energy_j_per_bit * self._crossed

    def link_bytes(self, sent: float) -> float:
        """Return the bytes over a link if every chip sends so many."""
        return sent * self._crossed / self.topology.links(self.chips)

    @property
    def link_byte_s(self) -> float:
        """Time of a byte on one link: the links of a chip share its bandwidth."""
        return self.topology.links(self.along) / self.topology.bandwidth_bytes_per_s

    @property
    def _crossed(self) -> int:
        return self.topology.crossed(self.apart)


@dataclasses.dataclass(frozen=True)
class Exchange:
    """The cost of a collective.

    Attributes
    ----------
    time_s : float
        Time from when all chips are ready until all have the result.
    sent_bytes : float
        Bytes that the busiest chip sends over all its links.
    link_bytes : dict
        Number of a dimension -> bytes over its busiest link.
    energy_j : float
        Energy of all links of all chips.
    given_bytes : float
        Bytes that each chip that takes part brings, on average.
    """

    time_s: float = 0.0
    sent_bytes: float = 0.0
    link_bytes: Mapping[int, float] = dataclasses.field(default_factory=dict)
    energy_j: float = 0.0
    given_bytes: float = 0.0

    def __add__(self, other: "Exchange") -> "Exchange":
        return Exchange(
            self.time_s + other.time_s,
            self.sent_bytes + other.sent_bytes,
            {
                number: self.link_bytes.get(number, 0.0) + other.link_bytes.get(number, 0.0)
                for number in sorted({*self.link_bytes, *other.link_bytes})
            },
            self.energy_j + other.energy_j,
            self.given_bytes + other.given_bytes,
        )


def dimensions_for(spec: InterconnectSpec, chips: int) -> tuple[Dimension, ...]:
    """Return the dimensions that `chips` chips fill, innermost first, without those of one chip.

    Raises
    ------
    SettingsError
        The network has fewer places than there are chips, or a dimension would not be full.
    """
    found, left = [], chips
    for number, dimension in enumerate(spec.dimensions):
        size = left if dimension.chips is None else min(dimension.chips, left)
        if left % size:
            raise SettingsError(
                f"interconnect.dimensions.{number}.chips: {size} does not divide {left} chips; "
                "valid: a divisor"
            )
        left //= size
        if size > 1:
            found.append(Dimension(dimension, size, number, size))
    if left > 1:
        raise SettingsError(
            f"interconnect.dimensions: places for {chips // left} chips, {chips} are needed; "
            "leave the last dimension's chips empty to let it grow"
        )
    return tuple(found)


def group_dimensions(
    spec: InterconnectSpec, chips: int, members: int, apart: int = 1
) -> tuple[Dimension, ...]:
    """Return the dimensions that a group of chips fills, as `dimensions_for` those of all chips.

    Parameters
    ----------
    spec : InterconnectSpec
        The network.
    chips : int
        All chips.
    members : int
        Chips of the group. Where they cannot fill a dimension evenly, those that are left count as
        along the outermost one.
    apart : int
        Difference between their numbers.
    """
    everywhere = dimensions_for(spec, chips)
    found, left = [], members
    for dimension in everywhere:
        if apart % dimension.chips == 0:
            apart //= dimension.chips
            continue
        along = min(dimension.chips // apart, left)
        if dimension.chips % apart or left % along:
            break
        if along > 1:
            found.append(dataclasses.replace(dimension, chips=along, apart=apart))
        left, apart = left // along, 1
    if left > 1:
        found.append(dataclasses.replace(everywhere[-1], chips=left, along=left))
    return tuple(found)


def all_reduce(spec: InterconnectSpec, chips: int, payload_bytes: float) -> Exchange:
    """Return the cost of adding up `payload_bytes` of every chip and giving all chips the sum."""
    dimensions = dimensions_for(spec, chips)
    inward, share = Exchange(), payload_bytes
    for dimension in dimensions[:-1]:
        inward += _reduce_scatter(dimension, spec, share, share / dimension.chips)
        share /= dimension.chips
    if dimensions:
        inward += _flat_all_reduce(dimensions[-1], spec, share)
    for dimension in reversed(dimensions[:-1]):
        share *= dimension.chips
        inward += _all_gather(dimension, share, share / dimension.chips)
    return _over_all(inward, dimensions, chips, payload_bytes)


def reduce_to_owners(
    spec: InterconnectSpec,
    chips: int,
    total_bytes: float,
    largest_bytes: float,
    members: int | None = None,
    apart: int = 1,
) -> Exchange:
    """Return the cost of a reduce-scatter with uneven pieces, each added up at its owner.

    Parameters
    ----------
    spec : InterconnectSpec
        The network.
    chips : int
        All chips.
    total_bytes : float
        Bytes of all pieces together.
    largest_bytes : float
        Bytes of the pieces that one chip owns, for the chip with the most; at least the mean.
    members, apart : int
        Chips that contribute and own pieces, and the difference of their numbers; all others do
        the same in groups as large. None: all.
    """
    dimensions = group_dimensions(spec, chips, members or chips, apart)
    cost, total, largest = Exchange(), total_bytes, largest_bytes
    for dimension in dimensions:
        cost += _reduce_scatter(dimension, spec, total, largest)
        total /= dimension.chips
        largest = min(largest, total)
    return _over_all(cost, dimensions, chips, total_bytes)


def gather_from_owners(
    spec: InterconnectSpec,
    chips: int,
    total_bytes: float,
    largest_bytes: float,
    members: int | None = None,
    apart: int = 1,
) -> Exchange:
    """Return the cost of an all-gather with uneven pieces: every chip gets all of them. Parameters
    are those of `reduce_to_owners`.
    """
    dimensions = group_dimensions(spec, chips, members or chips, apart)
    cost, total, largest = Exchange(), total_bytes, largest_bytes
    for dimension in dimensions:
        cost += _all_gather(dimension, total, largest)
        total /= dimension.chips
        largest = min(largest, total)
    return _over_all(cost, dimensions, chips, total_bytes / (members or chips))


def all_to_all(
    spec: InterconnectSpec, chips: int, total_bytes: float, largest_bytes: float
) -> Exchange:
    """Return the cost of an all-to-all: every chip sends an equal share of its data to every other.

    Parameters
    ----------
    spec : InterconnectSpec
        The network.
    chips : int
        P.
    total_bytes : float
        Bytes of all chips together.
    largest_bytes : float
        Bytes of the chip with the most data, of which (P - 1) / P leave it.
    """
    dimensions = dimensions_for(spec, chips)
    cost = Exchange()
    for dimension in dimensions:
        size = dimension.chips
        leaves = (size - 1) / size * dimension.topology.hops(size)
        moved = largest_bytes * leaves
        time = dimension.topology.direct_steps(size) * dimension.latency_s
        time += moved * dimension.byte_s
        cost += _exchange(dimension, time, moved, total_bytes / chips * leaves)
    return _over_all(cost, dimensions, chips, total_bytes / chips)


def send(spec: InterconnectSpec, chips: int, payload_bytes: float) -> Exchange:
    """Return the cost of one message from a chip to its neighbour."""
    dimensions = dimensions_for(spec, chips)
    if not dimensions:
        return Exchange()
    two = dataclasses.replace(dimensions[0], chips=2)
    time = two.latency_s + payload_bytes * two.byte_s
    energy = payload_bytes * two.byte_j
    return Exchange(time, payload_bytes, {two.number: payload_bytes}, energy, payload_bytes)


def _flat_all_reduce(dimension: Dimension, spec: InterconnectSpec, size: float) -> Exchange:
    figures = (
        dimension.chips,
        size,
        dimension.latency_s,
        dimension.byte_s,
        spec.reduce_s_per_byte,
    )
    fixed = ALGORITHMS.get(spec.all_reduce)
    algorithms = (fixed,) if fixed else dimension.topology.all_reduce_algorithms()
    time = min(algorithm(*figures) for algorithm in algorithms)
    return _exchange(dimension, time, 2 * size * (dimension.chips - 1) / dimension.chips)


def _reduce_scatter(
    dimension: Dimension, spec: InterconnectSpec, total: float, largest: float
) -> Exchange:
    moved = _moved(dimension.chips, total, largest)
    time = dimension.topology.steps(dimension.chips) * dimension.latency_s
    time += moved * (dimension.byte_s + spec.reduce_s_per_byte)
    return _exchange(dimension, time, moved, total * (dimension.chips - 1) / dimension.chips)


def _all_gather(dimension: Dimension, total: float, largest: float) -> Exchange:
    moved = _moved(dimension.chips, total, largest)
    time = dimension.topology.steps(dimension.chips) * dimension.latency_s
    time += moved * dimension.byte_s
    return _exchange(dimension, time, moved, total * (dimension.chips - 1) / dimension.chips)


def _moved(chips: int, total: float, largest: float) -> float:
    """Return the bytes that limit a collective with uneven pieces: an even share or the largest
    piece.
    """
    return max(total * (chips - 1) / chips, largest if chips > 1 else 0.0)


def _exchange(
    dimension: Dimension, time: float, moved: float, mean_moved: float | None = None
) -> Exchange:
    """Return the cost along one dimension, with the energy of one chip only (see `_over_all`)."""
    sent = moved if mean_moved is None else mean_moved
    link_bytes = {dimension.number: dimension.link_bytes(moved)}
    return Exchange(time, moved, link_bytes, sent * dimension.byte_j)


def _over_all(
    cost: Exchange, dimensions: tuple[Dimension, ...], chips: int, given_bytes: float
) -> Exchange:
    """Return the exchange with the energy of all chips instead of one, and what each brings."""
    if not dimensions:
        return Exchange()
    return dataclasses.replace(cost, energy_j=cost.energy_j * chips, given_bytes=given_bytes)

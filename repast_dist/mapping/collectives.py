"""Collectives between chips: textbook alpha-beta times, bytes per link and energy.

P chips along a dimension, n bytes, latency a, seconds per byte b, local addition c per byte
(Thakur et al., 2005; Chan et al., 2007). Along several dimensions a collective goes inwards
dimension by dimension, each reducing what the next one carries (hierarchical reduce-scatter,
then all-gather outwards), so that an all-reduce on a 2-D torus is two ring phases.
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
    """One dimension with its size settled.

    Attributes
    ----------
    topology : Topology
        How they are connected, and the figures of the links.
    chips : int
        Chips along it.
    number : int
        Its place in the settings, 0 the innermost.
    """

    topology: Topology
    chips: int
    number: int


@dataclasses.dataclass(frozen=True)
class Exchange:
    """What a collective costs.

    Attributes
    ----------
    time_s : float
        From the moment all chips are ready until all have the result.
    sent_bytes : float
        Bytes the busiest chip sends, over all its links.
    link_bytes : dict
        Number of a dimension -> bytes over its busiest link.
    energy_j : float
        Energy on all links, of all chips together.
    """

    time_s: float = 0.0
    sent_bytes: float = 0.0
    link_bytes: Mapping[int, float] = dataclasses.field(default_factory=dict)
    energy_j: float = 0.0

    def __add__(self, other: "Exchange") -> "Exchange":
        return Exchange(
            self.time_s + other.time_s,
            self.sent_bytes + other.sent_bytes,
            {
                number: self.link_bytes.get(number, 0.0) + other.link_bytes.get(number, 0.0)
                for number in sorted({*self.link_bytes, *other.link_bytes})
            },
            self.energy_j + other.energy_j,
        )


def dimensions_for(spec: InterconnectSpec, chips: int) -> tuple[Dimension, ...]:
    """Return the dimensions that `chips` chips fill, innermost first; dimensions of 1 are left out.

    Raises
    ------
    SettingsError
        The network has fewer places than there are chips, or a dimension would be part full.
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
            found.append(Dimension(dimension, size, number))
    if left > 1:
        raise SettingsError(
            f"interconnect.dimensions: places for {chips // left} chips, {chips} are needed; "
            "leave the last dimension's chips empty to let it grow"
        )
    return tuple(found)


def all_reduce(spec: InterconnectSpec, chips: int, payload_bytes: float) -> Exchange:
    """Return the cost of giving every chip the sum of everybody's `payload_bytes`."""
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
    return _over_all(inward, dimensions, chips)


def reduce_to_owners(
    spec: InterconnectSpec, chips: int, total_bytes: float, largest_bytes: float
) -> Exchange:
    """Return the cost of summing pieces at their owners: a reduce-scatter with uneven pieces.

    Parameters
    ----------
    spec : InterconnectSpec
        The network.
    chips : int
        Chips that contribute and own.
    total_bytes : float
        All pieces together.
    largest_bytes : float
        What the chip with the most receives for the pieces it owns; at least the mean.
    """
    dimensions = dimensions_for(spec, chips)
    cost, total, largest = Exchange(), total_bytes, largest_bytes
    for dimension in dimensions:
        cost += _reduce_scatter(dimension, spec, total, largest)
        total /= dimension.chips
        largest = min(largest, total)
    return _over_all(cost, dimensions, chips)


def gather_from_owners(
    spec: InterconnectSpec, chips: int, total_bytes: float, largest_bytes: float
) -> Exchange:
    """Return the cost of giving every chip all pieces: an all-gather with uneven pieces."""
    dimensions = dimensions_for(spec, chips)
    cost, total, largest = Exchange(), total_bytes, largest_bytes
    for dimension in dimensions:
        cost += _all_gather(dimension, total, largest)
        total /= dimension.chips
        largest = min(largest, total)
    return _over_all(cost, dimensions, chips)


def all_to_all(spec: InterconnectSpec, chips: int, largest_bytes: float) -> Exchange:
    """Return the cost of every chip sending an equal share of its data to every other.

    Parameters
    ----------
    spec : InterconnectSpec
        The network.
    chips : int
        P.
    largest_bytes : float
        Data of the chip with the most, (P - 1) / P of which leaves it.
    """
    dimensions = dimensions_for(spec, chips)
    cost = Exchange()
    for dimension in dimensions:
        size, beta = dimension.chips, 1.0 / dimension.topology.bandwidth_bytes_per_s
        moved = largest_bytes * (size - 1) / size * dimension.topology.hops(size)
        time = dimension.topology.direct_steps(size) * dimension.topology.latency_s + moved * beta
        cost += _exchange(dimension, time, moved)
    return _over_all(cost, dimensions, chips)


def send(spec: InterconnectSpec, chips: int, payload_bytes: float) -> Exchange:
    """Return the cost of one message from a chip to its neighbour."""
    dimensions = dimensions_for(spec, chips)
    if not dimensions:
        return Exchange()
    first = dimensions[0].topology
    link_bytes = {dimensions[0].number: payload_bytes}
    time = first.latency_s + payload_bytes / first.bandwidth_bytes_per_s
    energy = payload_bytes * BITS_PER_BYTE * first.energy_j_per_bit
    return Exchange(time, payload_bytes, link_bytes, energy)


def _flat_all_reduce(dimension: Dimension, spec: InterconnectSpec, size: float) -> Exchange:
    figures = (
        dimension.chips,
        size,
        dimension.topology.latency_s,
        1.0 / dimension.topology.bandwidth_bytes_per_s,
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
    time = dimension.topology.steps(dimension.chips) * dimension.topology.latency_s
    time += moved * (1.0 / dimension.topology.bandwidth_bytes_per_s + spec.reduce_s_per_byte)
    return _exchange(dimension, time, moved, total * (dimension.chips - 1) / dimension.chips)


def _all_gather(dimension: Dimension, total: float, largest: float) -> Exchange:
    moved = _moved(dimension.chips, total, largest)
    time = dimension.topology.steps(dimension.chips) * dimension.topology.latency_s
    time += moved / dimension.topology.bandwidth_bytes_per_s
    return _exchange(dimension, time, moved, total * (dimension.chips - 1) / dimension.chips)


def _moved(chips: int, total: float, largest: float) -> float:
    """Return the bytes that bound uneven pieces: an even share, or the largest piece."""
    return max(total * (chips - 1) / chips, largest if chips > 1 else 0.0)


def _exchange(
    dimension: Dimension, time: float, moved: float, mean_moved: float | None = None
) -> Exchange:
    """Make the cost of one dimension; energy is that of one chip, until `_over_all`."""
    sent = moved if mean_moved is None else mean_moved
    energy = sent * BITS_PER_BYTE * dimension.topology.energy_j_per_bit
    return Exchange(time, moved, {dimension.number: moved / links_of(dimension)}, energy)


def links_of(dimension: Dimension) -> int:
    """Return the links of one chip into a dimension, which share its bandwidth."""
    return dimension.topology.links(dimension.chips)


def _over_all(cost: Exchange, dimensions: tuple[Dimension, ...], chips: int) -> Exchange:
    """Turn the energy of one chip into that of all."""
    return dataclasses.replace(cost, energy_j=cost.energy_j * chips) if dimensions else Exchange()

"""Collectives between chips: textbook alpha-beta times, bytes per link and energy.

P chips along a dimension, n bytes, latency a, seconds per byte b, local addition c per byte
(Thakur et al., 2005; Chan et al., 2007). Along several dimensions a collective goes inwards
dimension by dimension, each reducing what the next one carries (hierarchical reduce-scatter,
then all-gather outwards), so that an all-reduce on a 2-D torus is two ring phases.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping

from repast_dist.ground.errors import SettingsError
from repast_dist.hardware.interconnect import DimensionSpec, InterconnectSpec

_BITS_PER_BYTE = 8


@dataclasses.dataclass(frozen=True)
class Dimension:
    """One dimension with its size settled.

    Attributes
    ----------
    spec : DimensionSpec
        Topology and figures.
    chips : int
        Chips along it.
    number : int
        Its place in the settings, 0 the innermost.
    """

    spec: DimensionSpec
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
        size, beta = dimension.chips, 1.0 / dimension.spec.bandwidth_bytes_per_s
        # On a ring of both directions a byte travels a quarter of the way round on average.
        hops = max(1.0, size / 4.0) if dimension.spec.topology == "ring" else 1.0
        moved = largest_bytes * (size - 1) / size * hops
        time = _direct_steps(dimension) * dimension.spec.latency_s + moved * beta
        cost += _exchange(dimension, time, moved)
    return _over_all(cost, dimensions, chips)


def broadcast(spec: InterconnectSpec, chips: int, payload_bytes: float) -> Exchange:
    """Return the cost of a binomial tree broadcast from one chip, dimension by dimension."""
    dimensions = dimensions_for(spec, chips)
    cost = Exchange()
    for dimension in reversed(dimensions):
        steps = math.ceil(math.log2(dimension.chips))
        beta = 1.0 / dimension.spec.bandwidth_bytes_per_s
        time = steps * (dimension.spec.latency_s + payload_bytes * beta)
        per_chip = payload_bytes * (dimension.chips - 1) / dimension.chips
        cost += _exchange(dimension, time, per_chip)
    return _over_all(cost, dimensions, chips)


def send(spec: InterconnectSpec, chips: int, payload_bytes: float) -> Exchange:
    """Return the cost of one message from a chip to its neighbour."""
    dimensions = dimensions_for(spec, chips)
    if not dimensions:
        return Exchange()
    first = dimensions[0].spec
    link_bytes = {dimensions[0].number: payload_bytes}
    time = first.latency_s + payload_bytes / first.bandwidth_bytes_per_s
    energy = payload_bytes * _BITS_PER_BYTE * first.energy_j_per_bit
    return Exchange(time, payload_bytes, link_bytes, energy)


def ring_all_reduce_s(chips: int, size: float, a: float, b: float, c: float = 0.0) -> float:
    """Return ``2 (P-1) a + 2 n (P-1)/P b + n (P-1)/P c``."""
    share = size * (chips - 1) / chips
    return 2 * (chips - 1) * a + 2 * share * b + share * c


def halving_doubling_all_reduce_s(
    chips: int, size: float, a: float, b: float, c: float = 0.0
) -> float:
    """Return ``2 log2(P) a + 2 n (P-1)/P b + n (P-1)/P c``; other P fold to a power of two first,
    which adds ``2 a + 2 n b + n c``.
    """
    power = 1 << (chips.bit_length() - 1)
    share = size * (power - 1) / power
    time = 2 * math.log2(power) * a + 2 * share * b + share * c
    return time if power == chips else time + 2 * a + 2 * size * b + size * c


def tree_all_reduce_s(chips: int, size: float, a: float, b: float, c: float = 0.0) -> float:
    """Return a binomial reduce and a binomial broadcast: ``ceil(log2 P) (2 a + 2 n b + n c)``."""
    return math.ceil(math.log2(chips)) * (2 * a + 2 * size * b + size * c)


def direct_all_reduce_s(chips: int, size: float, a: float, b: float, c: float = 0.0) -> float:
    """Return ``2 a + 2 n (P-1)/P b + n (P-1)/P c``: everybody sends to everybody at once."""
    share = size * (chips - 1) / chips
    return 2 * a + 2 * share * b + share * c


_ALGORITHMS: dict[str, Callable[[int, float, float, float, float], float]] = {
    "ring": ring_all_reduce_s,
    "halving_doubling": halving_doubling_all_reduce_s,
    "tree": tree_all_reduce_s,
}


def _flat_all_reduce(dimension: Dimension, spec: InterconnectSpec, size: float) -> Exchange:
    figures = (
        dimension.chips,
        size,
        dimension.spec.latency_s,
        1.0 / dimension.spec.bandwidth_bytes_per_s,
        spec.reduce_s_per_byte,
    )
    if spec.all_reduce != "auto":
        time = _ALGORITHMS[spec.all_reduce](*figures)
    elif dimension.spec.topology == "ring":
        time = ring_all_reduce_s(*figures)
    elif dimension.spec.topology == "fully_connected":
        time = direct_all_reduce_s(*figures)
    else:
        time = min(algorithm(*figures) for algorithm in _ALGORITHMS.values())
    return _exchange(dimension, time, 2 * size * (dimension.chips - 1) / dimension.chips)


def _reduce_scatter(
    dimension: Dimension, spec: InterconnectSpec, total: float, largest: float
) -> Exchange:
    moved = _moved(dimension.chips, total, largest)
    time = _steps(dimension) * dimension.spec.latency_s
    time += moved * (1.0 / dimension.spec.bandwidth_bytes_per_s + spec.reduce_s_per_byte)
    return _exchange(dimension, time, moved, total * (dimension.chips - 1) / dimension.chips)


def _all_gather(dimension: Dimension, total: float, largest: float) -> Exchange:
    moved = _moved(dimension.chips, total, largest)
    time = _steps(dimension) * dimension.spec.latency_s
    time += moved / dimension.spec.bandwidth_bytes_per_s
    return _exchange(dimension, time, moved, total * (dimension.chips - 1) / dimension.chips)


def _moved(chips: int, total: float, largest: float) -> float:
    """Return the bytes that bound uneven pieces: an even share, or the largest piece."""
    return max(total * (chips - 1) / chips, largest if chips > 1 else 0.0)


def _steps(dimension: Dimension) -> float:
    """Return the messages in a row of a reduce-scatter or all-gather."""
    if dimension.spec.topology == "ring":
        return dimension.chips - 1
    return _direct_steps(dimension)


def _direct_steps(dimension: Dimension) -> float:
    if dimension.spec.topology == "fully_connected":
        return 1
    if dimension.spec.topology == "ring":
        return dimension.chips // 2
    return math.ceil(math.log2(dimension.chips))


def _exchange(
    dimension: Dimension, time: float, moved: float, mean_moved: float | None = None
) -> Exchange:
    """Make the cost of one dimension; energy is that of one chip, until `_over_all`."""
    sent = moved if mean_moved is None else mean_moved
    energy = sent * _BITS_PER_BYTE * dimension.spec.energy_j_per_bit
    return Exchange(time, moved, {dimension.number: moved / links_of(dimension)}, energy)


def links_of(dimension: Dimension) -> int:
    """Return the links of one chip into a dimension, which share its bandwidth."""
    links = {"ring": 2, "switch": 1, "fully_connected": dimension.chips - 1}
    return links[dimension.spec.topology]


def _over_all(cost: Exchange, dimensions: tuple[Dimension, ...], chips: int) -> Exchange:
    """Turn the energy of one chip into that of all."""
    return dataclasses.replace(cost, energy_j=cost.energy_j * chips) if dimensions else Exchange()

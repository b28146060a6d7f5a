"""Turns counts into seconds and joules, a whole table at a time."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from repast_dist.hardware.parts import PARTS, UnitCosts
from repast_dist.ops.table import OpTable
from repast_dist.trace.schema import COUNTS


@dataclasses.dataclass(frozen=True)
class Costs:
    """What each row of an op table costs.

    Attributes
    ----------
    duration_s : ndarray
        (n,) float64, time from a row's start to its end.
    energy_j : ndarray
        (n,) float64, energy of the row's work, without the chip's static power, which is added when
        the rows are placed in time.
    """

    duration_s: np.ndarray
    energy_j: np.ndarray


def price(table: OpTable, costs: UnitCosts) -> Costs:
    """Return the duration and energy of every row of an op table.

    ``duration = max(passes t_pass + settlings and their conversions + row pulses t_pulse +
    operations t_clock, words t_bus) + t_link``: arrays and digital units of one row work one
    after the other, the buffer feeds them meanwhile. ``energy`` is the sum of counts times the
    energy of each.

    Parameters
    ----------
    table : OpTable
        n rows.
    costs : UnitCosts
        Time and energy of one count.
    """
    energy = energy_of(table.columns, costs, len(table))
    duration = duration_of(table.columns, costs, len(table))
    if "link_s" in table.columns:
        duration += table["link_s"]
    if "link_j" in table.columns:
        energy += table["link_j"]
    return Costs(duration, energy)


def duration_of(
    counts: Mapping[str, np.ndarray], costs: UnitCosts, size: int | tuple[int, ...]
) -> np.ndarray:
    """Return the duration of operations without that of links, of this shape, from their counts,
    which are broadcast to it.
    """
    duration = _weighted(counts, costs.serial_s, size)
    if "serial_buffer_words" in counts:
        np.maximum(duration, counts["serial_buffer_words"] * costs.buffer_word_s, out=duration)
    return duration


def energy_of(
    counts: Mapping[str, np.ndarray], costs: UnitCosts, size: int | tuple[int, ...]
) -> np.ndarray:
    """Return the energy of operations without that of links, of this shape, from their counts,
    which are broadcast to it.
    """
    return _weighted(counts, energy_per_count(costs), size)


def component_energy(costs: UnitCosts) -> dict[str, dict[str, float]]:
    """Return column -> component -> energy of one count, in joules."""
    return {
        count: {
            part.name: part.times(costs) * costs.parts[part.name].energy_j
            for part in PARTS
            if count in part.serves
        }
        for count in COUNTS
        if any(count in part.serves for part in PARTS)
    }


def energy_per_count(costs: UnitCosts) -> dict[str, float]:
    """Return the energy of one count of each column of an op table, in joules."""
    return {count: costs.count_j[count] for count in COUNTS if count in costs.count_j}


def _weighted(
    counts: Mapping[str, np.ndarray], weights: dict[str, float], size: int | tuple[int, ...]
) -> np.ndarray:
    total = np.zeros(size)
    for name, weight in weights.items():
        if name in counts and weight:
            total += counts[name] * weight
    return total

"""From counts to seconds and joules, a whole table at a time."""

import dataclasses

import numpy as np

from repast_dist.hardware.components import UnitCosts
from repast_dist.hardware.optable import OpTable

ROUTER_CROSSINGS_PER_BUFFER_BYTE = 0.5
"""ISAAC: a word is written to and read from a buffer and crosses the router once."""


@dataclasses.dataclass(frozen=True)
class Costs:
    """What each row of an op table costs.

    Attributes
    ----------
    duration_s : ndarray
        (n,) float64, time from a row's start to its end.
    energy_j : ndarray
        (n,) float64, energy of what the row does; the chip's static power comes on top when the
        rows are placed in time.
    """

    duration_s: np.ndarray
    energy_j: np.ndarray


def price(table: OpTable, costs: UnitCosts) -> Costs:
    """Price an op table.

    ``duration = max(passes t_pass + settlings t_inv + rows t_write + operations t_clock,
    words t_bus) + t_link``: arrays and digital units of one row work one after the other, the
    buffer feeds them meanwhile. ``energy`` is the sum of counts times the energy of each.

    Parameters
    ----------
    table : OpTable
        n rows.
    costs : UnitCosts
        What one count costs.
    """
    energy = _weighted(table, energy_per_count(costs))
    duration = _weighted(table, time_per_count(costs))
    if "serial_buffer_words" in table.columns:
        np.maximum(duration, table["serial_buffer_words"] * costs.buffer_word_s, out=duration)
    if "link_s" in table.columns:
        duration += table["link_s"]
        energy += table["link_j"]
    return Costs(duration, energy)


_COMPONENTS_OF_COUNT: dict[str, dict[str, float]] = {
    "cells_read": {"cell": 1.0},
    "dac_conversions": {"dac": 1.0},
    "adc_conversions": {"adc": 1.0, "sample_hold": 1.0, "shift_add": 1.0},
    "cell_writes": {"cell_write": 1.0},
    "amplifier_ops": {"amplifier": 1.0},
    "inv_dac_conversions": {"inv_dac": 1.0},
    "inv_adc_conversions": {"inv_adc": 1.0, "sample_hold": 1.0},
    "digital_ops": {"digital": 1.0},
    "buffer_bytes": {
        "buffer": 1.0,
        "bus": 1.0,
        "register": 1.0,
        "router": ROUTER_CROSSINGS_PER_BUFFER_BYTE,
    },
}
"""Count of the op table -> components that work once (or so often) for each."""


def component_energy(costs: UnitCosts) -> dict[str, dict[str, float]]:
    """Return count -> component -> energy of one count, in joules."""
    return {
        count: {name: times * costs.parts[name].energy_j for name, times in components.items()}
        for count, components in _COMPONENTS_OF_COUNT.items()
    }


def energy_per_count(costs: UnitCosts) -> dict[str, float]:
    """Return the energy of one count of each column of an op table, in joules."""
    return {count: sum(parts.values()) for count, parts in component_energy(costs).items()}


def time_per_count(costs: UnitCosts) -> dict[str, float]:
    """Return the time of one count of each serial column but the buffer's, in seconds."""
    return {
        "serial_passes": costs.pass_s,
        "serial_inv_ops": costs.inv_s,
        "serial_row_writes": costs.row_write_s,
        "serial_digital_ops": costs.clock_s,
    }


def _weighted(table: OpTable, weights: dict[str, float]) -> np.ndarray:
    total = np.zeros(len(table))
    for name, weight in weights.items():
        if name in table.columns and weight:
            total += table.columns[name] * weight
    return total

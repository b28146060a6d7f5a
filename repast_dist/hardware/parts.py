"""Declares every kind of part of a chip: where it belongs, how many there are, what it works for.

A part has the figures of the component of the same name in `ComponentTable`. Its number decides
area and static power, its highest rate decides the peak power, and the counts of the op table that
it works for decide its share of an operation's energy.
"""

import dataclasses
from collections.abc import Callable
from functools import cached_property

from repast_dist.ground.numbers import BITS_PER_BYTE
from repast_dist.hardware.specs import ChipSpec


@dataclasses.dataclass(frozen=True)
class PartCosts:
    """The figures of one component for one chip, in SI units; 0 where it has none."""

    energy_j: float
    area_m2: float
    power_w: float
    time_s: float


@dataclasses.dataclass(frozen=True)
class UnitCosts:
    """What one count costs on one chip.

    Attributes
    ----------
    parts : dict
        Component name -> `PartCosts`.
    pass_s : float
        Time of one pass of an array: the longer of the read and its conversions, since a
        sample-and-hold lets them overlap.
    residual_pass_s : float
        The same with the converters of residual products.
    inv_convert_s : float
        The conversions of one solve of an inverting array.
    static_w : float
        Power of the whole chip that does not depend on its work.
    endurance : float
        SET and RESET cycles that a cell survives; writing it is one, however many pulses it takes.
    router_crossings : float
        Times that each byte written to or read from a buffer crosses the router.
    """

    parts: dict[str, PartCosts]
    pass_s: float
    residual_pass_s: float
    inv_convert_s: float
    static_w: float
    endurance: float
    router_crossings: float

    @property
    def row_pulse_s(self) -> float:
        """Time of one programming pulse to a row of an array."""
        return self.parts["cell_write"].time_s

    @property
    def clock_s(self) -> float:
        """Clock period of the digital units."""
        return self.parts["digital"].time_s

    @property
    def buffer_word_s(self) -> float:
        """Time of one word on a tile's bus."""
        return self.parts["buffer"].time_s

    @cached_property
    def count_j(self) -> dict[str, float]:
        """Energy of one count of each column that a part serves: that of all parts it needs."""
        joules: dict[str, float] = {}
        for part in PARTS:
            each = part.times(self) * self.parts[part.name].energy_j
            for count in part.serves:
                joules[count] = joules.get(count, 0) + each
        return joules

    @cached_property
    def serial_s(self) -> dict[str, float]:
        """Time of one count of each serial column except the buffer's."""
        return {
            "serial_passes": self.pass_s,
            "serial_residual_passes": self.residual_pass_s,
            "serial_inv_ops": self.inv_convert_s,
            "serial_settling_s": 1.0,
            "serial_row_pulses": self.row_pulse_s,
            "serial_digital_ops": self.clock_s,
        }

    @property
    def link_byte_s(self) -> float:
        """Time of one byte on an off-chip link."""
        return self.parts["link"].time_s


@dataclasses.dataclass(frozen=True)
class Peak:
    """The rates of a chip whose arrays all work without pause.

    Buffers keep up with the arrays: every pass needs as many bits per row as a DAC converts, and a
    bank returns one result per ``weight_bits`` of columns and ``input_bits`` of passes, as in
    ISAAC.

    Attributes
    ----------
    chip : ChipSpec
        The chip.
    costs : UnitCosts
        Times of its actions.
    """

    chip: ChipSpec
    costs: UnitCosts

    @property
    def passes(self) -> float:
        """Passes of all multiplying arrays per second."""
        return self.chip.vmm_arrays / self.costs.pass_s

    @property
    def settlings(self) -> float:
        """Settlings of all inverting arrays per second, as many as can be converted."""
        return self.chip.inv_arrays / self.costs.inv_convert_s

    @property
    def buffered(self) -> float:
        """Bytes per second between buffers and arrays, both ways."""
        taken = self.passes * self.chip.vmm.rows * self.chip.dac.bits / BITS_PER_BYTE
        return taken + taken / BITS_PER_BYTE


def _never(_: Peak) -> float:
    return 0.0


def _once(_: UnitCosts) -> float:
    return 1.0


@dataclasses.dataclass(frozen=True)
class Part:
    """A kind of part of a chip.

    Attributes
    ----------
    name : str
        Name of its component in `ComponentTable`.
    level : str
        Level of the hierarchy: where on the chip it is.
    instances : callable
        Returns the number on a chip; for the buffer its bytes, for the bus its bits of width.
    rate : callable
        Returns the actions per second at the chip's peak.
    serves : tuple of str
        Columns of the op table that make it work.
    times : callable
        Returns the actions per count of those columns.
    """

    name: str
    level: str
    instances: Callable[[ChipSpec], float]
    rate: Callable[[Peak], float] = _never
    serves: tuple[str, ...] = ()
    times: Callable[[UnitCosts], float] = _once


PARTS = (
    Part(
        "adc",
        "array",
        instances=lambda chip: chip.vmm_arrays * chip.vmm.adcs_per_array,
        rate=lambda peak: peak.passes * peak.chip.vmm.weight_columns,
        serves=("adc_conversions",),
    ),
    # Where residual products have no converters of their own, the arrays' ADC does it.
    Part(
        "residual_adc",
        "array",
        instances=lambda chip: (
            chip.residual_arrays * chip.vmm.adcs_per_array if chip.residual.adc is not None else 0
        ),
        serves=("residual_adc_conversions",),
    ),
    Part(
        "dac",
        "array",
        instances=lambda chip: chip.vmm_arrays * chip.vmm.rows,
        rate=lambda peak: peak.passes * peak.chip.vmm.rows,
        serves=("dac_conversions",),
    ),
    Part(
        "sample_hold",
        "array",
        instances=lambda chip: chip.vmm_arrays * chip.vmm.cols,
        rate=lambda peak: peak.passes * peak.chip.vmm.cols,
        serves=("adc_conversions", "residual_adc_conversions", "inv_adc_conversions"),
    ),
    Part(
        "shift_add",
        "bank",
        instances=lambda chip: chip.banks * chip.shift_adds_per_bank,
        rate=lambda peak: peak.passes * peak.chip.vmm.weight_columns,
        serves=("adc_conversions", "residual_adc_conversions"),
    ),
    Part(
        "cell",
        "array",
        instances=lambda chip: chip.cells,
        rate=lambda peak: peak.passes * peak.chip.vmm.cells + peak.settlings * peak.chip.inv.cells,
        serves=("cells_read",),
    ),
    # The cells that are written are the cells themselves.
    Part("cell_write", "array", instances=lambda _: 0, serves=("write_pulses",)),
    Part(
        "amplifier",
        "inverting array",
        # An inverter behind every amplifier; the action is to be on for a second.
        instances=lambda chip: 2 * chip.inv_arrays * chip.inv.size,
        rate=lambda peak: 2 * peak.chip.inv_arrays * peak.chip.inv.size,
        serves=("amplifier_s",),
    ),
    Part(
        "inv_dac",
        "inverting array",
        instances=lambda chip: chip.inv_arrays * chip.inv.size,
        rate=lambda peak: peak.settlings * peak.chip.inv.size,
        serves=("inv_dac_conversions",),
    ),
    Part(
        "inv_adc",
        "inverting array",
        instances=lambda chip: chip.inv_arrays * chip.inv.adcs_per_array,
        rate=lambda peak: peak.settlings * peak.chip.inv.size,
        serves=("inv_adc_conversions",),
    ),
    Part(
        "inv_gain",
        "inverting array",
        instances=lambda chip: chip.inv_arrays * chip.inv.adcs_per_array,
        rate=lambda peak: peak.settlings * peak.chip.inv.size,
        serves=("inv_adc_conversions",),
    ),
    Part(
        "digital",
        "tile",
        instances=lambda chip: chip.tiles * chip.digital_lanes,
        rate=lambda peak: peak.chip.tiles * peak.chip.digital_lanes / peak.costs.clock_s,
        serves=("digital_ops",),
    ),
    # What is taken from a buffer was written to it, and the other way round.
    Part(
        "buffer",
        "tile",
        instances=lambda chip: chip.tiles * chip.buffer_bytes,
        rate=lambda peak: 2 * peak.buffered,
        serves=("buffer_bytes",),
    ),
    Part(
        "bus",
        "tile",
        instances=lambda chip: chip.banks * chip.bus_bits,
        rate=lambda peak: peak.buffered,
        serves=("buffer_bytes",),
    ),
    Part(
        "register",
        "bank",
        instances=lambda chip: chip.banks,
        rate=lambda peak: peak.buffered,
        serves=("buffer_bytes",),
    ),
    Part(
        "router",
        "tile",
        instances=lambda chip: chip.tiles,
        rate=lambda peak: 2 * peak.costs.router_crossings * peak.buffered,
        serves=("buffer_bytes",),
        times=lambda costs: costs.router_crossings,
    ),
    Part("tile_logic", "tile", instances=lambda chip: chip.tiles),
    Part("control", "tile", instances=lambda chip: chip.tiles),
    # What an exchange costs comes from the interconnect.
    Part(
        "link",
        "chip",
        instances=lambda chip: chip.links,
        rate=lambda peak: peak.chip.links / peak.costs.link_byte_s,
    ),
)
"""The parts of a chip, in the order of `ComponentTable`."""

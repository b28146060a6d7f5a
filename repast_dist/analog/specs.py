"""Settings of the analog core: cells, wires, amplifiers, converters, arrays and inversion."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Gt, Le
from pydantic import model_validator
from pydantic_core import ArgsKwargs

from repast_dist.analog.cells.base import CELLS, Cell
from repast_dist.analog.cells.reram import Reram
from repast_dist.analog.cells.use import NEW, CellUse
from repast_dist.ground.numbers import Count, ceil_div
from repast_dist.ground.spec import Problems, spec

NonNegative = Annotated[float, Ge(0)]
Positive = Annotated[float, Gt(0)]
Bits = Annotated[int, Ge(2), Le(24)]


@spec
class WireSpec:
    """Resistance of the array's wires; see `repast_dist.analog.arrays.wires`.

    Attributes
    ----------
    row_ohm, column_ohm : float
        Per cell-to-cell segment.
    """

    row_ohm: NonNegative = 0.0
    column_ohm: NonNegative = 0.0

    @property
    def ideal(self) -> bool:
        """Whether wires do not matter."""
        return not (self.row_ohm or self.column_ohm)


@spec
class CurveSpec:
    """How the current of a cell depends on the voltage: ``I = g v0 sinh(V / v0)``.

    See `repast_dist.analog.arrays.curve`.

    Attributes
    ----------
    v0_volts : float or None
        The smaller, the more curved; None: cells are linear.
    read_volts : float
        On the rows of multiplying arrays at the largest digit of inputs.
    """

    v0_volts: Positive | None = None
    read_volts: Positive = 0.2

    @property
    def linear(self) -> bool:
        """Whether cells are linear."""
        return self.v0_volts is None


LINEAR = CurveSpec()
"""Cells that are linear."""


@spec
class OpAmpSpec:
    """The amplifiers of an INV array, and the inverters in front of its negative cells.

    Attributes
    ----------
    gain : float or None
        Open-loop gain; None is ideal.
    offset_v : float
        Standard deviation of the input offset voltage, relative to the full-scale output: the
        swing where there is one, otherwise the largest output of a solve.
    input_siemens : float
        Conductance of an amplifier's input.
    gbw_hz : float or None
        Gain-bandwidth product; None: amplifiers are at rest at once.
    second_pole_hz : float or None
        The pole behind the dominant one, which closed loops of amplifiers ring with; None: none.
    swing_v : float or None
        Largest output in volts, to either side; None: outputs have no limit, and every solve fills
        the converters' range. See `repast_dist.analog.arrays.drive`.
    drive_tests : int
        Settlings by which the controller finds out, once an array is programmed, how strongly its
        inputs may be driven.
    slew_v_per_s : float or None
        How fast an output can move at most, in volts per second; None: without a limit. Settling
        lasts longer by the time that the whole swing takes; what is read earlier is driven so that
        nothing slews.
    noise_v_per_rthz : float
        White noise at an amplifier's input, one-sided, in volts per root hertz.
    compensation : float
        How many times slower the outer amplifiers of fused circuits are made. Those between the
        two arrays have poles of their own, with which the loop would oscillate.
    settled_cycles : float
        Multiples of 1 / gain-bandwidth product that settling is taken to last where nothing is
        solved.
    """

    gain: Annotated[float, Gt(1)] | None = None
    offset_v: NonNegative = 0.0
    input_siemens: NonNegative = 0.0
    gbw_hz: Positive | None = None
    second_pole_hz: Positive | None = None
    swing_v: Positive | None = None
    drive_tests: Annotated[int, Ge(1), Le(64)] = 6
    slew_v_per_s: Positive | None = None
    noise_v_per_rthz: NonNegative = 0.0
    compensation: Annotated[float, Ge(1)] = 100.0
    settled_cycles: Positive = 200.0

    def __post_init__(self) -> None:
        if self.second_pole_hz is not None and self.gbw_hz is None:
            raise ValueError(
                "second_pole_hz needs gbw_hz: amplifiers that are at rest at once have no poles; "
                "valid: a gain-bandwidth product in hertz, or second_pole_hz=null"
            )
        if self.slew_v_per_s is not None and None in (self.gbw_hz, self.swing_v):
            raise ValueError(
                "slew_v_per_s needs gbw_hz and swing_v: it limits how fast outputs in volts move; "
                "valid: both of them, or slew_v_per_s=null"
            )
        if self.noise_v_per_rthz and None in (self.gbw_hz, self.swing_v):
            raise ValueError(
                "noise_v_per_rthz needs gbw_hz and swing_v: bandwidth collects it, and outputs in "
                "volts have it; valid: both of them, or noise_v_per_rthz=0"
            )

    @property
    def droop(self) -> float:
        """What an output has at the input: 1 / gain."""
        return 1.0 / self.gain if self.gain is not None else 0.0

    @property
    def second_pole(self) -> float | None:
        """The second pole in multiples of the gain-bandwidth product."""
        if self.second_pole_hz is None or self.gbw_hz is None:
            return None
        return self.second_pole_hz / self.gbw_hz

    @property
    def slew(self) -> float | None:
        """How fast an output can move at most, in swings per 1 / gain-bandwidth product."""
        if self.slew_v_per_s is None or self.gbw_hz is None or self.swing_v is None:
            return None
        return self.slew_v_per_s / (self.swing_v * self.gbw_hz)

    @property
    def noise_density(self) -> float | None:
        """Two-sided density of the noise, in squared swings times 1 / gain-bandwidth product."""
        if not self.noise_v_per_rthz or self.gbw_hz is None or self.swing_v is None:
            return None
        return (self.noise_v_per_rthz / self.swing_v) ** 2 / 2.0 * self.gbw_hz

    def seconds(self, cycles: float) -> float:
        """Return a time of so many multiples of 1 / gain-bandwidth in seconds."""
        return cycles / self.gbw_hz if self.gbw_hz is not None else 0.0


@spec
class VariationSpec:
    """Deviations that many cells share, and that writing with verification does not see.

    Each is the standard deviation of a factor that multiplies all of a conductance. Arrays keep
    theirs from step to step.

    Attributes
    ----------
    array_sigma, row_sigma, column_sigma : float
        Of all cells of an array, of those of one of its rows, and of those of one of its columns.
    die_sigma : float
        Of all cells of a chip: results then depend on which chip holds what.
    """

    array_sigma: NonNegative = 0.0
    row_sigma: NonNegative = 0.0
    column_sigma: NonNegative = 0.0
    die_sigma: NonNegative = 0.0

    @property
    def none(self) -> bool:
        """Whether cells share no deviation."""
        return not (self.array_sigma or self.row_sigma or self.column_sigma or self.die_sigma)


def _built(cell: Any) -> Cell:
    try:
        return CELLS.load(cell)
    except Problems as problems:
        raise Problems([(("cell", *where), what) for where, what in problems.items]) from None


@spec
class DeviceSpec:
    """What the arrays are made of.

    Attributes
    ----------
    cell : Cell
        Cells of the VMM arrays.
    inv_cell : Cell
        Cells of the INV arrays. Settings that are not given are those of `cell`, if the model is
        the same; left out altogether, both are alike.
    variation : VariationSpec
        What the cells of an array or chip share, in both.
    wire : WireSpec
        Wires of both.
    curve : CurveSpec
        How the current depends on the voltage, in cells of both.
    opamp : OpAmpSpec
        Amplifiers of the INV arrays.
    age_s : float
        Time from writing cells to their use, beside what passes in a training run.
    temperature_k, programming_temperature_k : float
        Temperature of cells when they are used, and when they are written.
    previous_writes : float
        How often cells have been written before, beside what a training run does.
    source : str
        Where the figures come from.
    """

    cell: Annotated[Cell, CELLS.choice()] = Reram()
    inv_cell: Annotated[Cell, CELLS.choice()] = Reram(bits=8)
    variation: VariationSpec = VariationSpec()
    wire: WireSpec = WireSpec()
    curve: CurveSpec = LINEAR
    opamp: OpAmpSpec = OpAmpSpec()
    age_s: NonNegative = 0.0
    temperature_k: Positive = 300.0
    programming_temperature_k: Positive = 300.0
    previous_writes: NonNegative = 0.0
    source: str = ""

    @model_validator(mode="before")
    @classmethod
    def _one_definition_serves_both(cls, data: Any) -> Any:
        given = data.kwargs if isinstance(data, ArgsKwargs) else data
        if not isinstance(given, Mapping) or given.get("cell") is None:
            return data
        cell, other = given["cell"], given.get("inv_cell")
        if other is None:
            # Built once, so that what is wrong with it is said once.
            one = _built(cell)
            both = {**given, "cell": one, "inv_cell": one}
        elif isinstance(cell, Mapping) and isinstance(other, Mapping):
            tag, default = CELLS.tag, CELLS.default
            model = cell.get(tag, default)
            if other.get(tag, model) != model:
                return data
            both = {**given, "inv_cell": {**cell, **other}}
        else:
            return data
        return ArgsKwargs((), both) if isinstance(data, ArgsKwargs) else both

    def used(self, use: CellUse) -> CellUse:
        """Return what cells have been through, the device's own settings included."""
        warmer = self.temperature_k - self.programming_temperature_k
        if not (self.age_s or self.previous_writes or warmer):
            return use
        return dataclasses.replace(
            use,
            age_s=use.age_s + self.age_s,
            writes=use.writes + self.previous_writes,
            warmer_k=use.warmer_k + warmer,
        )

    def with_programming_sigma(self, sigma: float) -> "DeviceSpec":
        """Return the device with another programming error of all its cells."""
        return dataclasses.replace(
            self,
            cell=self.cell.with_programming_sigma(sigma),
            inv_cell=self.inv_cell.with_programming_sigma(sigma),
        )


@spec
class ConverterErrors:
    """How converters differ from ideal ones.

    Attributes
    ----------
    offset_lsb, gain_error, inl_lsb : float
        Standard deviation of the offset in steps of the code and of the gain relative to 1, root
        mean square of the nonlinearity in steps.
    noise_lsb : float
        Noise of a conversion on the analog side, standard deviation in steps of the code.
    """

    offset_lsb: NonNegative = 0.0
    gain_error: NonNegative = 0.0
    inl_lsb: NonNegative = 0.0
    noise_lsb: NonNegative = 0.0

    @property
    def offset_left_lsb(self) -> float:
        """Standard deviation of the offset that codes have."""
        return self.offset_lsb

    @property
    def distorts(self) -> bool:
        """Whether a converter's answer to an exact code is another one."""
        return bool(self.offset_left_lsb or self.gain_error or self.inl_lsb)

    @property
    def ideal(self) -> bool:
        """Whether converters do nothing but round and clip."""
        return not (self.distorts or self.noise_lsb)


IDEAL_CONVERTERS = ConverterErrors()
"""Converters that do nothing but round and clip."""


@spec
class DacSpec(ConverterErrors):
    """Digital-to-analog converters of multiplying arrays.

    Attributes
    ----------
    bits : int
        Of an input's magnitude that are applied in one pass.
    range : {"full", "calibrated"}
        Inputs of a call share a step, a power of two that a digital unit finds: the smallest that
        cuts no input off, or that cuts off what is above the given percentile of the inputs.
    percentile : float
        Of the absolute inputs, for ``calibrated``.
    offset_lsb, gain_error, inl_lsb : float
        How they differ from an ideal one, each row of an array having its own: standard deviation
        of the offset in steps of the digit and of the gain relative to 1, root mean square of the
        nonlinearity in steps. Rows without a digit are grounded, so that one bit has a gain alone.
    noise_lsb : float
        Noise of a conversion at the largest digit, standard deviation in steps; in proportion to
        the digit.
    """

    bits: Annotated[int, Ge(1), Le(8)] = 1
    range: Literal["full", "calibrated"] = "full"
    percentile: Annotated[float, Gt(50), Le(100)] = 99.99

    def __post_init__(self) -> None:
        for name in ("offset_lsb", "inl_lsb") if self.bits == 1 else ():
            if getattr(self, name):
                raise ValueError(
                    f"{name}={getattr(self, name)}: rows are grounded or driven by the one level "
                    "of bits=1, whose error is gain_error; valid: 0, or 2 bits and more"
                )


@spec
class AdcSpec(ConverterErrors):
    """Analog-to-digital converters.

    Attributes
    ----------
    bits : int
        Resolution, sign included.
    range : {"full", "calibrated", "lossless"}
        ``full`` spans the largest current a column can carry, ``calibrated`` the given
        percentile of the currents met, ``lossless`` converts every level exactly.
    percentile : float
        Of the absolute column currents, for ``calibrated``.
    margin : float
        By what part a calibrated range is wider than that: room for currents that grow until the
        range is used, at the price of coarser codes.
    first_margin : float
        By what part the ranges of training's first step are wider still, which one micro-batch sets
        for all.
    narrowing : float
        By what part a range gets narrower from one step to the next at most: it then holds the
        largest currents of some steps.
    calibrated_on : {"previous_step", "first_step", "call"}
        What training sets calibrated ranges by: the step before, the first step for ever, or, as no
        hardware can, the call that is converted. A micro-batch is run for the first step's ranges.
    offset_lsb, gain_error, inl_lsb : float
        How converters differ from an ideal one: standard deviation of the offset in steps of the
        code and of the gain relative to 1, root mean square of the nonlinearity in steps.
    noise_lsb : float
        Noise of a conversion at the converter's input, standard deviation in steps of the code.
    nulling_passes : int
        Passes without inputs at the end of every step, in which all converters measure their offset
        and then trim it at their inputs; 0: the offset stays.
    nulled_offset_lsb : float
        Standard deviation of what nulling leaves of the offset, in steps of the code.
    """

    bits: Annotated[int, Ge(2), Le(16)] = 8
    range: Literal["full", "calibrated", "lossless"] = "calibrated"
    percentile: Annotated[float, Gt(50), Le(100)] = 99.99
    margin: NonNegative = 0.0625
    first_margin: NonNegative = 0.5
    narrowing: Annotated[float, Gt(0), Le(0.5)] = 0.1
    calibrated_on: Literal["previous_step", "first_step", "call"] = "previous_step"
    nulling_passes: Count = 0
    nulled_offset_lsb: NonNegative = 0.0

    def __post_init__(self) -> None:
        if self.nulled_offset_lsb and not self.nulling_passes:
            raise ValueError(
                f"nulled_offset_lsb={self.nulled_offset_lsb}: with nulling_passes=0 the offset is "
                "offset_lsb; valid: 0, or passes in which it is measured"
            )

    @property
    def offset_left_lsb(self) -> float:
        """Standard deviation of the offset that codes have."""
        return self.nulled_offset_lsb if self.nulling_passes else self.offset_lsb

    @property
    def keeps_ranges(self) -> bool:
        """Whether training converts with ranges of earlier steps."""
        return self.range == "calibrated" and self.calibrated_on != "call"

    @property
    def follows(self) -> bool:
        """Whether every step sets the ranges of the next."""
        return self.range == "calibrated" and self.calibrated_on == "previous_step"


@spec
class VmmSpec:
    """A vector-matrix multiplier: bit-sliced weights, bit-serial inputs, differential pairs or
    weights with an offset (`repast_dist.analog.arrays.offset`).

    Attributes
    ----------
    device, dac, adc : DeviceSpec, DacSpec, AdcSpec
        Cells and converters.
    rows, columns : int
        Rows driven at a time, and columns of one array, slices of a weight side by side. Columns
        matter to what an array shares: its wires, converters, DACs and references.
    differential : bool
        Whether a slice takes a pair of cells; otherwise one, and an array has a column of
        references besides.
    array_rows : int or None
        Rows of one array, a multiple of those driven at a time; None: all are. They matter to
        wires, and to what the cells of an array share; the others are grounded.
    adcs_per_array : int
        Converters that share the columns of an array; they matter where converters differ.
    weight_bits, input_bits : int
        Fixed-point bits, sign included.
    use : CellUse
        What the cells have been through in a run.
    """

    device: DeviceSpec = DeviceSpec()
    dac: DacSpec = DacSpec()
    adc: AdcSpec = AdcSpec()
    rows: Annotated[int, Ge(1)] = 256
    columns: Annotated[int, Ge(2)] = 256
    differential: bool = True
    array_rows: Annotated[int, Ge(1)] | None = None
    adcs_per_array: Annotated[int, Ge(1)] = 1
    weight_bits: Annotated[int, Ge(2), Le(32)] = 8
    input_bits: Annotated[int, Ge(2), Le(32)] = 8
    use: CellUse = NEW

    @property
    def tall(self) -> int:
        """Rows of one array."""
        return self.array_rows or self.rows

    @property
    def cell_use(self) -> CellUse:
        """What the cells have been through when they are used."""
        return self.device.used(self.use)

    def older(self, seconds: float) -> "VmmSpec":
        """Return the same arrays so much longer after writing."""
        return dataclasses.replace(self, use=self.use.older(seconds))

    def on(self, chip: int) -> "VmmSpec":
        """Return the same arrays on a chip of its own kind."""
        return dataclasses.replace(self, use=dataclasses.replace(self.use, chip=chip))

    def written(self, times: float) -> "VmmSpec":
        """Return the same arrays after more writes."""
        return dataclasses.replace(self, use=self.use.written(times))

    @property
    def exact(self) -> bool:
        """Whether products equal those of the integers."""
        device = self.device
        ideal = device.cell.ideal and device.wire.ideal and device.variation.none
        ideal = ideal and not self.bends and self.dac.ideal
        return ideal and self.adc.range == "lossless" and self.adc.ideal

    @property
    def bends(self) -> bool:
        """Whether cells answer to some digits of inputs as if these were smaller."""
        return self.dac.bits > 1 and not self.device.curve.linear

    @property
    def holds_levels(self) -> bool:
        """Whether what pairs appear to hold are whole levels."""
        device = self.device
        exact = device.cell.exact and device.wire.ideal and device.variation.none
        return exact and not self.dac.gain_error

    @property
    def noisy(self) -> bool:
        """Whether a product differs from one time to the next."""
        return bool(self.device.cell.read_spread or self.adc.noise_lsb or self.dac.noise_lsb)

    @property
    def slices(self) -> int:
        """Cells that hold the magnitude of one weight, or all its bits where it has an offset."""
        return ceil_div(self.weight_bits - self.differential, self.device.cell.bits)

    @property
    def weight_columns(self) -> int:
        """Slices side by side in an array."""
        return self.columns // 2 if self.differential else self.columns - 1

    @property
    def passes(self) -> int:
        """Times the array is driven for one input vector."""
        return ceil_div(self.input_bits - 1, self.dac.bits)


@spec
class InvSpec:
    """An inverting array: a matrix in the feedback of a row of amplifiers.

    Attributes
    ----------
    device : DeviceSpec
        Cells, wires and amplifiers.
    dac_bits, adc_bits : int
        Converters of inputs and outputs, sign included.
    dac, adc : ConverterErrors
        How these differ from ideal ones: every row has a DAC.
    adcs_per_array : int
        Converters that share the outputs, each an equal run of them.
    size : int
        Rows and columns.
    slices, copies : int
        Arrays on the same amplifiers; see `repast_dist.analog.arrays.inv`.
    read_cycles : float or None
        When outputs are read, in multiples of the amplifiers' 1 / gain-bandwidth; None: when they
        have settled to half a step of the ADC.
    read_backs : int
        Times that a cell is read, for its mean, before the next slice is written.
    use : CellUse
        What the cells have been through in a run.
    """

    device: DeviceSpec = DeviceSpec()
    dac_bits: Bits = 8
    adc_bits: Bits = 8
    dac: ConverterErrors = IDEAL_CONVERTERS
    adc: ConverterErrors = IDEAL_CONVERTERS
    adcs_per_array: Annotated[int, Ge(1)] = 1
    size: Annotated[int, Ge(1)] = 256
    slices: Annotated[int, Ge(1), Le(4)] = 1
    copies: Annotated[int, Ge(1), Le(16)] = 1
    read_cycles: Positive | None = None
    read_backs: Annotated[int, Ge(1)] = 16
    use: CellUse = NEW

    @property
    def read_back_error(self) -> float:
        """Standard deviation of what the cells of a pair are read back to hold, relative to the
        range: of the converter's steps, which span a cell's range, its noise and the cells' own.
        """
        step = 1.0 / (2**self.adc_bits - 1)
        converter = np.hypot(1.0 / np.sqrt(12.0), self.adc.noise_lsb) * step
        one = np.hypot(converter, self.device.inv_cell.read_spread)
        return float(np.sqrt(2.0) * one / np.sqrt(self.read_backs))

    @property
    def cell_use(self) -> CellUse:
        """What the cells have been through when they are used."""
        return self.device.used(self.use)

    def older(self, seconds: float) -> "InvSpec":
        """Return the same arrays so much longer after writing."""
        return dataclasses.replace(self, use=self.use.older(seconds))

    def on(self, chip: int) -> "InvSpec":
        """Return the same arrays on a chip of its own kind."""
        return dataclasses.replace(self, use=dataclasses.replace(self.use, chip=chip))

    def written(self, times: float) -> "InvSpec":
        """Return the same arrays after more writes."""
        return dataclasses.replace(self, use=self.use.written(times))

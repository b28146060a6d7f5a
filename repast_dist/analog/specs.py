"""Settings of the analog core: cells, wires, amplifiers, converters, arrays and inversion."""

import math
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from repast_dist.ground.spec import spec

Rate = Annotated[float, Ge(0), Le(1)]
NonNegative = Annotated[float, Ge(0)]
Positive = Annotated[float, Gt(0)]
Bits = Annotated[int, Ge(1), Le(24)]


@spec
class CellSpec:
    """A memory cell and how far it is from ideal.

    Attributes
    ----------
    bits : int
        Levels per cell are ``2 ** bits``, evenly spaced in conductance.
    g_on_siemens, g_off_siemens : float
        Conductance of the highest and the lowest level.
    programming_sigma : float
        Standard deviation of a programmed conductance, relative to ``g_on - g_off``.
    programming_profile : tuple of float
        How it depends on the conductance: coefficients, the constant first, of a polynomial in the
        relative conductance (0 at g_off, 1 at g_on). Scaled so that its RMS over the range is
        `programming_sigma`; empty: the same everywhere.
    clip : bool
        A programmed conductance cannot leave the range from g_off to g_on.
    read_sigma : float
        Standard deviation of a cell's conductance from read to read, relative to the range.
    stuck_on_rate, stuck_off_rate : float
        Share of cells that stay at g_on or g_off whatever is programmed.
    drift_exponent, drift_time_s, drift_start_s : float
        Power-law drift: conductance times ``(drift_time / drift_start) ** -drift_exponent``.
    """

    bits: Annotated[int, Ge(1), Le(8)] = 4
    g_on_siemens: Positive = 100e-6
    g_off_siemens: NonNegative = 1e-6
    programming_sigma: NonNegative = 0.0
    programming_profile: tuple[float, ...] = ()
    clip: bool = True
    read_sigma: NonNegative = 0.0
    stuck_on_rate: Rate = 0.0
    stuck_off_rate: Rate = 0.0
    drift_exponent: NonNegative = 0.0
    drift_time_s: Positive = 1.0
    drift_start_s: Positive = 1.0

    def __post_init__(self) -> None:
        if self.g_off_siemens >= self.g_on_siemens:
            raise ValueError(
                f"g_off_siemens={self.g_off_siemens} must lie below "
                f"g_on_siemens={self.g_on_siemens}"
            )
        if self.programming_profile and min(_over_range(self.programming_profile)) <= 0:
            raise ValueError("programming_profile must be positive from 0 to 1")
        if self.stuck_on_rate + self.stuck_off_rate > 1:
            raise ValueError("stuck_on_rate + stuck_off_rate must not exceed 1")
        if self.drift_time_s < self.drift_start_s:
            raise ValueError("drift_time_s must not lie before drift_start_s")

    @property
    def levels(self) -> int:
        """Number of conductance levels."""
        return 1 << self.bits

    @property
    def ideal(self) -> bool:
        """Whether a cell holds exactly what is programmed and reads the same every time."""
        return self.exact and not (self.read_sigma or self.stuck_on_rate or self.stuck_off_rate)

    @property
    def profile_rms(self) -> float:
        """RMS of `programming_profile` over the range (exact, by integration of its square)."""
        c = self.programming_profile
        powers = range(len(c))
        return math.sqrt(sum(c[i] * c[j] / (i + j + 1) for i in powers for j in powers))

    @property
    def exact(self) -> bool:
        """Whether a cell holds some level exactly, if perhaps not the one that was meant."""
        drifts = self.drift_exponent and self.drift_time_s > self.drift_start_s
        return not (self.programming_sigma or drifts)


def _over_range(profile: tuple[float, ...]) -> list[float]:
    """Return a polynomial at 65 relative conductances from 0 to 1."""
    return [sum(c * (i / 64) ** power for power, c in enumerate(profile)) for i in range(65)]


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
class OpAmpSpec:
    """The amplifiers of an INV array.

    Attributes
    ----------
    gain : float or None
        Open-loop gain; None is ideal.
    offset_v : float
        Standard deviation of the input offset voltage, relative to the full-scale output.
    input_siemens : float
        Conductance of an amplifier's input.
    """

    gain: Annotated[float, Gt(1)] | None = None
    offset_v: NonNegative = 0.0
    input_siemens: NonNegative = 0.0


@spec
class DeviceSpec:
    """What the arrays are made of.

    Attributes
    ----------
    cell : CellSpec
        Cells of the VMM arrays.
    inv_cell : CellSpec
        Cells of the INV arrays.
    wire : WireSpec
        Wires of both.
    opamp : OpAmpSpec
        Amplifiers of the INV arrays.
    source : str
        Where the figures come from.
    """

    cell: CellSpec = CellSpec()
    inv_cell: CellSpec = CellSpec(bits=8)
    wire: WireSpec = WireSpec()
    opamp: OpAmpSpec = OpAmpSpec()
    source: str = ""


@spec
class DacSpec:
    """Digital-to-analog converters of multiplying arrays.

    Attributes
    ----------
    bits : int
        Of an input's magnitude that are applied in one pass.
    range : {"full", "calibrated"}
        What the largest fixed-point input stands for: the largest input of the call, or the given
        percentile of the inputs met, beyond which inputs are cut off.
    percentile : float
        Of the absolute inputs, for ``calibrated``.
    """

    bits: Annotated[int, Ge(1), Le(8)] = 1
    range: Literal["full", "calibrated"] = "full"
    percentile: Annotated[float, Gt(50), Le(100)] = 99.99


@spec
class AdcSpec:
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
    """

    bits: Annotated[int, Ge(2), Le(16)] = 8
    range: Literal["full", "calibrated", "lossless"] = "calibrated"
    percentile: Annotated[float, Gt(50), Le(100)] = 99.99


@spec
class VmmSpec:
    """A vector-matrix multiplier: bit-sliced weights, bit-serial inputs, differential pairs.

    Attributes
    ----------
    device, dac, adc : DeviceSpec, DacSpec, AdcSpec
        Cells and converters.
    rows, columns : int
        Cells of one array. Columns matter to wires only: an array holds ``columns // 2`` pairs,
        slices of a weight side by side.
    weight_bits, input_bits : int
        Fixed-point bits, sign included.
    """

    device: DeviceSpec = DeviceSpec()
    dac: DacSpec = DacSpec()
    adc: AdcSpec = AdcSpec()
    rows: Annotated[int, Ge(1)] = 256
    columns: Annotated[int, Ge(2)] = 256
    weight_bits: Annotated[int, Ge(2), Le(32)] = 8
    input_bits: Annotated[int, Ge(2), Le(32)] = 8

    @property
    def exact(self) -> bool:
        """Whether products equal those of the integers."""
        ideal = self.device.cell.ideal and self.device.wire.ideal
        return ideal and self.adc.range == "lossless"

    @property
    def slices(self) -> int:
        """Cells that hold the magnitude of one weight."""
        return -(-(self.weight_bits - 1) // self.device.cell.bits)

    @property
    def passes(self) -> int:
        """Times the array is driven for one input vector."""
        return -(-(self.input_bits - 1) // self.dac.bits)


@spec
class InvSpec:
    """An inverting array: a matrix in the feedback of a row of amplifiers.

    Attributes
    ----------
    device : DeviceSpec
        Cells, wires and amplifiers.
    dac_bits, adc_bits : int
        Converters of inputs and outputs, sign included.
    size : int
        Rows and columns.
    slices, copies : int
        Arrays on the same amplifiers; see `repast_dist.analog.arrays.inv`.
    """

    device: DeviceSpec = DeviceSpec()
    dac_bits: Bits = 8
    adc_bits: Bits = 8
    size: Annotated[int, Ge(1)] = 256
    slices: Annotated[int, Ge(1), Le(4)] = 1
    copies: Annotated[int, Ge(1), Le(16)] = 1

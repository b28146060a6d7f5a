"""Holds the settings of a chip: tiles, banks, arrays, converters, buffers and links."""

from typing import Annotated

from annotated_types import Ge, Le

from repast_dist.analog.specs import IDEAL_CONVERTERS, AdcSpec, ConverterErrors, DacSpec
from repast_dist.ground.numbers import Count, PositiveInt
from repast_dist.ground.spec import spec

_OF_TRAINING = ("calibrated_on", "first_margin", "narrowing")
"""Settings of converters whose ranges follow what is trained."""


@spec
class VmmArraySpec:
    """The multiplying arrays of a bank.

    Attributes
    ----------
    rows, cols : int
        Cells of one array; `cols` counts physical columns.
    arrays_per_bank : int
        Arrays in a bank.
    adcs_per_array : int
        Converters that share the columns of an array.
    differential : bool
        Whether a slice of a signed weight takes a pair of columns that one ADC converts together.
        Otherwise weights are stored with an offset, and the last column of an array holds
        references whose current is subtracted from every other one before it is converted; those
        of residual products take pairs in any case.
    """

    rows: PositiveInt = 128
    cols: PositiveInt = 128
    arrays_per_bank: PositiveInt = 8
    adcs_per_array: PositiveInt = 1
    differential: bool = True

    def __post_init__(self) -> None:
        if self.cols < 2:
            raise ValueError(f"cols={self.cols} holds no weight; valid: 2 or more")

    @property
    def weight_columns(self) -> int:
        """Signed slices side by side in an array."""
        return self.pairs if self.differential else self.cols - 1

    @property
    def pairs(self) -> int:
        """Pairs of columns of an array."""
        return self.cols // 2

    @property
    def cells(self) -> int:
        """Cells of one array."""
        return self.rows * self.cols


@spec
class ResidualSpec:
    """The multiplying arrays that solves take for residual products.

    A residual has to be known to many bits, so that few rows are driven at a time: a column of r
    rows of b-bit cells carries ``r (2^b - 1)`` levels per bit of the inputs, and an ADC of c bits,
    sign included, tells ``2^(c-1) - 1`` apart.

    Attributes
    ----------
    arrays_per_bank : int
        Arrays of a bank that may hold them, and have converters for them beside those of all
        arrays. Plans give some of these to layers where they are worth more there.
    rows : int
        Rows driven at a time; a divisor of ``vmm.rows``.
    dac_bits : int
        Bits of an input's magnitude that are applied in one pass.
    adc : AdcSpec or None
        Their own converters, as many as ``vmm.adcs_per_array``. Range ``lossless`` asks for the
        bits that the rows need. None: the chip's ADC, one code per level where it has the bits
        and otherwise over the full range.
    verified : bool
        Cells are written until each holds its level, as all tested ones of HP-INV did, when the
        DAC of its row drives it; otherwise they have the errors of ``device.cell``, and DACs those
        of ``dac``.
    wired : bool
        Currents are those behind the wires of ``device.wire``. Otherwise wires are made up for when
        cells are written, as verification of one cell at a time can, which reads it through them.
    """

    arrays_per_bank: Count = 2
    rows: PositiveInt = 32
    dac_bits: Annotated[int, Ge(1), Le(8)] = 1
    adc: AdcSpec | None = None
    verified: bool = True
    wired: bool = False


@spec
class InvArraySpec:
    """The inverting arrays of a bank.

    Attributes
    ----------
    size : int
        Rows of the square matrix that one array inverts; larger blocks are inverted in parts.
    arrays_per_bank : int
        Arrays in a bank; 0: the chip cannot invert.
    dac_bits, adc_bits : int
        Bits of the array's converters, sign included; every row has a DAC.
    dac, adc : ConverterErrors
        How these differ from ideal ones.
    adcs_per_array : int
        Converters that share the amplifiers' outputs.
    """

    size: PositiveInt = 256
    arrays_per_bank: Count = 1
    dac_bits: Annotated[int, Ge(2), Le(16)] = 8
    adc_bits: Annotated[int, Ge(2), Le(16)] = 8
    dac: ConverterErrors = IDEAL_CONVERTERS
    adc: ConverterErrors = IDEAL_CONVERTERS
    adcs_per_array: PositiveInt = 8

    @property
    def cells(self) -> int:
        """Cells of one array, both of every pair."""
        return 2 * self.size * self.size


@spec
class ChipSpec:
    """One chip.

    Attributes
    ----------
    name : str
        Name of the preset.
    source : str
        Where the numbers come from.
    tiles, banks_per_tile : int
        Tiles of the chip, and banks of a tile.
    vmm : VmmArraySpec
        Multiplying arrays.
    inv : InvArraySpec
        Inverting arrays.
    residual : ResidualSpec
        Multiplying arrays of residual products.
    adc, dac : AdcSpec, DacSpec
        Converters of the multiplying arrays.
    weight_bits, input_bits : int
        Fixed-point bits of weights and of inputs, sign included.
    written_arrays_per_bank : int
        Arrays of a bank that can be written at the same time; an array writes one row at a time.
    shift_adds_per_bank : int
        Shift-and-add units of a bank.
    buffer_bytes : int
        Size of a tile's buffer, in bytes.
    bus_bits : int
        Width of the bus between a tile's buffer and its banks.
    digital_lanes : int
        Digital arithmetic units of a tile; each does one operation per clock.
    links : int
        Off-chip links.
    """

    name: str
    source: str = ""
    tiles: PositiveInt = 1
    banks_per_tile: PositiveInt = 1
    vmm: VmmArraySpec = VmmArraySpec()
    inv: InvArraySpec = InvArraySpec()
    residual: ResidualSpec = ResidualSpec()
    adc: AdcSpec = AdcSpec()
    dac: DacSpec = DacSpec()
    weight_bits: Annotated[int, Ge(2), Le(32)] = 8
    input_bits: Annotated[int, Ge(2), Le(32)] = 8
    written_arrays_per_bank: PositiveInt = 1
    shift_adds_per_bank: PositiveInt = 4
    buffer_bytes: PositiveInt = 65536
    bus_bits: PositiveInt = 256
    digital_lanes: Count = 16
    links: PositiveInt = 4

    def __post_init__(self) -> None:
        if self.written_arrays_per_bank > self.vmm.arrays_per_bank:
            raise ValueError(
                f"written_arrays_per_bank={self.written_arrays_per_bank} exceeds "
                f"vmm.arrays_per_bank={self.vmm.arrays_per_bank}"
            )
        if self.residual.arrays_per_bank >= self.vmm.arrays_per_bank:
            raise ValueError(
                f"residual.arrays_per_bank={self.residual.arrays_per_bank} leaves no array for "
                f"weights; valid: below vmm.arrays_per_bank={self.vmm.arrays_per_bank}"
            )
        if self.vmm.rows % self.residual.rows:
            raise ValueError(
                f"residual.rows={self.residual.rows} does not divide vmm.rows={self.vmm.rows}; "
                "valid: a divisor of it"
            )
        if self.residual.dac_bits > self.dac.bits:
            raise ValueError(
                f"residual.dac_bits={self.residual.dac_bits} is more than the DACs have; valid: at "
                f"most dac.bits={self.dac.bits}"
            )
        for name in _OF_TRAINING if self.residual.adc is not None else ():
            value, default = getattr(self.residual.adc, name), getattr(AdcSpec, name)
            if value != default:
                raise ValueError(
                    f"residual.adc.{name}={value}: ranges of residual products are set when their "
                    f"arrays are written; valid: {default}, which acts on adc alone"
                )

    @property
    def banks(self) -> int:
        """Banks of the chip."""
        return self.tiles * self.banks_per_tile

    @property
    def vmm_arrays(self) -> int:
        """Multiplying arrays of the chip."""
        return self.banks * self.vmm.arrays_per_bank

    @property
    def residual_arrays(self) -> int:
        """Multiplying arrays of the chip that may hold residual products."""
        return self.banks * self.residual.arrays_per_bank

    @property
    def residual_adc_bits(self) -> int:
        """Bits of the converters of residual products."""
        return (self.residual.adc or self.adc).bits

    @property
    def inv_arrays(self) -> int:
        """Inverting arrays of the chip."""
        return self.banks * self.inv.arrays_per_bank

    @property
    def cells(self) -> int:
        """Cells of all arrays."""
        return self.vmm_arrays * self.vmm.cells + self.inv_arrays * self.inv.cells

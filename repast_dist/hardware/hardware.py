"""Puts the hardware of a farm into one object: chip, device, components and the network."""

import dataclasses
import html
from functools import cached_property

from repast_dist.analog.cells.ideal import Ideal
from repast_dist.analog.cells.use import NEW, CellUse
from repast_dist.analog.specs import (
    DacSpec,
    DeviceSpec,
    InvSpec,
    OpAmpSpec,
    VariationSpec,
    VmmSpec,
    WireSpec,
)
from repast_dist.ground.errors import SettingsError
from repast_dist.ground.numbers import ceil_div
from repast_dist.hardware.components import ComponentTable, unit_costs
from repast_dist.hardware.geometry import Geometry
from repast_dist.hardware.interconnect import InterconnectSpec
from repast_dist.hardware.parts import UnitCosts
from repast_dist.hardware.specs import ChipSpec
from repast_dist.hardware.tree import TreeRow, chip_tree, part_areas, part_powers


@dataclasses.dataclass(frozen=True, repr=False)
class Hardware:
    """The chips of a farm, what they are made of, and how they are connected.

    Geometry and unit costs follow from these settings; each is computed once, when first needed.

    Attributes
    ----------
    chip : ChipSpec
        Arrays, converters and digital units of one chip.
    device : DeviceSpec
        Cells, wires and amplifiers of its arrays.
    components : ComponentTable
        What the parts of a chip cost.
    interconnect : InterconnectSpec
        The network between chips.
    """

    chip: ChipSpec
    device: DeviceSpec
    components: ComponentTable
    interconnect: InterconnectSpec

    @cached_property
    def costs(self) -> UnitCosts:
        """Time and energy of one count of each kind on this chip, in seconds and joules."""
        return unit_costs(self.chip, self.components, self.device.opamp)

    @cached_property
    def geometry(self) -> Geometry:
        """How weights and activations lie on arrays, at the chip's own precision."""
        chip = self.chip
        return Geometry.of(
            chip,
            self.device,
            chip.weight_bits,
            chip.input_bits,
            differential=chip.vmm.differential,
        )

    def product_geometry(self, bits: int) -> Geometry:
        """Return how matrices and vectors of residual products of `bits` fixed-point bits lie on
        the arrays, and how these are driven.
        """
        known = self._product_geometries
        if bits not in known:
            g = Geometry.of(self.chip, self.device, bits, bits, differential=True)
            residual = self.chip.residual
            passes = ceil_div(bits - 1, residual.dac_bits)
            known[bits] = dataclasses.replace(g, passes=passes, driven_rows=residual.rows)
        return known[bits]

    @cached_property
    def _product_geometries(self) -> dict[int, Geometry]:
        return {}

    @cached_property
    def vmm_spec(self) -> VmmSpec:
        """Settings of the multiplying arrays for the numeric simulation.

        Raises
        ------
        SettingsError
            Weights have an offset, and the cells beside stuck ones shall make up for these.
        """
        chip = self.chip
        if not chip.vmm.differential and self.device.cell.mapped_around:
            raise SettingsError(
                "device.cell.mapped_around=true: the other cell of a pair makes up for a stuck "
                "one, and with chip.vmm.differential=false there are no pairs; valid: false"
            )
        return VmmSpec(
            device=self.device,
            dac=chip.dac,
            adc=chip.adc,
            rows=chip.vmm.rows,
            columns=chip.vmm.cols,
            differential=chip.vmm.differential,
            adcs_per_array=chip.vmm.adcs_per_array,
            weight_bits=chip.weight_bits,
            input_bits=chip.input_bits,
            use=self._new_cells,
        )

    def factor_geometry(self, bits: int | None) -> Geometry:
        """Return the figures of the arrays when inputs have so many bits, sign included; None: as
        many as they have at other times.
        """
        if bits is None:
            return self.geometry
        return dataclasses.replace(self.geometry, passes=ceil_div(bits - 1, self.chip.dac.bits))

    @cached_property
    def residual_spec(self) -> VmmSpec:
        """Settings of the arrays of residual products for the numeric simulation; so many ``rows``
        of them are driven at a time.

        Raises
        ------
        SettingsError
            The ADC shall lose nothing and has too few bits for the rows that are driven.
        """
        residual, cell = self.chip.residual, self.device.cell
        variation = self.device.variation
        levels = residual.rows * (cell.levels - 1) * (2**residual.dac_bits - 1)
        needed = levels.bit_length() + 1
        enough = self.chip.residual_adc_bits >= needed
        adc = residual.adc
        if adc is None:
            adc = dataclasses.replace(self.chip.adc, range="lossless" if enough else "full")
        if adc.range == "lossless" and not enough:
            raise SettingsError(
                f"chip.residual.adc.bits={adc.bits} cannot tell the {levels} levels of "
                f"{residual.rows} rows apart; valid: at least {needed}, fewer chip.residual.rows, "
                "or chip.residual.adc.range=calibrated or full"
            )
        if residual.verified:
            cell = Ideal(
                bits=cell.bits,
                g_on_siemens=cell.g_on_siemens,
                g_off_siemens=cell.g_off_siemens,
            )
            variation = VariationSpec()
        return VmmSpec(
            device=dataclasses.replace(
                self.device,
                cell=cell,
                variation=variation,
                wire=self.device.wire if residual.wired else WireSpec(),
                opamp=OpAmpSpec(),
                source="",
            ),
            dac=self._residual_dac,
            adc=adc,
            rows=residual.rows,
            columns=2 * self.chip.vmm.pairs,
            array_rows=self.chip.vmm.rows,
            use=self._new_cells,
            adcs_per_array=self.chip.vmm.adcs_per_array,
        )

    @property
    def _residual_dac(self) -> DacSpec:
        """DACs of residual products: cells that are verified make up for those of their rows."""
        residual, dac = self.chip.residual, self.chip.dac
        if residual.verified:
            return DacSpec(bits=residual.dac_bits)
        one = {"offset_lsb": 0.0, "inl_lsb": 0.0} if residual.dac_bits == 1 else {}
        return dataclasses.replace(dac, bits=residual.dac_bits, range="full", **one)

    @property
    def _new_cells(self) -> CellUse:
        """Cells that were never written and will last as long as their components say."""
        device = self.device
        wears = device.cell.wears or device.inv_cell.wears
        return CellUse(endurance=self.costs.endurance) if wears else NEW

    @cached_property
    def inv_spec(self) -> InvSpec:
        """Settings of the inverting arrays for the numeric simulation.

        Raises
        ------
        SettingsError
            Cells have a curve, and outputs no volts.
        """
        inv = self.chip.inv
        if not self.device.curve.linear and self.device.opamp.swing_v is None:
            raise SettingsError(
                f"device.curve.v0_volts={self.device.curve.v0_volts}: inverting cells see the "
                "outputs of amplifiers, and with device.opamp.swing_v=null these are in no volts; "
                "valid: a swing, or device.curve.v0_volts=null"
            )
        return InvSpec(
            device=self.device,
            dac_bits=inv.dac_bits,
            adc_bits=inv.adc_bits,
            dac=inv.dac,
            adc=inv.adc,
            adcs_per_array=inv.adcs_per_array,
            size=inv.size,
            use=self._new_cells,
        )

    @cached_property
    def tree(self) -> tuple[TreeRow, ...]:
        """The chip's parts; their areas and powers sum to the chip's."""
        return chip_tree(self.chip, self.components, self.costs)

    @property
    def area_m2(self) -> float:
        """Area of one chip."""
        return sum(part_areas(self.chip, self.costs).values())

    @property
    def peak_power_w(self) -> float:
        """Power of one chip while all of its arrays work without pause."""
        return sum(part_powers(self.chip, self.costs).values())

    def __repr__(self) -> str:
        chip = self.chip
        return (
            f"Hardware('{chip.name}': {_square_mm(self.area_m2)}, {self.peak_power_w:.4g} W; "
            f"{chip.vmm_arrays:,} multiplying arrays of {chip.vmm.rows} x {chip.vmm.cols} cells, "
            f"{chip.inv_arrays:,} inverting arrays of {chip.inv.size} x {chip.inv.size})"
        )

    def _repr_html_(self) -> str:
        """Show the chip's parts with their areas and powers, in a notebook."""
        rows = [
            (row.level, row.component, f"{row.count:,.0f}", _square_mm(row.area_m2),
             f"{row.power_w:.4g} W", row.source)
            for row in self.tree
        ]  # fmt: skip
        total = ("chip", self.chip.name, "", _square_mm(self.area_m2), f"{self.peak_power_w:.4g} W")
        heading = ("level", "part", "count", "area", "peak power", "source")
        head = "".join(f"<th>{name}</th>" for name in heading)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(text)}</td>" for text in row) + "</tr>"
            for row in (*rows, (*total, self.chip.source))
        )
        return f"<table><tr>{head}</tr>{body}</table>"


def _square_mm(area_m2: float) -> str:
    return f"{area_m2 * 1e6:.4g} mm²"

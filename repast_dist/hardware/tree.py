"""The tree of a chip: how many of each part, their area, their peak power, and who says so."""

import dataclasses

from repast_dist.ground.numbers import BITS_PER_BYTE
from repast_dist.hardware.components import (
    Component,
    ComponentTable,
    Quantity,
    UnitCosts,
    component_names,
    quantity_source,
)
from repast_dist.hardware.pricing import ROUTER_CROSSINGS_PER_BUFFER_BYTE
from repast_dist.hardware.specs import ChipSpec, instances

LEVELS = {
    "adc": "array",
    "dac": "array",
    "sample_hold": "array",
    "shift_add": "bank",
    "cell": "array",
    "cell_write": "array",
    "amplifier": "inverting array",
    "inv_dac": "inverting array",
    "inv_adc": "inverting array",
    "digital": "tile",
    "buffer": "tile",
    "bus": "tile",
    "register": "bank",
    "router": "tile",
    "tile_logic": "tile",
    "control": "tile",
    "link": "chip",
}
"""Component -> the level of the hierarchy it belongs to."""


@dataclasses.dataclass(frozen=True)
class TreeRow:
    """One component of a chip.

    Attributes
    ----------
    level, component : str
        Where it sits and what it is.
    count : float
        Instances on the chip (bytes for the buffer, bits of width for the bus).
    area_m2, power_w : float
        Of all instances; power when everything works at full rate.
    area_share, power_share : float
        Of the chip's.
    energy_j, time_s : float
        Per action.
    source : str
        Sources of the figures.
    confidence : str
        The weakest of them.
    """

    level: str
    component: str
    count: float
    area_m2: float
    power_w: float
    area_share: float
    power_share: float
    energy_j: float
    time_s: float
    source: str
    confidence: str


def peak_rates(chip: ChipSpec, costs: UnitCosts) -> dict[str, float]:
    """Return actions per second of each component when every array works without pause.

    Buffers feed what the arrays take: every pass needs a DAC's bits per row, and a bank returns
    one result per ``weight_bits`` of columns and ``input_bits`` of passes, as in ISAAC.
    """
    arrays, counts = chip.vmm_arrays, instances(chip)
    passes = arrays / costs.pass_s
    settlings = chip.inv_arrays / costs.inv_s
    taken = passes * chip.vmm.rows * chip.dac.bits / BITS_PER_BYTE
    returned = taken / BITS_PER_BYTE
    return {
        "adc": passes * chip.vmm.weight_columns,
        "dac": passes * chip.vmm.rows,
        "sample_hold": passes * chip.vmm.cols,
        "shift_add": passes * chip.vmm.weight_columns,
        "cell": passes * chip.vmm.cells + settlings * chip.inv.cells,
        "cell_write": 0.0,
        "amplifier": settlings * chip.inv.size,
        "inv_dac": settlings * chip.inv.size,
        "inv_adc": settlings * chip.inv.size,
        "digital": counts["digital"] / costs.clock_s,
        "buffer": 2 * (taken + returned),
        "bus": taken + returned,
        "register": taken + returned,
        "router": 2 * ROUTER_CROSSINGS_PER_BUFFER_BYTE * (taken + returned),
        "tile_logic": 0.0,
        "control": 0.0,
        "link": chip.links / costs.parts["link"].time_s,
    }


def chip_tree(chip: ChipSpec, components: ComponentTable, costs: UnitCosts) -> tuple[TreeRow, ...]:
    """Return the components of a chip; their areas and powers sum to the chip's.

    Parameters
    ----------
    chip, components : ChipSpec, ComponentTable
        The chip and the table of its parts.
    costs : UnitCosts
        The table's figures for this chip.
    """
    counts, rates = instances(chip), peak_rates(chip, costs)
    area = {name: costs.parts[name].area_m2 * counts[name] for name in component_names()}
    power = {
        name: costs.parts[name].energy_j * rates[name] + costs.parts[name].power_w * counts[name]
        for name in component_names()
    }
    total_area, total_power = sum(area.values()), sum(power.values())
    return tuple(
        TreeRow(
            level=LEVELS[name],
            component=name,
            count=counts[name],
            area_m2=area[name],
            power_w=power[name],
            area_share=area[name] / total_area,
            power_share=power[name] / total_power,
            energy_j=costs.parts[name].energy_j,
            time_s=costs.parts[name].time_s,
            source=_sources(getattr(components, name)),
            confidence=_confidence(getattr(components, name)),
        )
        for name in component_names()
    )


def _quantities(component: Component) -> dict[str, Quantity]:
    values = {item.name: getattr(component, item.name) for item in dataclasses.fields(Component)}
    return {name: value for name, value in values.items() if value is not None}


def _sources(component: Component) -> str:
    texts = {name: quantity_source(value) for name, value in _quantities(component).items()}
    return "; ".join(f"{name}: {text}" for name, text in texts.items())


def _confidence(component: Component) -> str:
    return max((v.confidence for v in _quantities(component).values()), default="A")

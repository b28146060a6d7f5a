"""Lists the parts of a chip with their number, area, peak power and sources."""

import dataclasses

from repast_dist.hardware.components import (
    Amplifier,
    Component,
    ComponentTable,
    quantities,
    quantity_source,
)
from repast_dist.hardware.parts import PARTS, Part, Peak, UnitCosts
from repast_dist.hardware.specs import ChipSpec


@dataclasses.dataclass(frozen=True)
class TreeRow:
    """One component of a chip.

    Attributes
    ----------
    level, component : str
        Level of the hierarchy, and name of the component.
    count : float
        Instances on the chip (bytes for the buffer, bits of width for the bus).
    area_m2, power_w : float
        Area and power of all instances together, when everything works at full rate.
    area_share, power_share : float
        Shares of the chip's area and power.
    energy_j, time_s : float
        Energy and time of one action.
    source : str
        Sources of the figures.
    confidence : str
        The lowest confidence among the figures.
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


def chip_tree(chip: ChipSpec, components: ComponentTable, costs: UnitCosts) -> tuple[TreeRow, ...]:
    """Return the components of a chip; their areas and powers sum to the chip's.

    Parameters
    ----------
    chip, components : ChipSpec, ComponentTable
        The chip, and the figures of its parts with their sources.
    costs : UnitCosts
        The figures of the table for this chip.
    """
    figures, area, power = costs.parts, part_areas(chip, costs), part_powers(chip, costs)
    total_area, total_power = sum(area.values()), sum(power.values())
    return tuple(
        TreeRow(
            level=part.level,
            component=part.name,
            count=part.instances(chip),
            area_m2=area[part],
            power_w=power[part],
            area_share=area[part] / total_area,
            power_share=power[part] / total_power,
            energy_j=figures[part.name].energy_j,
            time_s=figures[part.name].time_s,
            source=_sources(getattr(components, part.name)),
            confidence=_confidence(getattr(components, part.name)),
        )
        for part in PARTS
    )


def part_areas(chip: ChipSpec, costs: UnitCosts) -> dict[Part, float]:
    """Return the area of all instances of each part, in square metres."""
    return {part: costs.parts[part.name].area_m2 * part.instances(chip) for part in PARTS}


def part_powers(chip: ChipSpec, costs: UnitCosts) -> dict[Part, float]:
    """Return the power of all instances of each part while all arrays of a chip work without pause,
    in watts.
    """
    peak = Peak(chip, costs)
    return {
        part: costs.parts[part.name].energy_j * part.rate(peak)
        + costs.parts[part.name].power_w * part.instances(chip)
        for part in PARTS
    }


def _sources(component: Component | Amplifier) -> str:
    texts = {name: quantity_source(value) for name, value in quantities(component).items()}
    return "; ".join(f"{name}: {text}" for name, text in texts.items())


def _confidence(component: Component | Amplifier) -> str:
    return max((v.confidence for v in quantities(component).values()), default="A")

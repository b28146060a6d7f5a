"""Reads what components cost: their energy, area, power and time, each with a source.

A quantity is either a number in the component table, with its source, or it comes from a component
of `hwcomponents_library` or `hwcomponents_adc`. Those libraries give energy and area. Times always
come from the table, since the libraries' latencies are not meant to be summed (1e-16 s for ISAAC's
buffer).
"""

import dataclasses
import functools
import importlib.metadata
from typing import Annotated, Any, Literal

from annotated_types import Gt

from repast_dist.analog.specs import OpAmpSpec
from repast_dist.ground.errors import SettingsError, brief
from repast_dist.ground.spec import spec
from repast_dist.hardware.parts import PARTS, PartCosts, UnitCosts
from repast_dist.hardware.specs import ChipSpec

_LIBRARIES = ("hwcomponents_library", "hwcomponents_adc")


@spec
class Quantity:
    """A figure and where it comes from.

    Attributes
    ----------
    value : float or None
        The figure, in `unit`; None: it is taken from a library component.
    unit : str
        SI unit and what the figure is per, for example ``J/conversion``.
    source : str
        Publication and table, or the reason for the figure. Text that begins with ``assumption``
        marks an assumption.
    confidence : {"A", "B", "C"}
        A: read in the source or in an open implementation of it; B: recalled from the source; C:
        assumed.
    library : str
        ``package.Class`` of a component, for example ``hwcomponents_library.IsaacADC``.
    action : str
        The component's action whose energy is taken; ``leak``: its leakage power is taken; empty:
        its area is taken.
    attributes : dict
        Arguments of the component. Text such as ``chip.adc.bits`` is replaced by the chip's
        setting; None leaves out an argument that an inherited table has.
    per : float
        Divisor of the library's figure, for example the bits of an access; a `value` is not
        divided.
    """

    unit: str
    source: str
    confidence: Literal["A", "B", "C"]
    value: float | None = None
    library: str = ""
    action: str = ""
    attributes: dict[str, float | int | str | None] = dataclasses.field(default_factory=dict)
    per: Annotated[float, Gt(0)] = 1.0

    def __post_init__(self) -> None:
        if (self.value is None) != bool(self.library):
            raise ValueError("needs either value or library")
        if self.value is not None and self.per != 1.0:
            raise ValueError(
                f"per={self.per} divides a library's figure, not a value; valid with a value: 1"
            )
        if self.value is not None and self.value < 0:
            raise ValueError(f"value={self.value} is negative; valid: 0 or more")
        package = self.library.partition(".")[0]
        if package and package not in _LIBRARIES:
            raise ValueError(f"library {brief(self.library)} is not in {', '.join(_LIBRARIES)}")
        if not self.source:
            raise ValueError("source is empty; say where the figure comes from")


@spec
class Component:
    """The figures of one kind of part.

    Attributes
    ----------
    energy_j : Quantity or None
        Energy per action.
    area_m2 : Quantity or None
        Area per instance.
    power_w : Quantity or None
        Power that each instance draws as long as the chip is on, whatever it does.
    time_s : Quantity or None
        Time per action.
    """

    energy_j: Quantity | None = None
    area_m2: Quantity | None = None
    power_w: Quantity | None = None
    time_s: Quantity | None = None


@spec
class Amplifier:
    """The figures of an amplifier of an inverting array, or of an inverter.

    A good amplifier of one kind takes a current in proportion to its gain-bandwidth product, or
    to its slew rate, and to the capacitance that it drives (Sansen, Analog Design Essentials,
    2006, chapter 6). What ``device.opamp`` asks for so decides the power.

    Attributes
    ----------
    supply_v : Quantity
        Supply voltage; twice the swing where outputs swing further.
    load_f : Quantity
        Capacitance that an output drives.
    gbw_per_current : Quantity
        Gain-bandwidth product times load over supply current.
    slew_per_current : Quantity
        Slew rate times load over supply current.
    area_m2 : Quantity
        Area per instance, whatever the amplifier is asked for.
    """

    supply_v: Quantity
    load_f: Quantity
    gbw_per_current: Quantity
    slew_per_current: Quantity
    area_m2: Quantity

    def __post_init__(self) -> None:
        for name in ("gbw_per_current", "slew_per_current"):
            if getattr(self, name).value == 0:
                raise ValueError(f"{name}.value=0: no current would be enough; valid: above 0")

    def power_w(self, opamp: OpAmpSpec, chip: ChipSpec) -> float:
        """Return the power of an amplifier that is on, in watts.

        It is that of the current which bandwidth or slew rate needs, the larger of both. Amplifiers
        that are at rest at once need none, and are on for no time.
        """
        supply, load, bandwidth, slew = (
            quantity_value(getattr(self, name), chip, f"amplifier.{name}")
            for name in ("supply_v", "load_f", "gbw_per_current", "slew_per_current")
        )
        needed = max((opamp.gbw_hz or 0.0) / bandwidth, (opamp.slew_v_per_s or 0.0) / slew)
        return max(supply, 2.0 * (opamp.swing_v or 0.0)) * load * needed


def quantities(component: Component | Amplifier) -> dict[str, Quantity]:
    """Return the figures that a component has, by name."""
    values = {item.name: getattr(component, item.name) for item in dataclasses.fields(component)}
    return {name: value for name, value in values.items() if value is not None}


@spec
class ComponentTable:
    """The figures of every kind of part of a chip.

    Attributes
    ----------
    name : str
        Name of the table.
    adc, residual_adc, dac, sample_hold, shift_add : Component
        Converters and accumulators of the multiplying arrays; `residual_adc` is used for residual
        products. One action is one conversion; an ADC's time is that of one sample.
    cell : Component
        A memory cell: energy per cell and pass, and the time of one pass of an array before
        conversion.
    cell_write : Component
        A programming pulse: energy per cell and time per row. A cell's settings say how many
        pulses a write takes (``device.cell.write_pulses``).
    amplifier : Amplifier
        An amplifier of an inverting array, or an inverter.
    inv_dac, inv_adc : Component
        Converters of the inverting arrays; one action is one conversion.
    inv_gain : Component
        The amplifier in front of each of those ADCs that brings outputs into its range, and the
        comparator that finds by how much; one action is one conversion.
    digital : Component
        A digital lane: energy per operation and clock period.
    buffer : Component
        A tile's buffer: energy per byte, area per byte and time per bus word.
    bus : Component
        Wires between buffer and banks: energy per byte, area per bit of width and bank.
    register : Component
        A bank's input and output registers: energy per buffer byte and area per bank.
    router : Component
        On-chip router: energy per buffer byte and area per tile.
    tile_logic : Component
        Activation, pooling and accumulation units of a tile.
    control : Component
        Sequencing of a tile.
    link : Component
        Off-chip link: energy per byte, area per link and time per byte.
    cell_endurance : Quantity
        SET and RESET cycles that a cell survives; writing it is one, however many pulses it takes.
    router_crossings : Quantity
        Times that each byte written to or read from a buffer crosses the router.
    """

    name: str
    adc: Component
    residual_adc: Component
    dac: Component
    sample_hold: Component
    shift_add: Component
    cell: Component
    cell_write: Component
    amplifier: Amplifier
    inv_dac: Component
    inv_adc: Component
    inv_gain: Component
    digital: Component
    buffer: Component
    bus: Component
    register: Component
    router: Component
    tile_logic: Component
    control: Component
    link: Component
    cell_endurance: Quantity
    router_crossings: Quantity


def unit_costs(chip: ChipSpec, components: ComponentTable, opamp: OpAmpSpec) -> UnitCosts:
    """Return what one count of each kind costs on a chip.

    Parameters
    ----------
    chip, components : ChipSpec, ComponentTable
        The chip, and the figures of its parts.
    opamp : OpAmpSpec
        What its amplifiers are asked for.

    Raises
    ------
    SettingsError
        A library component does not exist or refuses its arguments; the message names it.
    """
    parts = {}
    figures = [item.name for item in dataclasses.fields(Component)]
    for part in PARTS:
        component: Component | Amplifier = getattr(components, part.name)
        if isinstance(component, Amplifier):
            # The action of an amplifier is to be on for a second.
            area = quantity_value(component.area_m2, chip, f"{part.name}.area_m2")
            parts[part.name] = PartCosts(component.power_w(opamp, chip), area, 0.0, 0.0)
            continue
        values = {
            figure: quantity_value(getattr(component, figure), chip, f"{part.name}.{figure}")
            for figure in figures
        }
        parts[part.name] = PartCosts(**values)
    converted = chip.vmm.weight_columns / chip.vmm.adcs_per_array * parts["adc"].time_s
    residual = chip.vmm.pairs / chip.vmm.adcs_per_array * parts["residual_adc"].time_s
    inv_converted = chip.inv.size / chip.inv.adcs_per_array * parts["inv_adc"].time_s
    return UnitCosts(
        parts=parts,
        pass_s=max(parts["cell"].time_s, converted),
        residual_pass_s=max(parts["cell"].time_s, residual),
        inv_convert_s=inv_converted,
        static_w=sum(parts[part.name].power_w * part.instances(chip) for part in PARTS),
        endurance=quantity_value(components.cell_endurance, chip, "cell_endurance"),
        router_crossings=quantity_value(components.router_crossings, chip, "router_crossings"),
    )


def quantity_value(quantity: Quantity | None, chip: ChipSpec, path: str) -> float:
    """Return the figure of a quantity for a chip; 0 if there is no quantity.

    Raises
    ------
    SettingsError
        The library has no such component, action or argument.
    """
    if quantity is None:
        return 0.0
    if quantity.value is not None:
        return quantity.value
    where = f"components.{path}"
    attributes = {
        name: _attribute(value, chip, f"{where}.attributes.{name}")
        for name, value in quantity.attributes.items()
        if value is not None
    }
    try:
        figure = _library_figure(quantity.library, quantity.action, tuple(attributes.items()))
        return figure / quantity.per
    except (AttributeError, TypeError, ValueError, AssertionError) as error:
        raise SettingsError(f"{where}: {quantity.library} cannot be priced: {error}") from None


def quantity_source(quantity: Quantity) -> str:
    """Return the source of a quantity, with the library and its version if it comes from one."""
    if not quantity.library:
        return quantity.source
    package = quantity.library.partition(".")[0]
    version = _installed_version(package.replace("_", "-"))
    return f"{quantity.source} ({quantity.library} of {package} {version})"


@functools.cache
def _installed_version(package: str) -> str:
    """Read a package's version from its files once: a search asks for many chips."""
    return importlib.metadata.version(package)


@functools.lru_cache(maxsize=4096)
def _library_figure(
    library: str, action: str, attributes: tuple[tuple[str, float | int], ...]
) -> float:
    """Return a component's area, leakage power or energy; chips that differ elsewhere share it."""
    part = _library_class(library)(**dict(attributes))
    if not action:
        return float(part.area)
    return float(part.leak_power) if action == "leak" else float(getattr(part, action)().energy)


@functools.cache
def _library_class(path: str) -> Any:
    """Import a component class, only when it is needed: importing this module stays fast."""
    package, _, name = path.partition(".")
    module = importlib.import_module(
        f"{package}.main" if package == "hwcomponents_adc" else package
    )
    return getattr(module, name)


def _attribute(value: float | int | str, chip: ChipSpec, path: str) -> float | int:
    if not isinstance(value, str):
        return value
    found: Any = chip
    names = value.split(".")
    if names[0] != "chip":
        raise SettingsError(f"{path}: '{value}' is neither a number nor a value of the chip")
    for name in names[1:]:
        if not hasattr(found, name):
            raise SettingsError(f"{path}: the chip has no '{value}'")
        found = getattr(found, name)
    return found

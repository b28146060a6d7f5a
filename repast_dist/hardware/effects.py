"""Which effects of devices and circuits a piece of hardware leaves out, for reports to name."""

from collections.abc import Iterator

from repast_dist.analog.cells.base import Cell
from repast_dist.analog.specs import ConverterErrors
from repast_dist.hardware.hardware import Hardware


def ideal_effects(hardware: Hardware) -> tuple[str, ...]:
    """Return the modelled effects that are off, in words; those never modelled are not among them.

    Parameters
    ----------
    hardware : Hardware
        Whose device and chip settings are looked through.
    """
    return tuple(_off(hardware))


def _off(hardware: Hardware) -> Iterator[str]:
    device, opamp = hardware.device, hardware.device.opamp
    products, inverses = set(_of_cell(device.cell)), set(_of_cell(device.inv_cell))
    yield from (name for name in _CELL if name in products & inverses)
    yield from (f"{name} of multiplying cells" for name in _CELL if name in products - inverses)
    yield from (f"{name} of inverting cells" for name in _CELL if name in inverses - products)
    if hardware.chip.residual.verified:
        yield "cell errors in residual products"
    variation = device.variation
    shared = variation.array_sigma or variation.row_sigma or variation.column_sigma
    if not shared:
        yield "variation that cells of an array share"
    if not variation.die_sigma:
        yield "variation from chip to chip"
    if device.wire.ideal:
        yield "wire resistance"
    elif not hardware.chip.residual.wired:
        yield "wire resistance in residual products"
    if device.curve.linear:
        yield "curve of cells' current over voltage"
    adc = hardware.chip.adc
    if adc.range == "calibrated" and not adc.keeps_ranges:
        yield "converter ranges set before the data"
    yield from _of_converters(hardware)
    off = {
        "finite gain": opamp.gain is None,
        "offset": not opamp.offset_v,
        "input conductance": not opamp.input_siemens,
        "bandwidth": opamp.gbw_hz is None,
        "swing": opamp.swing_v is None,
        "noise": None not in (opamp.gbw_hz, opamp.swing_v) and not opamp.noise_v_per_rthz,
        "slew rate": None not in (opamp.gbw_hz, opamp.swing_v) and opamp.slew_v_per_s is None,
        "second pole": opamp.gbw_hz is not None and opamp.second_pole_hz is None,
    }
    yield from (f"{name} of amplifiers" for name, is_off in off.items() if is_off)


def _of_converters(hardware: Hardware) -> Iterator[str]:
    chip = hardware.chip
    kinds: dict[str, ConverterErrors] = {
        "multiplying arrays' ADCs": chip.adc,
        "multiplying arrays' DACs": chip.dac,
    }
    if chip.inv.arrays_per_bank:
        kinds |= {"inverting arrays' ADCs": chip.inv.adc, "inverting arrays' DACs": chip.inv.dac}
    effects = {
        "offset": "offset_left_lsb",
        "gain error": "gain_error",
        "nonlinearity": "inl_lsb",
        "noise": "noise_lsb",
    }
    for name, setting in effects.items():
        # The one level of a DAC of one bit has a gain and noise alone.
        missing = chip.dac if chip.dac.bits == 1 and name in ("offset", "nonlinearity") else None
        having = {kind: errors for kind, errors in kinds.items() if errors is not missing}
        off = [kind for kind, errors in having.items() if not getattr(errors, setting)]
        if len(off) == len(having):
            yield f"{name} of converters"
        else:
            yield from (f"{name} of {kind}" for kind in off)


_CELL = (
    "programming error",
    "read noise",
    "stuck cells",
    "wear",
    "drift",
    "1/f noise",
    "dependence on temperature",
    "write-verify pulses",
)


def _of_cell(cell: Cell) -> Iterator[str]:
    off = (
        not cell.programming_spread,
        not cell.read_spread,
        not cell.stuck_share,
        not cell.wears,
        not cell.ages,
        not cell.slow_spread,
        not cell.warms,
        not cell.write_verify,
    )
    yield from (name for name, is_off in zip(_CELL, off, strict=True) if is_off)

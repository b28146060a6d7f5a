"""Effects that are off are named: each of them, and only then."""

import pytest

import repast_dist as rd
from repast_dist.hardware.effects import ideal_effects

ON = {
    "device.cell.programming_sigma": 0.01,
    "device.inv_cell.programming_sigma": 0.01,
    "device.cell.read_sigma": 0.01,
    "device.inv_cell.read_sigma": 0.01,
    "device.cell.stuck_on_rate": 1e-4,
    "device.inv_cell.stuck_off_rate": 1e-4,
    "device.cell.endurance_sigma": 0.5,
    "device.inv_cell.endurance_sigma": 0.5,
    "device.cell.drift_exponent": 0.01,
    "device.inv_cell.drift_exponent": 0.01,
    "device.cell.write_verify": True,
    "device.inv_cell.write_verify": True,
    "device.cell.flicker_sigma": 0.001,
    "device.inv_cell.flicker_sigma": 0.001,
    "device.cell.temperature_on_per_k": -0.001,
    "device.inv_cell.temperature_on_per_k": -0.001,
    "device.variation.row_sigma": 0.01,
    "device.variation.die_sigma": 0.01,
    "device.wire.row_ohm": 1.0,
    "device.curve.v0_volts": 0.25,
    "device.opamp.gain": 1e4,
    "device.opamp.offset_v": 1e-3,
    "device.opamp.input_siemens": 1e-6,
    "device.opamp.gbw_hz": 1e8,
    "device.opamp.second_pole_hz": 3e8,
    "device.opamp.swing_v": 0.5,
    "device.opamp.slew_v_per_s": 1e8,
    "device.opamp.noise_v_per_rthz": 1e-8,
    "chip.residual.verified": False,
    "chip.residual.wired": True,
    "chip.adc.offset_lsb": 0.1,
    "chip.adc.gain_error": 0.01,
    "chip.adc.inl_lsb": 0.1,
    "chip.adc.noise_lsb": 0.1,
    "chip.dac.gain_error": 0.01,
    "chip.dac.noise_lsb": 0.1,
    **{
        f"chip.inv.{kind}.{name}": 0.1
        for kind in ("adc", "dac")
        for name in ("offset_lsb", "gain_error", "inl_lsb", "noise_lsb")
    },
}


def _off(changes):
    return ideal_effects(rd.load_hardware(chip="small", device="reram", **changes))


def test_nothing_is_named_where_everything_is_on():
    assert _off(ON) == ()


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"device.cell.programming_sigma": 0.0}, "programming error of multiplying cells"),
        (
            {"device.inv_cell.read_sigma": 0.0, "device.inv_cell.flicker_fast_decades": 0.0},
            "read noise of inverting cells",
        ),
        ({"device.cell.endurance_sigma": 0.0}, "wear of multiplying cells"),
        ({"device.inv_cell.drift_exponent": 0.0}, "drift of inverting cells"),
        (
            {
                f"device.{cell}.{name}": 0.0
                for cell in ("cell", "inv_cell")
                for name in ("read_sigma", "flicker_fast_decades")
            },
            "read noise",
        ),
        ({"device.cell.write_verify": False}, "write-verify pulses of multiplying cells"),
        ({"device.cell.flicker_sigma": 0.0}, "1/f noise of multiplying cells"),
        (
            {"device.inv_cell.temperature_on_per_k": 0.0},
            "dependence on temperature of inverting cells",
        ),
        ({"device.variation.row_sigma": 0.0}, "variation that cells of an array share"),
        ({"device.variation.die_sigma": 0.0}, "variation from chip to chip"),
        ({"device.wire.row_ohm": 0.0}, "wire resistance"),
        ({"device.curve.v0_volts": None}, "curve of cells' current over voltage"),
        ({"device.opamp.gain": None}, "finite gain of amplifiers"),
        ({"device.opamp.offset_v": 0.0}, "offset of amplifiers"),
        ({"device.opamp.input_siemens": 0.0}, "input conductance of amplifiers"),
        (
            {
                "device.opamp.gbw_hz": None,
                "device.opamp.second_pole_hz": None,
                "device.opamp.slew_v_per_s": None,
                "device.opamp.noise_v_per_rthz": 0.0,
            },
            "bandwidth of amplifiers",
        ),
        (
            {
                "device.opamp.swing_v": None,
                "device.opamp.slew_v_per_s": None,
                "device.opamp.noise_v_per_rthz": 0.0,
            },
            "swing of amplifiers",
        ),
        ({"device.opamp.noise_v_per_rthz": 0.0}, "noise of amplifiers"),
        ({"device.opamp.slew_v_per_s": None}, "slew rate of amplifiers"),
        ({"device.opamp.second_pole_hz": None}, "second pole of amplifiers"),
        ({"chip.adc.offset_lsb": 0.0}, "offset of multiplying arrays' ADCs"),
        ({"chip.adc.nulling_passes": 1}, "offset of multiplying arrays' ADCs"),
        ({"chip.inv.adc.gain_error": 0.0}, "gain error of inverting arrays' ADCs"),
        ({"chip.dac.gain_error": 0.0}, "gain error of multiplying arrays' DACs"),
        ({"chip.dac.bits": 2, "chip.dac.inl_lsb": 0.1}, "offset of multiplying arrays' DACs"),
        ({"chip.inv.dac.inl_lsb": 0.0}, "nonlinearity of inverting arrays' DACs"),
        (
            {f"chip.{kind}.noise_lsb": 0.0 for kind in ("adc", "dac", "inv.adc", "inv.dac")},
            "noise of converters",
        ),
        ({"chip.adc.calibrated_on": "call"}, "converter ranges set before the data"),
        ({"chip.residual.wired": False}, "wire resistance in residual products"),
        ({"chip.residual.verified": True}, "cell errors in residual products"),
    ],
)
def test_an_effect_that_is_off_is_named(change, name):
    assert _off(ON | change) == (name,)

"""Prices of operations, against calculations by hand from the component table."""

import dataclasses

import pytest

from repast_dist.analog import DeviceSpec
from repast_dist.analog.specs import OpAmpSpec
from repast_dist.ground.errors import SettingsError
from repast_dist.ground.spec import load, to_dict
from repast_dist.hardware import (
    PARTS,
    Amplifier,
    ChipSpec,
    Component,
    ComponentTable,
    Hardware,
    InterconnectSpec,
    unit_costs,
)
from repast_dist.ops import op, op_rows, price
from repast_dist.ops.pricing import component_energy
from repast_dist.settings import compose_plain


def preset(cls, group, name):
    return load(cls, compose_plain([f"{group}={name}"])[group], group)


def hardware(name, components):
    """Return a chip of a name made of these components."""
    chip, network = (
        preset(ChipSpec, "chip", name),
        preset(InterconnectSpec, "interconnect", "board"),
    )
    return Hardware(chip=chip, device=DeviceSpec(), components=components, interconnect=network)


@pytest.fixture(scope="module")
def components():
    return preset(ComponentTable, "components", "reram_32nm")


@pytest.fixture(scope="module")
def small():
    return preset(ChipSpec, "chip", "small")


FAST = OpAmpSpec(gbw_hz=100e6)


@pytest.fixture(scope="module")
def costs(components, small):
    return unit_costs(small, components, FAST)


def test_isaac_chip_has_published_power_and_area(components):
    isaac = hardware("isaac", components)
    # Shafiee et al., ISCA 2016, table 1: 65.8 W, 85.4 mm2.
    assert isaac.peak_power_w == pytest.approx(65.8, rel=0.05)
    assert isaac.area_m2 * 1e6 == pytest.approx(85.4, rel=0.05)


def test_isaac_bank_and_tile_match_published_rows(components):
    isaac = hardware("isaac", components)
    power = {row.component: row.power_w for row in isaac.tree}
    area = {row.component: row.area_m2 * 1e6 for row in isaac.tree}
    banks, tiles = 168 * 12, 168
    assert power["adc"] / banks == pytest.approx(16e-3, rel=0.01)
    assert power["dac"] / banks == pytest.approx(4e-3, rel=0.01)
    assert power["cell"] / banks == pytest.approx(2.4e-3, rel=0.01)
    assert power["buffer"] / tiles == pytest.approx(20.7e-3, rel=0.01)
    assert power["bus"] / tiles == pytest.approx(7e-3, rel=0.01)
    assert power["router"] / tiles == pytest.approx(10.5e-3, rel=0.01)
    assert power["link"] == pytest.approx(10.4, rel=0.01)
    assert area["buffer"] / tiles == pytest.approx(0.083, rel=0.01)
    assert area["bus"] / tiles == pytest.approx(0.090, rel=0.01)


@pytest.mark.parametrize("name", ["isaac", "repast", "pipelayer", "small"])
def test_parts_of_a_chip_sum_to_the_chip(components, name):
    rows = hardware(name, components).tree
    assert sum(row.power_share for row in rows) == pytest.approx(1.0)
    assert sum(row.area_share for row in rows) == pytest.approx(1.0)
    assert all(row.source for row in rows)


def test_adc_regression_prices_an_8_bit_converter_within_a_factor_of_two_of_isaac(components):
    regression = preset(ComponentTable, "components", "adc_regression")
    small = preset(ChipSpec, "chip", "small")
    ours = unit_costs(small, components, FAST).parts["adc"].energy_j
    fitted = unit_costs(small, regression, FAST).parts["adc"].energy_j
    assert ours != fitted
    assert 0.5 < fitted / ours < 2.0


def test_an_adc_bit_doubles_its_energy(components, small):
    finer = load(ChipSpec, to_dict(small) | {"adc": {"bits": 9}})
    eight, nine = (
        unit_costs(chip, components, FAST).parts["adc"].energy_j for chip in (small, finer)
    )
    assert nine == pytest.approx(2 * eight)


def test_a_product_row_costs_what_the_component_table_says(costs):
    # 16 vectors of 64 inputs, 10 outputs, 2 slices, 7 passes on one array, by hand.
    row = op_rows(
        op.VMM_FORWARD,
        chip=0,
        crossbar_reads=112,
        cells_read=112 * 64 * 10 * 2 * 2,
        dac_conversions=112 * 64,
        adc_conversions=112 * 20,
        buffer_bytes=1184,
        serial_passes=112,
        serial_buffer_words=37,
    )
    priced = price(row, costs)
    # 64 pairs share an ADC of 1.2 GS/s: 53 ns, hidden behind the 100 ns of the read.
    assert priced.duration_s[0] == pytest.approx(112 * 100e-9)
    by_hand = (
        286_720 * 1.953125e-15
        + 7_168 * 0.41667e-12
        + 2_240 * (1.666666667e-12 + 1.041667e-15 + 0.021e-12)
        + 1_184 * (20.45e-12 / 32 + 8 * 0.054e-12 + 1.088889e-12 + 0.5 * 20.74e-12 / 32)
    )
    assert priced.energy_j[0] == pytest.approx(by_hand, rel=1e-6)


def test_rows_written_one_after_the_other_take_50_88_ns_each(costs):
    row = op_rows(op.WRITE_WEIGHTS, chip=0, write_pulses=1000, serial_row_pulses=64)
    priced = price(row, costs)
    assert priced.duration_s[0] == pytest.approx(64 * 50.88e-9)
    assert priced.energy_j[0] == pytest.approx(1000 * 3.91e-9 / 128, rel=1e-6)


def test_settlings_take_their_time_and_their_conversions(costs):
    row = op_rows(op.SOLVE_A, chip=0, inv_ops=3, serial_inv_ops=3, serial_settling_s=3 * 120e-9)
    # 128 outputs through 8 ADCs of 1.2 GS/s.
    each = 120e-9 + 128 / 8 / 1.2e9
    assert price(row, costs).duration_s[0] == pytest.approx(3 * each, rel=1e-6)


def test_amplifiers_consume_their_power_as_long_as_they_settle(costs):
    # 130 amplifiers and inverters of 100 uW for 3 settlings.
    row = op_rows(op.SOLVE_A, chip=0, amplifier_s=3 * 130 * 120e-9)
    assert price(row, costs).energy_j[0] == pytest.approx(3 * 130 * 120e-9 * 100e-6, rel=1e-6)


def watts(components, **asked):
    """Return the power of an amplifier of which so much is asked."""
    chip = preset(ChipSpec, "chip", "small")
    return unit_costs(chip, components, OpAmpSpec(**asked)).parts["amplifier"].energy_j


def test_amplifiers_take_the_current_that_bandwidth_or_slew_rate_needs(components):
    # 0.37 pF at 370 MHz pF/mA (Sansen) and 659 V/us pF/mA (Assaad and Silva-Martinez), 1 V.
    assert watts(components, gbw_hz=100e6) == pytest.approx(100e-6)
    assert watts(components, gbw_hz=1e9) == pytest.approx(1e-3)
    slow = watts(components, gbw_hz=100e6, swing_v=0.5, slew_v_per_s=60e6)
    assert slow == watts(components, gbw_hz=100e6)
    fast = watts(components, gbw_hz=100e6, swing_v=0.5, slew_v_per_s=600e6)
    assert fast == pytest.approx(600 * 0.37 / 659 * 1e-3)
    # Outputs of 1 V to either side need 2 V.
    assert watts(components, gbw_hz=100e6, swing_v=1.0) == pytest.approx(200e-6)
    assert watts(components) == 0.0


def test_the_measured_amplifier_takes_its_measured_current(components):
    """Assaad and Silva-Martinez, JSSC 2009: 134.2 MHz, 94.1 V/us, 5.6 pF, 0.8 mA, 1.8 V."""
    data = to_dict(components)
    for name, value in (
        ("supply_v", 1.8),
        ("load_f", 5.6e-12),
        ("gbw_per_current", 134.2e6 * 5.6e-12 / 0.8e-3),
    ):
        data["amplifier"][name]["value"] = value
    measured = load(ComponentTable, data)
    assert watts(measured, gbw_hz=134.2e6) == pytest.approx(1.44e-3, rel=1e-9)
    slewing = watts(measured, gbw_hz=1.0, swing_v=0.5, slew_v_per_s=94.1e6)
    assert slewing == pytest.approx(1.44e-3, rel=1e-3)


def test_faster_amplifiers_settle_sooner_for_the_same_energy_at_more_power(components):
    """What is read after 12 / GBW takes a tenth of the time, and ten times the power."""
    chip = preset(ChipSpec, "chip", "small")

    def settled(gbw_hz):
        opamp = OpAmpSpec(gbw_hz=gbw_hz)
        seconds = opamp.seconds(12.0)
        row = op_rows(op.SOLVE_A, chip=0, serial_settling_s=seconds, amplifier_s=2 * 128 * seconds)
        priced = price(row, unit_costs(chip, components, opamp))
        return priced.duration_s[0], priced.energy_j[0]

    (slow_s, slow_j), (fast_s, fast_j) = settled(1e8), settled(1e9)
    assert slow_s == pytest.approx(10 * fast_s) == pytest.approx(120e-9)
    assert slow_j == pytest.approx(fast_j) == pytest.approx(2 * 128 * 120e-9 * 100e-6)


def test_the_peak_power_of_a_chip_grows_with_the_bandwidth_of_its_amplifiers(components):
    """An amplifier and an inverter for each row of every inverting array, of 1 uW per megahertz."""
    chip, network = (
        preset(ChipSpec, "chip", "repast"),
        preset(InterconnectSpec, "interconnect", "board"),
    )
    slow, fast = (
        Hardware(chip, DeviceSpec(opamp=OpAmpSpec(gbw_hz=gbw_hz)), components, network)
        for gbw_hz in (1e8, 1e9)
    )
    amplifiers = 2 * chip.inv_arrays * chip.inv.size
    assert fast.peak_power_w - slow.peak_power_w == pytest.approx(amplifiers * 0.9e-3)


def test_no_current_per_bandwidth_is_refused(components):
    data = to_dict(components)
    data["amplifier"]["gbw_per_current"]["value"] = 0.0
    with pytest.raises(SettingsError, match=r"components\.amplifier.*gbw_per_current.*above 0"):
        load(ComponentTable, data, "components")


def test_a_starved_bus_decides_the_duration(costs):
    row = op_rows(op.VMM_FORWARD, chip=0, serial_passes=1, serial_buffer_words=1200)
    assert price(row, costs).duration_s[0] == pytest.approx(1e-6, rel=1e-6)


def test_time_on_the_link_comes_on_top(costs):
    row = op_rows(op.REDUCE_GRADIENTS, chip=0, link_s=2e-6, link_j=3e-6)
    priced = price(row, costs)
    assert priced.duration_s[0] == pytest.approx(2e-6)
    assert priced.energy_j[0] == pytest.approx(3e-6)


def test_unknown_library_component_is_named(components, small):
    data = to_dict(components)
    data["adc"]["energy_j"]["library"] = "hwcomponents_library.NoSuchADC"
    with pytest.raises(SettingsError, match=r"components\.adc\.energy_j.*NoSuchADC"):
        unit_costs(small, load(ComponentTable, data), FAST)


def test_a_figure_without_source_is_refused(components):
    data = to_dict(components)
    data["cell"]["time_s"]["source"] = ""
    with pytest.raises(SettingsError, match=r"components\.cell\.time_s.*source is empty"):
        load(ComponentTable, data, "components")


def test_a_divisor_beside_a_value_is_refused(components):
    data = to_dict(components)
    data["link"]["energy_j"]["per"] = 2.0
    with pytest.raises(SettingsError, match=r"components\.link\.energy_j.*per=2\.0.*valid.*1"):
        load(ComponentTable, data, "components")


def test_every_component_of_a_table_is_a_part_of_the_chip():
    kinds = (Component, Amplifier)
    components = [f.name for f in dataclasses.fields(ComponentTable) if f.type in kinds]
    assert [part.name for part in PARTS] == components


def test_a_router_that_every_byte_crosses_twice_is_crossed_four_times_as_often(components, small):
    data = to_dict(components)
    data["router_crossings"]["value"] = 2.0
    one, four = (
        component_energy(unit_costs(small, table, FAST))["buffer_bytes"]
        for table in (components, load(ComponentTable, data))
    )
    assert four.pop("router") == pytest.approx(4 * one.pop("router"))
    assert four == one


def test_a_column_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="not in the op table"):
        op_rows(op.UPDATE, chip=0, flops=3)

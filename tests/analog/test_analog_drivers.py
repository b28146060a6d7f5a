"""DACs of multiplying arrays that are not ideal, against arithmetic on their levels."""

import numpy as np
import pytest

from repast_dist.analog import AdcSpec, DacSpec, DeviceSpec, VmmSpec, program_vmm
from repast_dist.analog.arrays.curve import CurveSpec
from repast_dist.analog.arrays.drivers import driver_gains
from repast_dist.analog.cells.ideal import Ideal
from repast_dist.analog.spice import vmm_circuits
from repast_dist.ground.errors import SettingsError
from repast_dist.ground.rng import When
from repast_dist.settings import load_settings

FINE = AdcSpec(bits=16, range="full")


def spec_of(dac: DacSpec, **settings) -> VmmSpec:
    device = settings.pop("device", DeviceSpec(cell=Ideal(bits=4)))
    fields = {"rows": 32, "columns": 16, "weight_bits": 9, "adc": FINE, **settings}
    return VmmSpec(device=device, dac=dac, **fields)


def levels_of(spec: VmmSpec, rows: int, columns: int = 8) -> np.ndarray:
    """What each row is driven with for every digit, (columns, rows, digits) in full ones, asked one
    row and digit at a time.
    """
    array = program_vmm(np.ones((rows, columns)), spec, 3, "here")
    top = 2**spec.dac.bits - 1
    inputs = np.zeros((rows, top + 1, rows))
    inputs[range(rows), :, range(rows)] = np.arange(top + 1)
    codes = inputs.reshape(-1, rows)
    found = array.multiply_codes(codes).values / array.integers.max()
    return np.moveaxis(found.reshape(rows, top + 1, columns), 2, 0)


def test_one_bit_has_a_gain_of_every_row_of_every_array():
    spec = spec_of(DacSpec(gain_error=0.05), adc=AdcSpec(bits=16, range="full"))
    levels = levels_of(spec, 64)
    assert (levels[..., 0] == 0.0).all()
    # 4 weights of 2 slices fill an array: two arrays side by side.
    gains = levels[..., 1].reshape(2, 4, 64)
    np.testing.assert_allclose(gains, gains[:, :1].repeat(4, axis=1), atol=2e-3)
    assert np.std(gains[:, 0]) == pytest.approx(0.05, rel=0.2)
    assert abs(np.corrcoef(gains[:, 0])[0, 1]) < 0.4
    assert abs(np.mean(gains) - 1.0) < 0.02


def test_products_are_those_of_the_levels_that_rows_are_driven_with():
    random = np.random.default_rng(1)
    weights, inputs = random.standard_normal((50, 6)), random.standard_normal((9, 50))
    spec = spec_of(DacSpec(gain_error=0.05))
    array = program_vmm(weights, spec, 3, "here")
    gains = driver_gains((50, 12), spec, 3, "here")
    by_array = [array.integers[:, first : first + 4] for first in (0, 4)]
    top = 2.0**7 - 1
    integers = np.clip(
        np.rint(inputs / (2.0 ** np.ceil(np.log2(np.abs(inputs).max() / top)))), -top, top
    )
    expected = np.concatenate(
        [(integers * gains[:, place]) @ part for place, part in enumerate(by_array)], axis=1
    )
    found = array.multiply_codes(integers).values
    # Currents are rounded to 16 bits of what 32 rows could carry.
    assert np.abs(found - expected).max() < 2e-3 * np.abs(expected).max()


def test_the_same_dacs_drive_whatever_is_written_to_a_place():
    spec = spec_of(DacSpec(gain_error=0.05))
    first = driver_gains((20, 40), spec, 1, "weights", When(0), "dense", 3)
    np.testing.assert_array_equal(
        first, driver_gains((20, 40), spec, 1, "weights", When(7), "dense", 5)
    )
    np.testing.assert_array_equal(first[:, :2], driver_gains((20, 16), spec, 1, "weights", "dense"))
    assert not (first == driver_gains((20, 40), spec, 1, "weights", "other")).any()


def test_digits_of_several_bits_have_offset_and_nonlinearity_of_their_rows():
    rows, bits = 200, 3
    top = 2**bits - 1
    settings = {"input_bits": bits + 1}
    (levels, *_) = levels_of(spec_of(DacSpec(bits=bits, offset_lsb=0.2), **settings), rows, 1)
    wrong = levels - np.arange(top + 1)
    assert (wrong[:, 0] == 0.0).all()
    np.testing.assert_allclose(wrong[:, 1:], wrong[:, 1:2].repeat(top, axis=1), atol=0.03)
    assert np.std(wrong[:, 1]) == pytest.approx(0.2, rel=0.15)
    (levels, *_) = levels_of(spec_of(DacSpec(bits=bits, inl_lsb=0.2), **settings), rows, 1)
    wrong = levels[:, 1:] - np.arange(1, top + 1)
    # Second and third Legendre polynomial at these levels, each half of the mean square.
    x = 2.0 * np.arange(1, top + 1) / top - 1.0
    both = 5.0 * ((3 * x**2 - 1) / 2) ** 2 + 7.0 * ((5 * x**3 - 3 * x) / 2) ** 2
    mean_square = 0.2**2 * both / 2.0
    assert np.mean(wrong**2, axis=0) == pytest.approx(mean_square, rel=0.3)


@pytest.mark.parametrize("bits", [1, 2])
def test_noise_is_that_of_rows_whose_levels_fluctuate(bits):
    """Spread of single columns over many products, against every level drawn by itself."""
    random, sigma = np.random.default_rng(2), 0.3
    spec = spec_of(
        DacSpec(bits=bits, noise_lsb=sigma), rows=40, input_bits=2 * bits + 1, weight_bits=5
    )
    weights = np.where(random.random((40, 30)) < 0.5, -1.0, 1.0)
    array = program_vmm(weights, spec, 3, "here")
    codes = random.integers(-(4**bits) + 1, 4**bits, size=(1, 40)).astype(float)
    found = array.multiply_codes(codes.repeat(4000, axis=0), "call").values
    exact = codes @ array.integers
    digits = np.stack([np.abs(codes) // 2 ** (bits * p) % 2**bits for p in range(2)])
    top = 2**bits - 1
    noise = random.standard_normal((2, 4000, 40)) * sigma * digits / top * np.sign(codes)
    wanted = (noise[0] + 2**bits * noise[1]) @ array.integers
    assert np.std(found - exact, axis=0) == pytest.approx(np.std(wanted, axis=0), rel=0.08)
    assert np.abs(np.mean(found - exact, axis=0)).max() < 5 * np.std(wanted) / 4000**0.5
    again = array.multiply_codes(codes, "call").values
    np.testing.assert_array_equal(again, found[:1])


def test_currents_of_a_netlist_are_those_of_what_pairs_appear_to_hold():
    curve = CurveSpec(v0_volts=0.25, read_volts=0.2)
    device = DeviceSpec(cell=Ideal(bits=4, g_off_siemens=1e-6, g_on_siemens=41e-6), curve=curve)
    spec = spec_of(DacSpec(gain_error=0.05), device=device)
    random = np.random.default_rng(4)
    weights, signs = random.standard_normal((40, 7)), np.sign(random.standard_normal(40))
    held = program_vmm(weights, spec, 3, "here").planes
    circuits = vmm_circuits(weights, signs, spec, curve.read_volts, 3, "here")
    currents = np.zeros(2 * 7 * spec.slices)
    for circuit in circuits:
        first = int(circuit.name.rpartition("column")[2])
        currents[first : first + len(circuit.calculated)] += circuit.calculated
    full = curve.v0_volts * np.sinh(curve.read_volts / curve.v0_volts)
    levels = (currents[::2] - currents[1::2]) / (full * 40e-6 / 15)
    expected = np.einsum("k,ksm->ms", signs, held).ravel()
    np.testing.assert_allclose(levels, expected, atol=40 * 15 * 2**-14)


@pytest.mark.parametrize("name", ["offset_lsb", "inl_lsb"])
def test_one_level_has_neither_offset_nor_nonlinearity(name):
    with pytest.raises(SettingsError, match=rf"chip\.dac: .*{name}=0.1: .*gain_error"):
        load_settings([f"chip.dac.{name}=0.1"])
    load_settings([f"chip.dac.{name}=0.1", "chip.dac.bits=2"])

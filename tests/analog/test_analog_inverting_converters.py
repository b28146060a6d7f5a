"""Converters of inverting arrays that are not ideal, against arithmetic on what they convert."""

import dataclasses

import numpy as np
import pytest

import repast_dist as rd
from repast_dist.analog import DeviceSpec, InvSpec, OpAmpSpec, Reram, program_inv
from repast_dist.analog.arrays.converters import InvConverters, RowConverters
from repast_dist.analog.arrays.fused import program_fused
from repast_dist.analog.specs import ConverterErrors
from repast_dist.ground.errors import SettingsError
from repast_dist.ground.rng import When

SOME = ConverterErrors(offset_lsb=0.5, gain_error=0.01, inl_lsb=0.4)


def _spec(swing_v=None, **converters):
    opamp = OpAmpSpec(gain=1e4, gbw_hz=1e8, swing_v=swing_v)
    return InvSpec(device=DeviceSpec(inv_cell=Reram(bits=8), opamp=opamp), **converters)


def _problem(n=12, columns=50):
    random = np.random.default_rng(3)
    root = random.normal(size=(n, 3 * n))
    return root @ root.T / (3 * n) + 0.3 * np.eye(n), random.normal(size=(n, columns))


def _codes(values, bits):
    """Codes of columns, and their steps."""
    step = np.abs(values).max(axis=0) / (2 ** (bits - 1) - 1)
    return np.rint(values / step), step


def _answered(converters, codes):
    c = converters.polynomial[:, :, None]
    return c[0] + c[1] * codes + c[2] * codes**2 + c[3] * codes**3


def test_inputs_are_driven_with_what_dacs_make_of_their_codes():
    matrix, right = _problem()
    spec = _spec(dac=SOME, adc_bits=24)
    array = program_inv(matrix, spec, 1, "a")
    codes, step = _codes(right, 8)
    driven = _answered(array.circuit.converters.dac, codes) * step
    ideal = program_inv(matrix, _spec(dac_bits=24, adc_bits=24), 1, "a")
    expected = ideal.read(driven).outputs
    scale = np.abs(expected).max()
    np.testing.assert_allclose(array.read(right).outputs, expected, rtol=0, atol=1e-5 * scale)
    assert np.abs(ideal.read(codes * step).outputs - expected).max() > 1e-3 * scale


def test_outputs_are_read_as_adcs_answer_to_their_codes():
    matrix, right = _problem()
    array = program_inv(matrix, _spec(adc=SOME, dac_bits=24), 1, "a")
    exact = program_inv(matrix, _spec(dac_bits=24, adc_bits=24), 1, "a").read(right).outputs
    _, step = _codes(exact, 8)
    answered = _answered(array.circuit.converters.adc, exact / step)
    got = array.read(right).outputs / step
    # What lies in the middle between two codes may get either.
    clear = np.abs(answered - np.floor(answered) - 0.5) > 0.01
    expected = np.clip(np.rint(answered), -127, 127)
    np.testing.assert_allclose(got[clear], expected[clear], rtol=0, atol=1e-3)
    assert clear.mean() > 0.9
    assert (np.rint(exact / step) != expected).mean() > 0.1


@pytest.mark.parametrize("kind", ["dac", "adc"])
def test_noise_has_the_size_asked_for_and_its_address_is_the_input(kind):
    matrix, right = _problem(columns=400)
    wide = {"dac_bits": 16, "adc_bits": 16}
    noisy = _spec(**wide, **{kind: ConverterErrors(noise_lsb=64.0)})
    array, ideal = (program_inv(matrix, spec, 1, "a") for spec in (noisy, _spec(**wide)))
    read, exact = array.read(right).outputs, ideal.read(right).outputs
    converted = right if kind == "dac" else exact
    step = np.abs(converted).max(axis=0) / (2**15 - 1)
    error = (matrix @ (read - exact) if kind == "dac" else read - exact) / step
    assert error.std() == pytest.approx(64.0, rel=0.04)
    np.testing.assert_array_equal(array.read(right[:, 5:9]).outputs, read[:, 5:9])
    other = program_inv(matrix, noisy, 2, "a").read(right).outputs
    assert not (other == read).all()


def test_outputs_share_converters_in_equal_runs_and_keep_them():
    spec = _spec(adc=SOME, dac=SOME, adcs_per_array=4)
    first, again, elsewhere = (
        InvConverters.of(16, spec, 1, *address)
        for address in ((When(0), "block"), (When(1), "block"), (When(0), "other"))
    )
    runs = first.adc.polynomial.reshape(4, 4, 4)
    assert (runs == runs[:, :, :1]).all()
    assert len(np.unique(first.adc.polynomial[0])) == 4
    assert len(np.unique(first.dac.polynomial[0])) == 16
    np.testing.assert_array_equal(first.adc.polynomial, again.adc.polynomial)
    assert not (first.dac.polynomial == elsewhere.dac.polynomial)[0].any()
    assert first.adc.key != again.adc.key


def test_ideal_converters_are_none_at_all():
    assert InvConverters.of(16, _spec(), 1, "a") is None
    assert RowConverters.of(ConverterErrors(), 8, np.arange(4), 1, "a") is None


@pytest.mark.parametrize("swing_v", [None, 0.5])
def test_no_input_has_no_answer(swing_v):
    matrix, right = _problem()
    right[:, 3] = 0.0
    spec = _spec(swing_v, adc=SOME, dac=SOME)
    read = program_inv(matrix, spec, 1, "a").read(right).outputs
    assert not read[:, 3].any()
    assert read[:, 2].all()


@pytest.mark.parametrize("swing_v", [None, 0.5])
def test_all_kinds_of_arrays_have_them(swing_v):
    matrix, right = _problem()
    ideal, off = _spec(swing_v), _spec(swing_v, adc=SOME, dac=SOME)
    rows = np.random.default_rng(1).normal(size=(12, 5))
    for programmed in (
        lambda spec: program_inv(matrix, spec, 1, "a"),
        lambda spec: program_inv(matrix, dataclasses.replace(spec, size=7), 1, "a"),
        lambda spec: program_fused(rows, np.ones(12), spec, 1, "a"),
    ):
        exact, read = (programmed(spec).read(right).outputs for spec in (ideal, off))
        error = np.linalg.norm(read - exact) / np.linalg.norm(exact)
        assert 1e-3 < error < 0.2


@pytest.mark.parametrize("converter", ["dac_bits", "adc_bits"])
def test_a_sign_alone_is_no_code(converter):
    with pytest.raises(SettingsError, match=f"chip.inv.{converter}.* 2, got 1"):
        rd.load_hardware(chip="small", **{f"chip.inv.{converter}": 1})
    with pytest.raises(ValueError, match=converter):
        InvSpec(**{converter: 1})

"""ADCs that are not ideal, and how the range of later conversions is found."""

import dataclasses

import numpy as np
import pytest

from repast_dist.analog import AdcSpec, DeviceSpec, Reram, VmmSpec, program_vmm
from repast_dist.analog.arrays.converters import (
    BINS,
    converter_errors,
    effective_bits,
    least_that_counts,
    needed_ranges,
)
from repast_dist.analog.kernels.conversion import convert_and_add


def _converted(values: np.ndarray, adc: AdcSpec, errors: np.ndarray) -> np.ndarray:
    """Codes of currents (N,) in a range of 1, all through one converter."""
    result = np.zeros((len(values), 1))
    top = 2.0 ** (adc.bits - 1) - 1
    convert_and_add(
        values.astype(np.float32).reshape(-1, 1, 1, 1, 1),
        result,
        0,
        np.empty(1),
        1,
        1,
        0.0,
        1.0,
        np.ones(1, np.float32),
        top,
        np.ones(1),
        np.zeros((len(values) if adc.noise_lsb else 0, 1), np.float32),
        adc.noise_lsb,
        np.full(1, 7, np.uint64),
        0,
        len(values),
        errors,
        np.zeros(0, np.bool_),
        np.zeros((1, 1, BINS + 1), np.int64),
        0,
    )
    return result[:, 0] * top


def _bits_of_a_sine(adc: AdcSpec, errors: np.ndarray) -> float:
    """Effective bits from a fitted sine of known frequency (IEEE Std 1241, three parameters)."""
    count, cycles = 2**14, 1021
    phase = 2 * np.pi * cycles * np.arange(count) / count
    codes = _converted(np.sin(phase), adc, errors)
    basis = np.stack([np.sin(phase), np.cos(phase), np.ones(count)], axis=1)
    # Over whole cycles its three parts are orthogonal.
    residual = codes - basis @ (basis.T @ codes / (basis**2).sum(axis=0))
    # Full scale over the quantisation noise of an ideal converter that errs as much.
    full_scale = 2.0 * (2 ** (adc.bits - 1) - 1)
    return float(np.log2(full_scale / (np.sqrt(12) * np.sqrt(np.mean(residual**2)))))


@pytest.mark.parametrize(
    "errors",
    [
        {},
        {"noise_lsb": 0.5},
        pytest.param({"inl_lsb": 0.4}, marks=pytest.mark.slow),
        pytest.param({"inl_lsb": 0.4, "noise_lsb": 0.8}, marks=pytest.mark.slow),
    ],
    ids=["ideal", "noise", "nonlinearity", "both"],
)
@pytest.mark.parametrize(
    "bits", [pytest.param(8, marks=pytest.mark.slow), 10, pytest.param(12, marks=pytest.mark.slow)]
)
def test_effective_bits_are_those_of_a_sine_test(bits, errors):
    adc = AdcSpec(bits=bits, **errors)
    spec = VmmSpec(adc=adc, columns=2, adcs_per_array=1)
    # 64 converters: one pair of columns in each array.
    all_of_them = converter_errors(spec, (0, 32), 0, 3, "here").reshape(4, 64, order="C")
    measured = []
    for number in range(64 if adc.inl_lsb else 1):
        one = all_of_them[:, number].reshape(4, 1, 1)
        measured.append(_bits_of_a_sine(adc, one if adc.distorts else np.zeros((0, 0, 0), "f4")))
    # Noise powers have a mean, not bits.
    mean = -0.5 * np.log2(np.mean(4.0 ** -np.array(measured)))
    assert mean == pytest.approx(effective_bits(adc), abs=0.05)


def test_nonlinearity_has_the_size_asked_for_and_no_offset_or_gain():
    adc = AdcSpec(bits=8, inl_lsb=0.6)
    spec = VmmSpec(adc=adc, columns=2)
    codes = np.linspace(-127, 127, 20001)
    for c in converter_errors(spec, (0, 5), 0, 1).reshape(4, -1).T.astype(np.float64):
        error = np.polynomial.polynomial.polyval(codes, c) - codes
        assert np.sqrt(np.mean(error**2)) == pytest.approx(0.6, rel=1e-3)
        slope, offset = np.polyfit(codes, error, 1)
        assert abs(offset) < 1e-3
        assert abs(slope * 127) < 1e-3


@pytest.mark.parametrize("adcs", [1, 2, 8])
def test_columns_of_one_converter_share_its_errors(adcs):
    spec = VmmSpec(
        device=DeviceSpec(cell=Reram(bits=4)),
        adc=AdcSpec(offset_lsb=1.0, gain_error=0.1),
        columns=32,
        adcs_per_array=adcs,
    )
    # 16 pairs in an array: 8 weights of 2 slices, and 8 * adcs converters for 64 weights.
    errors = converter_errors(spec, (0, 64), 0, 1, "layer")
    in_physical_order = errors.transpose(2, 1, 0).reshape(-1, 4)
    groups = in_physical_order.reshape(8 * adcs, 16 // adcs, 4)
    assert (groups == groups[:, :1]).all()
    assert len(np.unique(groups[:, 0, 0])) == 8 * adcs
    # Other tiles and other places have others; some of the columns have their own.
    assert not (converter_errors(spec, (0, 64), 1, 1, "layer") == errors)[:2].any()
    np.testing.assert_array_equal(
        converter_errors(spec, (13, 40), 0, 1, "layer"), errors[:, :, 13:40]
    )


def test_some_columns_of_an_array_are_read_through_their_own_converters():
    random = np.random.default_rng(1)
    weights, inputs = random.standard_normal((20, 9)), random.standard_normal((6, 20))
    adc = AdcSpec(range="full", offset_lsb=0.5, gain_error=0.05, inl_lsb=0.5)
    array = program_vmm(weights, VmmSpec(adc=adc, columns=8, rows=16), 1, "w")
    whole, some = array.multiply(inputs).values, array.columns(2, 7).multiply(inputs).values
    np.testing.assert_array_equal(some, whole[:, 2:7])


def test_offsets_and_gains_change_products_as_arithmetic_says():
    """One row, one column, one pass: codes by hand."""
    adc = AdcSpec(bits=8, range="full", offset_lsb=2.0, gain_error=0.05)
    cell = Reram(bits=7)
    spec = VmmSpec(device=DeviceSpec(cell=cell), adc=adc, input_bits=2, rows=1)
    array = program_vmm(np.ones((1, 1)), spec, 4, "one")
    offset, gain, *_ = converter_errors(spec, (0, 1), 0, 4, "one")[:, 0, 0]
    full = 127.0  # of 127 levels: the code of a driven cell is 127
    got = array.multiply(np.array([[1.0], [0.0]])).values[:, 0]
    expected = np.clip(np.rint([offset + full * gain, offset]), -127, 127) / 127
    assert got == pytest.approx(expected)


def test_what_nulling_leaves_of_offsets_takes_their_place():
    raw = AdcSpec(offset_lsb=0.25, gain_error=0.01, inl_lsb=0.1)
    nulled = dataclasses.replace(raw, nulling_passes=1, nulled_offset_lsb=0.05)
    drawn = [converter_errors(VmmSpec(adc=adc), (0, 3000), 0, 3) for adc in (raw, nulled)]
    # Of the second Legendre polynomial, which has a constant of its own, a third of the square.
    offsets = [errors[0] + errors[2] * 127**2 / 3.0 for errors in drawn]
    np.testing.assert_allclose(offsets[1], offsets[0] / 5.0, atol=1e-6)
    assert np.std(np.unique(offsets[1])) == pytest.approx(0.05, rel=0.3)
    np.testing.assert_array_equal(drawn[0][1:], drawn[1][1:])
    assert not AdcSpec(offset_lsb=0.25, nulling_passes=1).distorts
    with pytest.raises(ValueError, match=r"nulled_offset_lsb=0.1.*valid"):
        AdcSpec(offset_lsb=0.25, nulled_offset_lsb=0.1)


def test_noise_of_conversions_has_the_size_asked_for_and_depends_on_the_address():
    adc = AdcSpec(bits=12, range="full", noise_lsb=30.0)
    spec = VmmSpec(device=DeviceSpec(cell=Reram(bits=7)), adc=adc, input_bits=2, rows=1)
    array = program_vmm(np.ones((1, 8)), spec, 4, "one")
    quiet = program_vmm(
        np.ones((1, 8)), dataclasses.replace(spec, adc=AdcSpec(bits=12, range="full"))
    )
    x = np.full((4000, 1), 0.5)
    noise = (array.multiply(x, "call").values - quiet.multiply(x).values) / (0.5 / 2047)
    # What is above the range is cut off, so that the lower half tells the spread.
    assert np.std(np.concatenate([noise[noise < 0], -noise[noise < 0]])) == pytest.approx(
        30, rel=0.05
    )
    again = array.multiply(x[:100], "call").values
    np.testing.assert_array_equal(again, array.multiply(x, "call").values[:100])
    assert not np.array_equal(again, array.multiply(x[:100], "other call").values)


def _counts(values: np.ndarray, reach: float) -> np.ndarray:
    codes = np.rint(np.abs(values) / reach * 127)
    edges = np.concatenate([[-0.5], np.arange(1, BINS + 1) / BINS * 127, [np.inf]])
    return np.histogram(codes, edges)[0][None].astype(np.int64)


@pytest.mark.parametrize("start", [0.3, 0.7, 1.0, 3.0, 30.0])
@pytest.mark.parametrize("kind", ["normal", "laplace", "uniform"])
def test_ranges_reach_the_percentile_within_a_few_steps_and_stay(kind, start):
    random, percentile = np.random.default_rng(0), 99.9
    plain = AdcSpec(percentile=percentile, margin=0.0, narrowing=0.5)
    draw = {
        "normal": lambda: random.normal(size=50_000),
        "laplace": lambda: random.laplace(size=50_000),
        "uniform": lambda: random.uniform(-1, 1, size=50_000),
    }[kind]
    wanted = 10.0 * np.percentile(np.abs(draw()), percentile)
    ranges = np.array([start * wanted], np.float32)
    seen = []
    for step in range(14):
        values = 10.0 * draw()
        if step >= 6:
            seen.append(float(ranges[0]))
            assert np.mean(np.abs(values) > ranges[0] * (1 + 0.5 / 127)) < 4 * 0.001
        ranges = needed_ranges(_counts(values, float(ranges[0])), ranges, plain)
    assert np.mean(seen) == pytest.approx(wanted, rel=0.12)


def test_ranges_double_at_most_narrow_as_they_may_and_never_fall_below_a_level():
    ranges = np.array([8.0, 8.0, 1.0], np.float32)
    silent, loud = np.eye(1, BINS + 1, 0), np.eye(1, BINS + 1, BINS)
    counts = (1000 * np.concatenate([silent, loud, silent])).astype(np.int64)
    for narrowing, narrowest in ((0.5, 4.0), (0.25, 6.0)):
        adc = AdcSpec(margin=0.0, narrowing=narrowing)
        assert needed_ranges(counts, ranges, adc).tolist() == [narrowest, 16.0, 1.0]


def test_a_margin_widens_ranges_that_steps_and_calls_set():
    random = np.random.default_rng(8)
    values = np.abs(random.standard_normal((32, 400))) * 10.0
    counts, ranges = _counts(values, 36.0), np.array([36.0], np.float32)
    plain, wider = (
        needed_ranges(counts, ranges, AdcSpec(percentile=99.0, margin=margin, narrowing=0.5))
        for margin in (0.0, 0.25)
    )
    assert wider == pytest.approx(1.25 * plain)
    weights, inputs = random.standard_normal((20, 9)), random.standard_normal((6, 20))
    called = [
        program_vmm(weights, VmmSpec(adc=AdcSpec(margin=margin)), 1, "w").multiply(inputs).needed
        for margin in (0.0, 0.25)
    ]
    assert called[1] == pytest.approx(1.25 * called[0])


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("percentile", [99.0, 99.99])
@pytest.mark.parametrize(
    ("margin", "narrowing"), [(0.0, 0.5), (0.0625, 0.125), (1.5, 0.5), (0.5, 0.25)]
)
def test_small_codes_need_not_be_told_apart_to_find_a_range(bits, percentile, margin, narrowing):
    adc = AdcSpec(bits=bits, percentile=percentile, margin=margin, narrowing=narrowing)
    top, random = 2 ** (bits - 1) - 1, np.random.default_rng(bits)
    least = least_that_counts(adc)
    assert 0 < least <= top / 2
    ranges = np.array([50.0], np.float32)
    for spread in np.geomspace(0.01, 3.0, 40):
        codes = np.rint(np.abs(random.standard_normal(4000)) * spread * top).astype(int)
        kept = np.where(codes > least, codes, 0)
        whole, part = (
            np.bincount(
                np.where(c > top, BINS, np.maximum((c * BINS - 1) // top, 0)), minlength=BINS + 1
            )[None]
            for c in (codes, kept)
        )
        np.testing.assert_array_equal(
            needed_ranges(whole, ranges, adc), needed_ranges(part, ranges, adc)
        )

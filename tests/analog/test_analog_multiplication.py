"""Products on crossbars against exact integers, NumPy and statistics."""

import numpy as np
import pytest
import scipy
from hypothesis import given, settings
from hypothesis import strategies as st

from repast_dist.analog import AdcSpec, DacSpec, DeviceSpec, Reram, VmmSpec, program_vmm
from repast_dist.analog.arrays.ranges import _high_percentile
from repast_dist.analog.arrays.vmm import ClippingWarning
from repast_dist.ground.errors import DataError


def _spec(range_="lossless", **cell):
    return VmmSpec(adc=AdcSpec(range=range_), device=DeviceSpec(cell=Reram(**cell)))


def _step(largest, bits):
    """Smallest power of two of which `largest` is no more than the largest whole number."""
    step = 1.0
    while largest > step * (2 ** (bits - 1) - 1):
        step *= 2.0
    while largest <= step / 2.0 * (2 ** (bits - 1) - 1):
        step /= 2.0
    return step


def _integers(values, bits, shared_exponent=False):
    """Fixed-point rounding with Python integers, one number at a time."""
    largest = max(abs(float(v)) for v in values.ravel())
    scale = largest / (2 ** (bits - 1) - 1)
    if shared_exponent:
        scale = _step(largest, bits)
    return [[round(float(v) / scale) for v in row] for row in values], scale


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    rows=st.integers(1, 6),
    inner=st.integers(1, 40),
    columns=st.integers(1, 6),
    weight_bits=st.integers(2, 12),
    input_bits=st.integers(2, 12),
)
def test_lossless_products_equal_exact_integer_arithmetic(
    seed, rows, inner, columns, weight_bits, input_bits
):
    random = np.random.default_rng(seed)
    x, w = random.normal(size=(rows, inner)), random.normal(size=(inner, columns))
    spec = VmmSpec(
        adc=AdcSpec(range="lossless"), weight_bits=weight_bits, input_bits=input_bits, rows=16
    )
    xi, x_scale = _integers(x, input_bits, shared_exponent=True)
    wi, w_scale = _integers(w, weight_bits)
    exact = [
        [sum(a * b for a, b in zip(row, column, strict=True)) for column in zip(*wi, strict=True)]
        for row in xi
    ]
    ours = program_vmm(w, spec).multiply(x).values
    np.testing.assert_array_equal(np.rint(ours / (x_scale * w_scale)), exact)


@pytest.mark.parametrize("cell_bits", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("dac_bits", [1, 2, 4])
def test_slicing_and_bit_serial_passes_lose_nothing_when_the_adc_does_not(cell_bits, dac_bits):
    random = np.random.default_rng(1)
    x, w = random.normal(size=(5, 70)), random.normal(size=(70, 9))
    # Drift over no time makes the cells ideal but a read error too small to matter does not:
    # the product then takes the sliced path.
    sliced = VmmSpec(
        device=DeviceSpec(cell=Reram(bits=cell_bits, programming_sigma=1e-9)),
        dac=DacSpec(bits=dac_bits),
        adc=AdcSpec(range="lossless"),
        rows=32,
    )
    exact = VmmSpec(adc=AdcSpec(range="lossless"))
    np.testing.assert_allclose(
        program_vmm(w, sliced, 1).multiply(x).values,
        program_vmm(w, exact).multiply(x).values,
        rtol=1e-12,
    )


def test_a_calibrated_adc_is_far_better_than_one_that_spans_everything():
    random = np.random.default_rng(2)
    x, w = random.uniform(-1, 1, size=(256, 256)), random.normal(size=(256, 256))
    # Inputs that the step, a power of two, leaves all of their 8 bits.
    x *= 127 / 128
    exact = x @ w

    def error(range_):
        product = program_vmm(w, _spec(range_)).multiply(x).values
        return np.linalg.norm(product - exact) / np.linalg.norm(exact)

    # Published simulators at this design point: 1.3-1.5 % calibrated, 33-37 % full range.
    assert error("calibrated") < 0.015
    assert 0.30 < error("full") < 0.40


def test_programming_errors_have_the_size_asked_for():
    sigma, levels = 0.02, 16
    held = program_vmm(
        np.zeros((400, 50)),
        _spec("full", programming_sigma=sigma, clip=False, g_off_siemens=20e-6),
        7,
        "w",
    ).planes
    # A pair holds the difference of two cells: sqrt(2) sigma of the range, in levels.
    draws = held.ravel() / (np.sqrt(2) * sigma * (levels - 1))
    assert scipy.stats.kstest(draws, "norm").pvalue > 0.001


def test_stuck_cells_appear_at_their_rates():
    planes = program_vmm(
        np.zeros((300, 300)), _spec("full", stuck_on_rate=0.03, stuck_off_rate=0.0), 3, "w"
    ).planes
    one_stuck = np.mean(np.abs(planes) == 15)
    assert one_stuck == pytest.approx(2 * 0.03 * 0.97, rel=0.05)


def test_drift_shrinks_products_by_its_power_law():
    random = np.random.default_rng(4)
    x, w = random.normal(size=(8, 64)), random.normal(size=(64, 8))
    cell = {"drift_exponent": 0.05, "drift_start_s": 1.0}
    fresh = program_vmm(w, _spec("lossless")).multiply(x).values
    spec = VmmSpec(
        adc=AdcSpec(bits=16, range="calibrated", percentile=100.0),
        device=DeviceSpec(cell=Reram(**cell), age_s=1e4),
    )
    drifted = program_vmm(w, spec, 1).multiply(x).values
    np.testing.assert_allclose(drifted, fresh * 1e4**-0.05, atol=2e-3 * np.abs(fresh).max())


def test_read_noise_equals_noise_drawn_for_every_cell():
    """Output-referred noise against per-cell draws: same distribution (Kolmogorov-Smirnov)."""
    random = np.random.default_rng(5)
    sigma, levels, rows = 0.05, 16, 60
    w = np.ones((rows, 3))
    x = np.ones((4000, rows))
    spec = VmmSpec(
        device=DeviceSpec(cell=Reram(read_sigma=sigma)),
        adc=AdcSpec(bits=16, range="full"),
        weight_bits=2,
        input_bits=2,
    )
    ours = program_vmm(w, spec, 1).multiply(x).values.ravel() - rows
    per_cell = random.normal(0, sigma * (levels - 1), size=(4000, 2, rows)).sum(axis=(1, 2))
    assert scipy.stats.ks_2samp(ours[:4000], per_cell).pvalue > 0.001


def test_the_same_address_holds_the_same_errors_and_another_does_not():
    w = np.random.default_rng(6).normal(size=(30, 20))
    spec = _spec("calibrated", programming_sigma=0.01)
    first, again, other = (program_vmm(w, spec, 1, "weights", step).planes for step in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(bad):
    w = np.ones((3, 2))
    with pytest.raises(DataError, match="finite"):
        program_vmm(np.full((3, 2), bad), _spec())
    with pytest.raises(DataError, match="finite"):
        program_vmm(w, _spec()).multiply(np.full((1, 3), bad))


def test_a_large_layer_is_multiplied_in_bounded_memory():
    import tracemalloc

    random = np.random.default_rng(7)
    w, x = random.normal(size=(512, 512)), random.normal(size=(1024, 512))
    array = program_vmm(w, _spec("calibrated", programming_sigma=0.01), 1)
    tracemalloc.start()
    array.multiply(x)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 25 * x.nbytes


def test_inputs_beyond_the_calibrated_range_warn():
    random = np.random.default_rng(9)
    w, x = random.normal(size=(64, 16)), random.normal(size=(32, 64))
    array = program_vmm(w, _spec("calibrated"))
    array.calibrate(x)
    # Aligned with a column, inputs add up to far more than random ones do.
    with pytest.warns(ClippingWarning, match="beyond"):
        product = array.multiply(np.sign(w).T * 127)
    assert 0.05 < product.clip_rate <= 1.0


@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (7, 3), (40, 50), (300, 20)])
@pytest.mark.parametrize("percentile", [60.0, 99.0, 99.99, 100.0])
def test_calibrated_ranges_are_the_percentile_of_the_currents(shape, percentile):
    values = np.random.default_rng(0).exponential(size=shape)
    expected = np.percentile(values, percentile)
    assert _high_percentile(values, percentile) == pytest.approx(expected, rel=1e-12)


def test_some_columns_of_an_array_hold_what_they_hold_in_the_whole():
    random = np.random.default_rng(1)
    weights, inputs = random.standard_normal((20, 9)), random.standard_normal((6, 20))
    spec = VmmSpec(
        device=DeviceSpec(cell=Reram(programming_sigma=0.01)), adc=AdcSpec(range="lossless")
    )
    array = program_vmm(weights, spec, 3, "some")
    np.testing.assert_allclose(
        array.columns(2, 7).multiply(inputs).values,
        array.multiply(inputs).values[:, 2:7],
        rtol=1e-6,
        atol=1e-6,
    )


def test_ranges_fit_inputs_that_repeat_with_the_step_of_a_regular_sample():
    # A convolution of 8 x 8 images has 64 rows per image, the first of them at the blank edge.
    random = np.random.default_rng(4)
    inputs = random.random((16 * 64, 128))
    inputs[::32] *= 1e-3
    array = program_vmm(random.standard_normal((128, 16)), VmmSpec(), 3)
    product = array.multiply(inputs)
    assert product.clip_rate < 0.005


@pytest.mark.parametrize("count", [5, 32, 33, 100, 3136])
def test_the_rows_that_set_a_range_are_spread_over_a_call_and_differ_from_call_to_call(count):
    from repast_dist.analog.arrays.ranges import some_rows

    found, edges = (
        [some_rows(count, 0, "x", call) for call in range(200)],
        np.arange(33) * count // 32,
    )
    for rows in found:
        assert len(np.unique(rows)) == min(count, 32)
        assert count < 32 or ((rows >= edges[:-1]) & (rows < edges[1:])).all()
    # Over many calls, every row has its turn.
    taken = np.bincount(np.concatenate(found), minlength=count)
    assert count > 1000 or taken.min() > 0


@pytest.mark.parametrize("stack", [(), (2,)])
def test_products_with_nothing_but_zeros_are_zeros_whatever_cells_and_converters_add(stack):
    # A layer that no activation reaches, or whose weights begin as zeros, has no product; the
    # errors of its cells are not worth 1 each, as if the largest number were 32767.
    spec = VmmSpec(
        adc=AdcSpec(noise_lsb=0.5, offset_lsb=0.5),
        dac=DacSpec(noise_lsb=0.2),
        device=DeviceSpec(cell=Reram(programming_sigma=0.02, read_sigma=0.02)),
    )
    random = np.random.default_rng(0)
    x, w = random.normal(size=(*stack, 4, 30)), random.normal(size=(*stack, 30, 3))
    for inputs, weights in ((x, 0 * w), (0 * x, w)):
        values = program_vmm(weights, spec, 1, "w").multiply(inputs, 0).values
        np.testing.assert_array_equal(values, np.zeros((*stack, 4, 3)))
    if stack:
        w[0] = 0.0
        values = program_vmm(w, spec, 1, "w").multiply(x, 0).values
        assert not values[0].any()
        assert values[1].all()

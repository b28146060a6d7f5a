"""Facts about products that hold for any shape, bit width and range."""

import dataclasses
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repast_dist.analog import (
    AdcSpec,
    DacSpec,
    DeviceSpec,
    Reram,
    VmmSpec,
    WireSpec,
    program_vmm,
)
from repast_dist.analog.arrays.wires import transfer_matrix

NEVER_STUCK = 1e-12
"""A rate at which no cell of a test is stuck; cells that could be take the way through slices."""


@st.composite
def products(draw):
    """Weights, inputs and a multiplier of any size and resolution."""
    random = np.random.default_rng(draw(st.integers(0, 2**31)))
    inner = draw(st.integers(1, 70))
    weights = random.normal(size=(inner, draw(st.integers(1, 9))))
    inputs = random.normal(size=(draw(st.integers(1, 9)), inner))
    cell = Reram(bits=draw(st.integers(1, 8)), stuck_on_rate=NEVER_STUCK)
    spec = VmmSpec(
        device=DeviceSpec(cell=cell),
        dac=DacSpec(bits=draw(st.integers(1, 4))),
        adc=AdcSpec(bits=draw(st.integers(4, 12)), range="full"),
        rows=draw(st.integers(1, 80)),
        weight_bits=draw(st.integers(2, 14)),
        input_bits=draw(st.integers(2, 14)),
    )
    return weights, inputs, spec


def _with_range(spec, range_, **adc):
    return dataclasses.replace(spec, adc=dataclasses.replace(spec.adc, range=range_, **adc))


def _step(largest, bits):
    """Smallest power of two of which `largest` is no more than the largest whole number."""
    return 2.0 ** next(e for e in range(-60, 60) if largest <= 2.0**e * (2 ** (bits - 1) - 1))


def _whole(values, bits, shared_exponent=False):
    """Fixed-point numbers as Python integers, and their unit."""
    largest = max(abs(float(v)) for v in values.ravel())
    unit = _step(largest, bits) if shared_exponent else largest / (2 ** (bits - 1) - 1)
    return [[round(float(v) / unit) for v in row] for row in values], unit


def _exact(weights, inputs, spec):
    """The product of the fixed-point numbers in Python integers, and its unit."""
    rows, row_unit = _whole(inputs, spec.input_bits, shared_exponent=True)
    columns, column_unit = _whole(weights.T, spec.weight_bits)
    values = [
        [sum(a * b for a, b in zip(row, column, strict=True)) for column in columns] for row in rows
    ]
    return np.array(values, dtype=object), row_unit * column_unit


@settings(max_examples=80, deadline=None)
@given(products())
def test_slices_and_passes_add_up_to_the_exact_integers(case):
    weights, inputs, spec = case
    exact, unit = _exact(weights, inputs, spec)
    array = program_vmm(weights, _with_range(spec, "lossless"))
    assert array.planes is not None
    ours = np.rint(array.multiply(inputs).values / unit)
    assert ours.astype(int).tolist() == exact.tolist()


@settings(max_examples=80, deadline=None)
@given(products())
def test_an_adc_errs_by_half_a_step_of_every_conversion_at_most(case):
    weights, inputs, spec = case
    exact, unit = _exact(weights, inputs, spec)
    array = program_vmm(weights, spec)
    product = array.multiply(inputs)
    error = np.abs(product.values / unit - exact.astype(float)).max()
    top = (2**spec.dac.bits - 1) * (2**spec.device.cell.bits - 1) * min(spec.rows, len(weights))
    half = top / (2 ** (spec.adc.bits - 1) - 1) / 2
    tiles = -(-len(weights) // spec.rows)
    passes = sum(2.0 ** (spec.dac.bits * p) for p in range(spec.passes))
    slices = sum(2.0 ** (spec.device.cell.bits * s) for s in range(spec.slices))
    assert error <= half * tiles * passes * slices * (1 + 1e-5) + 1e-6 * abs(exact).max()
    assert product.clip_rate == 0


@settings(max_examples=40, deadline=None)
@given(products(), st.integers(-30, 30), st.integers(-30, 30))
def test_powers_of_two_go_through(case, of_weights, of_inputs):
    weights, inputs, spec = case
    spec = _with_range(spec, "calibrated", percentile=99.0)
    plain = program_vmm(weights, spec).multiply(inputs).values
    scaled = program_vmm(weights * 2.0**of_weights, spec).multiply(inputs * 2.0**of_inputs).values
    np.testing.assert_array_equal(scaled, plain * 2.0 ** (of_weights + of_inputs))


@pytest.mark.filterwarnings("ignore::repast_dist.analog.arrays.vmm.ClippingWarning")
@settings(max_examples=40, deadline=None)
@given(products(), st.randoms(use_true_random=False))
def test_with_kept_ranges_rows_do_not_know_of_each_other(case, shuffle):
    weights, inputs, spec = case
    array = program_vmm(weights, _with_range(spec, "calibrated"))
    array.calibrate(inputs)
    order = list(range(len(inputs)))
    shuffle.shuffle(order)
    np.testing.assert_array_equal(
        array.multiply(inputs[order]).values, array.multiply(inputs).values[order]
    )


@settings(max_examples=40, deadline=None)
@given(products())
def test_nothing_clips_in_the_range_of_all_that_was_met(case):
    weights, inputs, spec = case
    array = program_vmm(weights, _with_range(spec, "calibrated", percentile=100.0))
    array.calibrate(inputs)
    assert array.multiply(inputs).clip_rate == 0


@settings(max_examples=40, deadline=None)
@given(products(), st.floats(55.0, 100.0))
def test_a_calibrated_dac_cuts_off_inputs_above_the_step_that_holds_their_percentile(
    case, percentile
):
    weights, inputs, spec = case
    reach = np.percentile(np.abs(inputs), percentile)
    dac = dataclasses.replace(spec.dac, range="calibrated", percentile=percentile)
    spec = dataclasses.replace(_with_range(spec, "lossless"), dac=dac)
    array = program_vmm(weights, spec)
    product = array.multiply(inputs)
    # The same from inputs cut off beforehand, at the largest number of the step that holds them.
    top = _step(reach, spec.input_bits) * (2 ** (spec.input_bits - 1) - 1)
    full = dataclasses.replace(spec, dac=dataclasses.replace(dac, range="full"))
    cut = np.vstack([np.clip(inputs, -top, top), np.full(len(weights), top)])
    expected = program_vmm(weights, full).multiply(cut).values[:-1]
    np.testing.assert_array_equal(product.values, expected)
    unit = _step(reach, spec.input_bits)
    assert product.clipped_inputs == np.sum(np.abs(inputs) > top + unit / 2)


def test_a_kept_dac_range_does_not_follow_the_inputs():
    random = np.random.default_rng(0)
    weights, inputs = random.normal(size=(30, 4)), random.normal(size=(20, 30))
    spec = VmmSpec(dac=DacSpec(range="calibrated", percentile=100.0), adc=AdcSpec(range="lossless"))
    array = program_vmm(weights, spec)
    array.calibrate(inputs)
    small = inputs / 64
    product = array.multiply(small)
    kept, followed = product.values, program_vmm(weights, spec).multiply(small).values
    exact = small @ program_vmm(weights, spec).integers * array.weight_scale
    # One of 64 levels is left of a range kept for inputs 64 times larger.
    assert np.abs(kept - exact).max() > 20 * np.abs(followed - exact).max()
    assert product.clipped_inputs == 0
    assert array.multiply(3 * inputs).clipped_inputs > 0


@pytest.mark.parametrize("range_", ["full", "calibrated", "lossless"])
@pytest.mark.parametrize("shape", [(0, 5, 3), (4, 5, 0), (4, 0, 3)])
def test_nothing_times_something_is_nothing(shape, range_):
    rows, inner, columns = shape
    cell = Reram(stuck_on_rate=NEVER_STUCK)
    spec = VmmSpec(device=DeviceSpec(cell=cell), adc=AdcSpec(range=range_))
    ours = program_vmm(np.ones((inner, columns)), spec).multiply(np.ones((rows, inner))).values
    assert ours.shape == (rows, columns)
    assert not ours.any()


def _kirchhoff(siemens, row_ohm, column_ohm):
    """Column currents per volt on every row, from all node equations at once."""
    rows, columns = siemens.shape
    size = rows * columns
    row, column = 1.0 / row_ohm, 1.0 / column_ohm
    matrix, sources = np.zeros((2 * size, 2 * size)), np.zeros((2 * size, rows))
    for k in range(rows):
        for m in range(columns):
            upper, lower = k * columns + m, size + k * columns + m
            ties = [(upper, lower, siemens[k, m])]
            if m + 1 < columns:
                ties.append((upper, upper + 1, row))
            if k + 1 < rows:
                ties.append((lower, lower + columns, column))
            for one, other, value in ties:
                matrix[[one, other], [one, other]] += value
                matrix[[one, other], [other, one]] -= value
            if m == 0:
                matrix[upper, upper] += row
                sources[upper, k] = row
            if k + 1 == rows:
                matrix[lower, lower] += column
    volts = np.linalg.solve(matrix, sources)
    return column * volts[size + (rows - 1) * columns :].T


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    rows=st.integers(1, 9),
    columns=st.integers(1, 9),
    row_ohm=st.floats(0.1, 1e4),
    column_ohm=st.floats(0.1, 1e4),
)
def test_wires_obey_kirchhoff(seed, rows, columns, row_ohm, column_ohm):
    siemens = np.random.default_rng(seed).uniform(0.0, 1e-3, size=(rows, columns))
    ours = transfer_matrix(siemens, WireSpec(row_ohm=row_ohm, column_ohm=column_ohm))
    solved = _kirchhoff(siemens, row_ohm, column_ohm)
    np.testing.assert_allclose(ours, solved, rtol=0, atol=1e-9 * solved.max())
    # What a row sends cannot exceed what it drives.
    assert ours.min() >= 0
    assert (ours.sum(axis=1) <= siemens.sum(axis=1) * (1 + 1e-9)).all()


@pytest.mark.slow
def test_a_4096_wide_layer_at_batch_4096_takes_twice_its_inputs():
    random = np.random.default_rng(7)
    weights, inputs = random.normal(size=(4096, 4096)), random.normal(size=(4096, 4096))
    # One pass and one slice, for the sake of time: a chunk has fewer rows the more there are.
    device = DeviceSpec(cell=Reram(programming_sigma=0.01))
    spec = VmmSpec(device=device, input_bits=2, weight_bits=5)
    tracemalloc.start()
    array = program_vmm(weights, spec, 1)
    # What cells hold is made ready for the machine's kernels, and those compiled, at first use.
    array.multiply(inputs[:1])
    _, programming = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    array.multiply(inputs)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # The float64 result is one of them.
    assert peak - before < 2 * inputs.nbytes
    # One of them whole numbers in float64.
    assert programming < 3 * weights.nbytes

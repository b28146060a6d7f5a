"""Residual products: what their arrays compute, what they cost, and the bits they give a solve."""

import dataclasses
import hashlib

import numpy as np
import pytest

import repast_dist as rd
from repast_dist.analog import (
    LOSSLESS,
    SCHEMES,
    AdcSpec,
    InvSpec,
    SolveCounts,
    VmmSpec,
    WireSpec,
    prepare,
    program_vmm,
)
from repast_dist.analog.arrays.planes import physical_arrays
from repast_dist.analog.arrays.wires import transfer_matrix
from repast_dist.analog.product import Product, calibration_vectors
from repast_dist.ground.errors import DataError, SettingsError
from repast_dist.hardware.hardware import Hardware
from repast_dist.planning.block_costs import solve_counts
from repast_dist.planning.blocks import SoiBlock
from repast_dist.planning.solves import block_shapes


def _covariance(n: int, seed: int = 0) -> np.ndarray:
    """Return a damped covariance of rectified activations, condition about 100."""
    rows = np.maximum(np.random.default_rng(seed).normal(size=(n, 4 * n)), 0.0)
    matrix = rows @ rows.T / rows.shape[1]
    return matrix + 0.03 * np.trace(matrix) / n * np.eye(n)


def _hardware(**residual: object) -> Hardware:
    hardware = rd.load_hardware(chip="small", device="reram")
    chip = dataclasses.replace(
        hardware.chip, residual=dataclasses.replace(hardware.chip.residual, **residual)
    )
    return dataclasses.replace(hardware, chip=chip)


def _in_groups(matrix: np.ndarray, vector: np.ndarray, bits: int, rows: int, cell_bits: int):
    """Multiply whole numbers as arrays do, in Python's integers; return the largest partial sum."""
    top = 2 ** (bits - 1) - 1
    held = np.rint(matrix / np.abs(matrix).max() * top).astype(object)
    driven = np.rint(vector / np.abs(vector).max() * top).astype(object)
    total, largest = np.zeros(len(matrix), object), 0
    for first in range(0, len(vector), rows):
        part, applied = held[:, first : first + rows], driven[first : first + rows]
        for low in range(0, bits - 1, cell_bits):
            digits = np.sign(part) * (np.abs(part) // 2**low % 2**cell_bits)
            for bit in range(bits - 1):
                sums = digits @ (np.sign(applied) * (np.abs(applied) // 2**bit % 2))
                largest = max(largest, int(np.abs(sums).max()))
                total += sums * 2 ** (low + bit)
    return total.astype(np.float64) * np.abs(matrix).max() * np.abs(vector).max() / top**2, largest


def test_the_adc_of_the_default_chip_tells_every_level_apart_so_products_are_exact():
    hardware = _hardware()
    residual = hardware.chip.residual
    matrix, random = _covariance(70), np.random.default_rng(1)
    # All ones drive all rows at once, and all entries of a covariance have the same sign.
    for vector in (np.ones(70), random.normal(size=70)):
        expected, largest = _in_groups(matrix, vector, 32, residual.rows, hardware.device.cell.bits)
        assert largest <= 2 ** (residual.adc.bits - 1) - 1
        got = Product.of((matrix,), 32, hardware.residual_spec).multiply(vector[:, None])[:, 0]
        assert got == pytest.approx(expected, rel=1e-13)


@pytest.mark.filterwarnings("ignore::repast_dist.analog.arrays.vmm.ClippingWarning")
@pytest.mark.parametrize("range_", ["calibrated", "full"])
@pytest.mark.parametrize(
    "errors",
    [{}, {"offset_lsb": 0.4, "gain_error": 0.01, "inl_lsb": 0.3}, {"noise_lsb": 0.5}],
    ids=["exact", "static", "noisy"],
)
def test_products_with_few_bits_are_those_of_the_simulated_arrays(range_, errors):
    spec = _hardware(rows=64, adc=AdcSpec(bits=8, range=range_, **errors)).residual_spec
    assert not spec.exact
    matrix, vectors = _covariance(100), np.random.default_rng(2).normal(size=(100, 3))
    wide = dataclasses.replace(spec, weight_bits=24, input_bits=24)
    array = program_vmm(matrix.T, wide, 5, "product", 0, "here")
    if range_ == "calibrated":
        array.calibrate(calibration_vectors(100, 5, *array.address))
    product = Product.of((matrix,), 24, spec, 5, "here")
    for column in vectors.T:
        step = np.abs(column).max() / (2**23 - 1)
        codes = np.rint(column / step)
        # Noise has the inputs as its address.
        call = int.from_bytes(hashlib.blake2b(codes.tobytes(), digest_size=8).digest())
        expected = array.multiply_codes(codes[None, :], call).values[0]
        np.testing.assert_array_equal(
            product.multiply(column[:, None])[:, 0], expected * (step * array.weight_scale)
        )


@pytest.mark.parametrize("n", [20, 100, 150])
@pytest.mark.parametrize("rows", [32, 128])
def test_priced_conversions_are_those_that_the_arrays_make(n, rows):
    hardware = _hardware(rows=rows, adc=AdcSpec(bits=8, range="full"))
    scheme = SCHEMES.load({"product_bits": 16})
    block = SoiBlock(0, 0, "matrix", "A", 0, n)
    shapes = block_shapes(np.array([block.size]), np.array([3]), np.array([0]), hardware, scheme)
    ops = {field.name: np.array([0]) for field in dataclasses.fields(SolveCounts)}
    ops["vmm_ops"] = np.array([3])
    ops["settling_s"] = np.zeros(1)
    counts = solve_counts(shapes, ops, np.ones(1, np.int64), hardware)
    wide = dataclasses.replace(hardware.residual_spec, weight_bits=16, input_bits=16)
    array = program_vmm(_covariance(n), wide)
    made = array.multiply(np.random.default_rng(0).normal(size=(3, n))).conversions
    assert counts["residual_adc_conversions"].tolist() == [made]


@pytest.mark.parametrize(
    ("residual", "fewest", "most"),
    [
        ({}, 16.0, 40.0),
        ({"adc": None, "rows": 8}, 16.0, 40.0),
        ({"rows": 128, "adc": AdcSpec(bits=12, range="lossless")}, 16.0, 40.0),
        ({"rows": 128, "adc": AdcSpec(bits=8, range="calibrated")}, 3.0, 8.5),
        ({"rows": 128, "adc": AdcSpec(bits=10, range="calibrated")}, 4.5, 11.0),
    ],
)
def test_a_solve_has_the_bits_that_the_adc_of_its_residual_products_gives(residual, fewest, most):
    hardware = _hardware(**residual)
    matrix, right = _covariance(64), np.random.default_rng(3).normal(size=(64, 4))
    scheme = SCHEMES.load({"max_iterations": 40, "on_divergence": "use"})
    solver = prepare(matrix, hardware.residual_spec, hardware.inv_spec, scheme, 1, "bits")
    bits = -np.log2(solver.solve(right).residual.max())
    assert fewest <= bits <= most


def test_cells_with_errors_limit_a_solve_to_their_own_matrix():
    hardware = _hardware(verified=False)
    matrix, right = _covariance(64), np.random.default_rng(3).normal(size=(64, 2))
    scheme = SCHEMES.load({"max_iterations": 40, "on_divergence": "use"})
    solver = prepare(matrix, hardware.residual_spec, hardware.inv_spec, scheme, 1, "bits")
    assert not solver.solve(right).converged.any()


def test_a_split_block_multiplies_its_couplings_on_the_same_arrays():
    matrix, right = _covariance(40), np.random.default_rng(4).normal(size=(40, 2))
    scheme = SCHEMES.load({"method": "single"})
    coarse = _hardware(rows=128, adc=AdcSpec(bits=4, range="full")).residual_spec
    answers = [
        prepare(matrix, spec, InvSpec(size=20), scheme, 1, "split").solve(right).x
        for spec in (LOSSLESS, coarse)
    ]
    error = np.linalg.norm(answers[1] - answers[0]) / np.linalg.norm(answers[0])
    assert 0.01 < error < 1.0


def test_an_adc_without_the_bits_for_lossless_products_is_refused():
    with pytest.raises(SettingsError, match=r"480 levels of 32 rows.*at least 10"):
        _ = _hardware(adc=AdcSpec(bits=9, range="lossless")).residual_spec
    with pytest.raises(ValueError, match="divisor"):
        _hardware(rows=48)
    with pytest.raises(ValueError, match=r"dac\.bits=1"):
        _hardware(dac_bits=2)
    with pytest.raises(DataError, match="at most 32"):
        Product.of((np.eye(4),), 40, VmmSpec())


def _behind_wires(ohm: float, **residual: object) -> Hardware:
    hardware = _hardware(**residual)
    wire = WireSpec(row_ohm=ohm, column_ohm=ohm)
    return dataclasses.replace(hardware, device=dataclasses.replace(hardware.device, wire=wire))


def test_products_behind_wires_are_those_of_whole_arrays_of_which_some_rows_are_driven():
    """Currents by the transfer matrices of arrays of 128 rows, converted 32 rows at a time."""
    hardware = _behind_wires(0.5, wired=True)
    spec = dataclasses.replace(hardware.residual_spec, weight_bits=9, input_bits=9)
    assert (spec.rows, spec.tall) == (32, 128)
    random = np.random.default_rng(2)
    weights, codes = random.normal(size=(150, 5)), random.integers(-255, 256, (6, 150))
    array = program_vmm(weights, spec, 1, "w")
    cell = hardware.device.cell
    step = cell.span_siemens / (cell.levels - 1)
    total = np.zeros((6, 5))
    for physical in physical_arrays(weights, spec, 1, "w"):
        currents = transfer_matrix(physical.siemens, spec.device.wire) / step
        pairs = currents.reshape(len(currents), -1, spec.slices, 2)
        pairs = pairs[..., 0] - pairs[..., 1]
        first = physical.first_row
        for top in range(0, len(pairs), 32):
            driven = codes[:, first + top : first + min(top + 32, len(pairs))]
            for number in range(8):
                bit = np.sign(driven) * (np.abs(driven) >> number & 1)
                levels = np.rint(np.einsum("nk,kms->nms", bit, pairs[top : top + 32]))
                total += 2.0**number * (levels @ 16.0 ** np.arange(spec.slices))
    np.testing.assert_array_equal(array.multiply_codes(codes).values, total)


def test_wires_take_the_bits_of_a_product_unless_they_are_made_up_for():
    matrix, vectors = _covariance(64), np.random.default_rng(1).normal(size=(64, 4))

    def bits(hardware):
        product = Product.of((matrix,), 24, hardware.residual_spec).multiply(vectors)
        exact = matrix @ vectors
        return -np.log2(np.linalg.norm(product - exact) / np.linalg.norm(exact))

    assert bits(_behind_wires(1.73)) > 20
    assert bits(_behind_wires(1e-3, wired=True)) > 20
    assert 2 < bits(_behind_wires(1.73, wired=True)) < 5


def test_cells_can_make_up_for_wires():
    """What one driven row gives a column, all others grounded, is what verification reads."""
    cell = _hardware().device.cell
    levels = np.random.default_rng(0).integers(0, cell.levels, (64, 64))
    wanted = cell.g_off_siemens + levels / (cell.levels - 1) * cell.span_siemens
    wire, held = WireSpec(row_ohm=1.73, column_ohm=1.73), wanted.copy()
    for _ in range(40):
        held *= wanted / transfer_matrix(held, wire)
    np.testing.assert_allclose(transfer_matrix(held, wire), wanted, rtol=1e-9)
    assert 1.02 < held.max() / cell.g_on_siemens < 1.4

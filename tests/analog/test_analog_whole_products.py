"""Products of whole numbers: exact, rounded once, however many digits their sums have."""

import numpy as np
import pytest

from repast_dist.analog.kernels import whole
from repast_dist.analog.kernels.tile_registers import has_matrix_unit
from repast_dist.analog.kernels.whole import (
    FixedMatrix,
    FloatMatrix,
    TiledMatrix,
    hold_for_codes,
    hold_whole,
)
from repast_dist.analog.product import LOSSLESS, Product

needs_unit = pytest.mark.skipif(not has_matrix_unit(), reason="no matrix unit on this machine")
SHAPES = [(1, 1, 1), (5, 7, 3), (100, 130, 17), (16, 64, 16), (33, 300, 40)]


def operands(shape: tuple[int, int, int], bits: int) -> tuple[np.ndarray, np.ndarray]:
    random, top = np.random.default_rng(0), 2 ** (bits - 1) - 1
    rows, inner, columns = shape
    matrix = random.integers(-top, top + 1, (rows, inner)).astype(np.float64)
    codes = random.integers(-top, top + 1, (inner, columns)).astype(np.float64)
    # Both ends of the range, and nothing at all.
    matrix[0], codes[:, 0] = top, -top
    codes[:, -1] *= shape[2] == 1
    return matrix, codes


def exact(matrix: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return the product by Python's integers, each rounded once."""
    return (matrix.astype(int).astype(object) @ codes.astype(int).astype(object)).astype(float)


@needs_unit
@pytest.mark.parametrize("bits", [8, 16, 24, 32])
@pytest.mark.parametrize("shape", SHAPES)
def test_products_are_those_of_integers_rounded_once(
    shape: tuple[int, int, int], bits: int
) -> None:
    matrix, codes = operands(shape, bits)
    np.testing.assert_array_equal(TiledMatrix(matrix).multiply(codes), exact(matrix, codes))


@needs_unit
def test_columns_do_not_depend_on_their_neighbours() -> None:
    matrix, codes = operands((100, 130, 17), 32)
    held = TiledMatrix(matrix)
    together = held.multiply(codes)
    for number in range(17):
        alone = held.multiply(codes[:, number : number + 1])
        np.testing.assert_array_equal(alone[:, 0], together[:, number])


@needs_unit
@pytest.mark.parametrize("shape", SHAPES)
def test_products_with_codes_of_one_byte_are_those_of_integers(shape: tuple[int, int, int]) -> None:
    matrix, _ = operands(shape, 32)
    _, codes = operands(shape, 8)
    found = TiledMatrix(matrix).multiply_bytes(codes)
    np.testing.assert_array_equal(found, exact(matrix, codes))


@needs_unit
def test_any_matrix_has_32_bits_of_its_largest_entry() -> None:
    random = np.random.default_rng(3)
    matrix = random.normal(size=(300, 290)).astype(np.float32)
    codes = random.integers(-127, 128, (290, 20)).astype(np.float64)
    held = hold_for_codes(matrix, 8)
    assert isinstance(held, FixedMatrix)
    found, expected = held.multiply(codes), matrix.astype(np.float64) @ codes
    step = np.abs(matrix).max() / (2**31 - 1)
    assert np.abs(found - expected).max() < 0.5 * step * np.abs(codes).sum(axis=0).max()
    # Single precision is further off.
    single = (matrix @ codes.astype(np.float32)).astype(np.float64)
    assert np.abs(found - expected).max() < np.abs(single - expected).max() / 10
    matrix[3, 4] = np.nan
    assert hold_for_codes(matrix, 8) is None


@needs_unit
@pytest.mark.parametrize("beyond", [np.nan, np.inf, -(2.0**32)])
def test_a_column_with_something_else_has_no_product(beyond: float) -> None:
    matrix, codes = operands((100, 130, 17), 32)
    expected = TiledMatrix(matrix).multiply(codes)
    codes[7, 3] = beyond
    found = TiledMatrix(matrix).multiply(codes)
    assert np.isnan(found[:, 3]).all()
    np.testing.assert_array_equal(np.delete(found, 3, 1), np.delete(expected, 3, 1))


@pytest.mark.slow
@pytest.mark.parametrize("unit", [True, False])
def test_residual_products_are_exact_to_the_rounding_of_float64(
    unit: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if unit and not has_matrix_unit():
        pytest.skip("no matrix unit on this machine")
    monkeypatch.setattr(whole.unit, "has_matrix_unit", lambda: unit)
    matrix, vectors = (np.random.default_rng(n).normal(size=(300, 300)) for n in (1, 2))
    product = Product.of((matrix,), 32, LOSSLESS)
    held = product._wholes[0][0]
    assert isinstance(held, TiledMatrix if unit else FloatMatrix)
    found = product.multiply(vectors)
    steps = np.abs(vectors).max(axis=0) / (2**31 - 1), np.abs(matrix).max() / (2**31 - 1)
    integers = np.rint(matrix / steps[1]), np.rint(vectors / steps[0])
    np.testing.assert_allclose(
        found, exact(*integers) * (steps[0] * steps[1]), rtol=0, atol=1e-12 * np.abs(found).max()
    )


def test_numbers_of_more_than_32_bits_are_left_to_the_blas() -> None:
    matrix, codes = operands((300, 300, 2), 40)
    held = hold_whole(matrix, 40)
    assert isinstance(held, FloatMatrix)
    np.testing.assert_array_equal(held.multiply(codes), matrix @ codes)

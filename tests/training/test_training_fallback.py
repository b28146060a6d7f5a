"""What the digital unit does with blocks that arrays do not solve, and when it gives up, too."""

import numpy as np
import pytest

from repast_dist.analog import LOSSLESS, SCHEMES, InvSpec, VmmSpec
from repast_dist.ground.errors import InversionError
from repast_dist.planning.blocks import SoiBlock
from repast_dist.training.block_state import BlockState
from repast_dist.training.engines import make_engine
from repast_dist.training.optimizers import OPTIMIZERS
from repast_dist.training.specs import EngineSpec

SIZE, DAMPING = 16, 0.1


def with_smallest(eigenvalue):
    """Return a factor with one eigenvalue as given and the others from 0.5 to 2."""
    random = np.random.default_rng(3)
    basis, _ = np.linalg.qr(random.normal(size=(SIZE, SIZE)))
    values = np.linspace(0.5, 2.0, SIZE)
    values[0] = eigenvalue
    matrix = basis * values @ basis.T
    return (matrix + matrix.T) / 2


def with_negative_diagonal():
    """Return a factor of which products have made an entry of the diagonal negative."""
    factor = with_smallest(0.5)
    factor[3, 3] = -0.2
    return factor


def solved(factor, **policy):
    scheme = SCHEMES.load({"method": "fcg", "on_divergence": "fallback", **policy})
    engine = make_engine(EngineSpec(), 7, VmmSpec(), InvSpec(), LOSSLESS, scheme)
    block = SoiBlock(0, 0, "dense", "A", 0, SIZE)
    state = BlockState(block, 0, engine, scheme, OPTIMIZERS.load({}).second_order)
    state.add(factor)
    state.prepare(0, DAMPING)
    right = np.random.default_rng(4).normal(size=(SIZE, 5))
    state.take_counts()
    answer, report = state.solve(0, right)
    return right, answer, report, state.take_counts()


def test_a_factor_that_its_products_made_indefinite_gets_more_damping_in_the_digital_unit():
    """Solved as it is, its step would go uphill."""
    factor = with_smallest(-0.5)
    right, answer, report, counts = solved(factor)
    assert report.action == "fallback"
    assert not report.converged
    # 0.1 and 0.3 do not make up for 0.5, and 0.9 does.
    expected = np.linalg.solve(factor + 9 * DAMPING * np.eye(SIZE), right)
    np.testing.assert_allclose(answer, expected, rtol=1e-10)
    assert (np.sum(answer * right, axis=0) > 0).all()
    assert (counts.factorisations, counts.factored_sides) == (3, 5)


def test_a_block_with_a_negative_diagonal_is_solved_by_the_digital_unit():
    factor = with_negative_diagonal()
    right, answer, report, counts = solved(factor)
    assert (report.action, report.converged, report.iterations) == ("fallback", False, 0)
    # Three times the damping leaves a positive diagonal, and nine times a definite block.
    tries = counts.factorisations
    assert tries > 1
    more = DAMPING * 3.0 ** (tries - 1) * np.eye(SIZE)
    np.testing.assert_allclose(answer, np.linalg.solve(factor + more, right), rtol=1e-10)
    assert np.linalg.eigvalsh(factor + more).min() > 0
    assert np.linalg.eigvalsh(factor + more / 3.0).min() <= 0
    assert counts.inv_ops == counts.program_cells == 0


def test_a_block_with_a_negative_diagonal_is_damped_until_arrays_take_it():
    factor = with_negative_diagonal()
    right, answer, report, counts = solved(factor, on_divergence="damp", damp_factor=4.0)
    assert report.action == "damp"
    assert counts.program_cells > 0
    left = [
        np.linalg.norm((factor + DAMPING * 4.0**k * np.eye(SIZE)) @ answer - right) for k in (1, 2)
    ]
    assert min(left) < 1e-3 * np.linalg.norm(right)


def test_a_block_with_a_negative_diagonal_is_left_alone_where_any_answer_is_used():
    _, answer, report, _ = solved(with_negative_diagonal(), on_divergence="use")
    assert (report.action, report.converged, report.residual) == ("use", False, 1.0)
    assert not answer.any()


def test_a_block_with_a_negative_diagonal_stops_a_run_that_asks_for_it():
    with pytest.raises(InversionError, match=r"block 0.*diagonal has an entry of -0\.1.*valid"):
        solved(with_negative_diagonal(), on_divergence="raise")


def test_a_factor_far_from_positive_is_refused_with_what_may_be_done():
    factor = np.full((SIZE, SIZE), 1000.0)
    np.fill_diagonal(factor, 1.0)
    with pytest.raises(InversionError, match=r"not positive definite.*more optimizer\.damping"):
        solved(factor)

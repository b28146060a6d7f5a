"""Solves that begin with the last answer of the same block."""

import dataclasses

import numpy as np
import pytest

from repast_dist.analog import SCHEMES, prepare
from repast_dist.analog.schemes.base import as_counts
from repast_dist.planning.solve_costs import one_block
from repast_dist.settings import load_settings
from repast_dist.training.block_state import joined

HARDWARE = load_settings(["chip=repast"]).hardware
SIZE, SIDES = 60, 7


def _solver(method, **changes):
    scheme = SCHEMES.load({"method": method, "target_bits": 10, "product_bits": 20, **changes})
    rows = np.maximum(np.random.default_rng(1).standard_normal((SIZE, 90)), 0.0)
    block = rows @ rows.T / 90 + 0.05 * np.eye(SIZE)
    spec, inv = HARDWARE.residual_spec, HARDWARE.inv_spec
    return block, prepare(block, spec, inv, scheme, 3, "test")


def _right():
    right = np.random.default_rng(2).standard_normal((SIZE, SIDES))
    right[:, 2] = 0.0
    return right


@pytest.mark.parametrize("method", ["fcg", "cg"])
@pytest.mark.parametrize("relaxed", [False, True])
def test_what_is_left_of_a_right_hand_side_is_solved_in_fewer_rounds(method, relaxed):
    """The best multiple leaves the sine of the angle between both right-hand sides."""
    block, solver = _solver(method, warm_start=True, relaxed_products=relaxed)
    right = _right()
    first = solver.solve(right)
    again = solver.solve(-3.0 * right, first.answered)
    assert first.iterations.max() > 2
    assert (again.iterations <= 1).all()
    assert again.converged.all()
    near = right + 0.02 * np.random.default_rng(3).standard_normal(right.shape)
    near[:, 2] = 0.0
    warm, cold = solver.solve(near, again.answered), solver.solve(near)
    assert (warm.iterations <= cold.iterations).all()
    assert warm.iterations.sum() < 0.8 * cold.iterations.sum()
    for solution in (warm, cold):
        left = np.linalg.norm(near - block @ solution.x, axis=0)
        wanted = 2.0**-10 * np.linalg.norm(near, axis=0)
        assert (left <= wanted).all()
    # One that has nothing to do with the last costs no round more than one or two.
    other = np.random.default_rng(4).standard_normal(right.shape)
    rounds = [solver.solve(other, last).iterations for last in (None, first.answered)]
    assert rounds[1].sum() <= rounds[0].sum() + 2


@pytest.mark.parametrize("method", ["fcg", "cg"])
def test_the_image_of_an_answer_is_what_the_block_makes_of_it(method):
    block, solver = _solver(method, warm_start=True)
    answered = solver.solve(_right()).answered
    scaled = block / np.sqrt(np.outer(np.diag(block), np.diag(block)))
    off = np.linalg.norm(scaled @ answered.x - answered.image, axis=0)
    assert (off <= 1e-4 * np.linalg.norm(answered.image, axis=0)).all()
    assert _solver(method)[1].solve(_right()).answered is None


@pytest.mark.parametrize("method", ["fcg", "cg"])
def test_what_is_planned_for_the_rounds_of_a_solve_is_what_it_counts(method):
    _, solver = _solver(method, warm_start=True)
    right = _right()
    last = solver.solve(right).answered
    right += 0.1 * np.random.default_rng(5).standard_normal(right.shape)
    solution = solver.solve(right, last)
    one = one_block(SIZE, 1, HARDWARE, solver.scheme)
    rank = np.array([0 if solver.deflation is None else solver.deflation.rank])
    expected = [
        as_counts(
            solver.scheme.solve_counts(
                one, np.array([rounds]), HARDWARE.inv_spec, rank, 0, solver.settling_s
            )
        )
        for rounds in solution.iterations.tolist()
    ]
    total = sum(expected[1:], start=expected[0])
    refreshes = solution.refreshes
    for name in ("inv_ops", "vmm_ops", "digital_ops", "moved"):
        more = {
            "vmm_ops": refreshes,
            "digital_ops": refreshes * SIZE,
            "moved": 5 * refreshes * SIZE,
        }
        found = getattr(solution.counts, name)
        assert found == getattr(total, name) + more.get(name, 0), name
    plain = dataclasses.replace(solver.scheme, warm_start=False)
    assert (
        plain.solve_counts(one, np.array([3]), HARDWARE.inv_spec)["digital_ops"][0]
        < (solver.scheme.solve_counts(one, np.array([3]), HARDWARE.inv_spec)["digital_ops"][0])
    )


def test_parts_that_chips_found_are_put_together_in_their_order():
    whole = np.arange(30.0).reshape(3, 10)
    parts = {f"block/4/last/{first}/x": whole[:, first:stop] for first, stop in ((7, 10), (0, 7))}
    parts |= {
        f"block/4/last/{first}/drift": whole[0, first:stop] for first, stop in ((7, 10), (0, 7))
    }
    found = joined(parts | {"block/4/average": whole})
    assert sorted(found) == ["block/4/average", "block/4/last/0/drift", "block/4/last/0/x"]
    np.testing.assert_array_equal(found["block/4/last/0/x"], whole)
    np.testing.assert_array_equal(found["block/4/last/0/drift"], whole[0])

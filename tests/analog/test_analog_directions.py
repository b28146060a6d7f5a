"""Dominant directions that are followed from writing to writing, and digital factorisations."""

import dataclasses

import numpy as np
import pytest
import scipy.linalg

from repast_dist.analog import LOSSLESS, SCHEMES, InvSpec, prepare
from repast_dist.analog.deflation import find_deflation
from repast_dist.analog.product import Product
from repast_dist.planning.solve_costs import (
    cholesky_costs,
    one_block,
    preparation_cost,
    solving_cost,
)
from repast_dist.settings import load_settings
from repast_dist.training.block_state import BlockState
from repast_dist.training.engines import make_engine
from repast_dist.training.optimizers.kfac import Kfac
from repast_dist.training.specs import EngineSpec


def rectified(size, rows, random):
    hidden = np.maximum(random.normal(size=(rows, size)) @ random.normal(size=(size, size)), 0)
    return hidden.T @ hidden / rows / size


def moving_blocks(size, steps, damping=0.02):
    """A running average of factors, as training has it."""
    random = np.random.default_rng(0)
    weights = random.normal(size=(size, size)) / np.sqrt(size)
    average = None
    for _ in range(steps):
        hidden = np.maximum(random.normal(size=(2 * size, size)) @ weights + 0.3, 0)
        fresh = hidden.T @ hidden / (2 * size)
        average = fresh if average is None else 0.9 * average + 0.1 * fresh
        weights = weights + 0.05 * random.normal(size=(size, size)) / np.sqrt(size)
        yield average + damping * np.eye(size)


def test_directions_that_are_followed_are_those_of_an_eigendecomposition():
    """One product with each vector and writing, where a search that begins anew takes three."""
    start, shares = None, []
    for block in moving_blocks(128, 6):
        product = Product.of((block,), 24, LOSSLESS)
        found = find_deflation(block, product, 8, 0, "x", above=1.5, start=start)
        start = found.seen
        basis, _ = np.linalg.qr(found.deflation.basis)
        rank = found.deflation.rank
        held = np.trace(basis.T @ block @ basis)
        shares.append(held / np.linalg.eigvalsh(block)[::-1][:rank].sum())
    assert min(shares) > 0.97
    assert shares[-1] > 0.995


def test_more_directions_are_taken_out_the_lower_the_threshold():
    *_, block = moving_blocks(128, 2)
    product = Product.of((block,), 24, LOSSLESS)
    ranks = [
        0 if found is None else found.rank
        for found, _, _ in (
            find_deflation(block, product, 8, 0, "x", above=above) for above in (1.01, 4.0, 1e6)
        )
    ]
    assert ranks[0] > ranks[1] > ranks[2] == 0


@pytest.mark.parametrize("method", ["cg", "fcg"])
def test_a_block_restored_from_a_checkpoint_goes_on_with_the_same_directions(method):
    hardware = load_settings(["chip=repast"]).hardware
    scheme = SCHEMES.load({"method": method, "deflation_recycled": True, "target_bits": 8})
    engine = make_engine(
        EngineSpec(forward="float64", backward="float64", gradient="float64", factor="float64"),
        0, hardware.vmm_spec, hardware.inv_spec, hardware.residual_spec, scheme,
    )  # fmt: skip
    blocks = list(moving_blocks(96, 4, damping=0.0))
    right = np.random.default_rng(1).normal(size=(96, 3))

    def state():
        block = dataclasses.make_dataclass(
            "Block", ["index", "layer", "layer_name", "factor", "start", "stop", "size"]
        )(0, 0, "dense", "A", 0, 96, 96)
        return BlockState(block, 0, engine, scheme, Kfac())

    one, saved = state(), None
    for step, block in enumerate(blocks):
        one.add(block)
        one.prepare(step, 0.05)
        if step == 1:
            saved = one.arrays()
    assert "written/start" in saved
    other = state()
    other.restore(saved)
    for step, block in enumerate(blocks[2:], start=2):
        other.add(block)
        other.prepare(step, 0.05)
    assert np.array_equal(one.solve(4, right)[0], other.solve(4, right)[0])


def test_the_digital_unit_solves_as_scipy_does_and_costs_what_its_lanes_do():
    hardware = load_settings(["chip=repast"]).hardware
    random = np.random.default_rng(2)
    block = rectified(200, 400, random) + 0.01 * np.eye(200)
    right = random.normal(size=(200, 7))
    scheme = SCHEMES.load({"method": "cholesky", "target_bits": 12, "tiles": 1})
    solver = prepare(block, hardware.residual_spec, hardware.inv_spec, scheme)
    solution = solver.solve(right)
    exact = scipy.linalg.solve(block, right, assume_a="pos")
    assert np.linalg.norm(solution.x - exact) < 1e-4 * np.linalg.norm(exact)
    assert solution.converged.all()
    shapes = one_block(200, 7, hardware, scheme)
    once, each = cholesky_costs(shapes, hardware)
    prepared = preparation_cost(shapes, solver.program_counts, hardware)
    solved = solving_cost(shapes, solution.counts, hardware)
    # Scaling rows and columns, and right-hand sides, comes on top.
    assert once.energy_j < prepared.energy_j < 1.2 * once.energy_j
    assert each.energy_j < solved.energy_j < 1.2 * each.energy_j
    faster = one_block(200, 7, hardware, dataclasses.replace(scheme, tiles=8))
    assert solving_cost(faster, solution.counts, hardware).time_s < solved.time_s


def test_what_has_no_factor_in_32_bits_is_not_used():
    low = np.ones((30, 30)) + 1e-12 * np.eye(30)
    scheme = SCHEMES.load({"method": "cholesky", "on_divergence": "raise"})
    solution = prepare(low, LOSSLESS, InvSpec(), scheme).solve(np.eye(30)[:, :2])
    assert not solution.usable
    assert (solution.residual == 1.0).all()


def test_chips_without_inverting_arrays_train_with_what_needs_none():
    plain = ["chip=repast", "chip.inv.arrays_per_bank=0", "farm.chips=2"]
    for inversion in ("cg", "cholesky"):
        settings = load_settings([*plain, f"inversion={inversion}"])
        assert settings.hardware.chip.inv_arrays == 0
        workload = settings.model.build(settings.dataset.load, 0, 16).workload
        plan = settings.machine.plan(workload, 2, 32, 16)
        assert not plan.shapes.inv_arrays.any()

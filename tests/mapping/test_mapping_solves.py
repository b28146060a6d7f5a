"""Counts by formula against those of solves that were really done."""

import dataclasses

import numpy as np
import pytest

from repast_dist.analog import DeviceSpec, InversionSpec, prepare, prepare_fused
from repast_dist.mapping.blocks import SoiBlock
from repast_dist.mapping.solves import block_shapes, fuse, modelled_counts
from repast_dist.settings import load_settings

HARDWARE = dataclasses.replace(load_settings(["chip=repast"]).hardware, device=DeviceSpec())
SIZE, HELD, COLUMNS = 256, 128, 20


def rows():
    """Rectified activations: a few directions dominate."""
    random = np.random.default_rng(0)
    hidden = np.maximum(random.normal(size=(SIZE, SIZE)) @ random.normal(size=(SIZE, HELD)), 0)
    return hidden / hidden.std()


def measured(inversion, fused=False):
    """Return a solve's counts, the preparation's cells, and the mean rounds."""
    arrays = (HARDWARE.vmm_spec, HARDWARE.inv_spec, inversion)
    if fused:
        solver = prepare_fused(rows(), 0.1, *arrays)
    else:
        solver = prepare(rows() @ rows().T / HELD + 0.1 * np.eye(SIZE), *arrays)
    solution = solver.solve(np.random.default_rng(1).normal(size=(SIZE, COLUMNS)))
    rank = solver.deflation.rank if solver.deflation else 0
    return solution.counts, solver.program_counts.program_cells, solution.iterations, rank


def modelled(inversion, iterations, fused=False):
    block = SoiBlock(0, 0, "layer", "A", 0, SIZE)
    sides, held = np.array([COLUMNS]), np.array([HELD])
    shapes = block_shapes((block,), sides, held, HARDWARE, inversion)
    if fused:
        shapes = fuse(shapes, np.array([True]), HARDWARE)
    counts = modelled_counts(shapes, inversion, HARDWARE, iterations)
    return {name: int(value[0]) for name, value in counts.items()}


@pytest.mark.parametrize("slices", [1, 2])
@pytest.mark.parametrize("method", ["single", "taylor", "refine", "fcg", "cg"])
def test_counts_by_formula_are_those_of_a_measured_solve(method, slices):
    inversion = InversionSpec(method=method, array_slices=slices, target_bits=10)
    counts, cells, iterations, rank = measured(inversion)
    # The formula takes whole rounds, the same for all right-hand sides.
    expected = modelled(inversion, 1)
    rounds = iterations.sum() / COLUMNS
    assert counts.inv_ops == pytest.approx(expected["inv_ops"] * rounds, rel=0.02)
    assert cells == expected["program_cells"]
    if method == "taylor":
        # A series that has converged does not form its next term.
        assert counts.vmm_ops == pytest.approx(expected["vmm_ops"] * rounds, rel=0.2)
        return
    assert counts.vmm_ops == pytest.approx(expected["vmm_ops"] * rounds, rel=0.02)
    if method == "fcg":
        assert rank >= 1
        inversion = InversionSpec(method=method, array_slices=slices, deflation=rank)
        expected = modelled(inversion, 1)
    assert counts.digital_ops == pytest.approx(expected["digital_ops"] * rounds, rel=0.35)


def test_counts_of_a_fused_block_are_those_of_a_measured_solve():
    inversion = InversionSpec(method="fcg", target_bits=10)
    counts, cells, iterations, _ = measured(inversion, fused=True)
    expected = modelled(inversion, 1, fused=True)
    rounds = iterations.sum() / COLUMNS
    assert counts.inv_ops == pytest.approx(expected["inv_ops"] * rounds)
    assert counts.vmm_ops == pytest.approx(expected["vmm_ops"] * rounds)
    assert counts.digital_ops == pytest.approx(expected["digital_ops"] * rounds, rel=0.35)
    # The damping has cells of its own, one pair per row.
    assert cells == expected["program_cells"] + 2 * SIZE

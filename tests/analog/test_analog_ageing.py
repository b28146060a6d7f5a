"""Cells drift by the time since they were written, which a run counts by its planned steps."""

import dataclasses

import numpy as np
import pytest

from repast_dist.analog import (
    CELLS,
    SCHEMES,
    DeviceSpec,
    InvSpec,
    Reram,
    Rows,
    VmmSpec,
    prepare,
    program_inv,
    program_vmm,
)
from repast_dist.analog.arrays.held import hold
from repast_dist.analog.cells.use import CellUse
from repast_dist.analog.product import LOSSLESS
from repast_dist.ground.rng import generator
from repast_dist.training.block_state import BlockState
from repast_dist.training.engines import Schedule, make_engine
from repast_dist.training.optimizers import OPTIMIZERS
from repast_dist.training.specs import EngineSpec

CELL = Reram(
    bits=8, programming_sigma=0.01, drift_exponent=0.05, drift_start_s=1e-3, g_off_siemens=2e-6
)
DEVICE = DeviceSpec(cell=CELL, inv_cell=CELL)


def _block(n, seed=3):
    rows = generator(seed, "rows").standard_normal((n, 3 * n))
    return rows @ rows.T / (3 * n) + 0.1 * np.eye(n)


@pytest.mark.parametrize(("age_s", "left"), [(0.0, 1.0), (1e-3, 1.0), (1e-2, 10**-0.05)])
def test_all_of_a_conductance_follows_the_power_law_from_its_start(age_s, left):
    held = np.array([0.0, 0.3, 1.0])
    siemens = CELL.g_off_siemens + held * CELL.span_siemens
    aged = CELL.used(held, CellUse(age_s=age_s))
    np.testing.assert_allclose(
        CELL.g_off_siemens + aged * CELL.span_siemens, siemens * left, rtol=1e-12
    )


@pytest.mark.slow
@pytest.mark.parametrize("size", [24, 10])
def test_an_aged_block_is_the_block_that_is_programmed_with_that_age(size):
    """Nothing is written again: the same errors, drifted, in one array or in pieces."""
    matrix, right = _block(20), generator(1, "right").standard_normal((20, 3))
    scheme, inv = SCHEMES.load({"method": "fcg"}), InvSpec(device=DEVICE, size=size)
    vmm = dataclasses.replace(LOSSLESS, device=DEVICE)
    young = prepare(matrix, vmm, inv, scheme, 5, "soi", 0)
    old = young.aged(2.0)
    again = prepare(matrix, vmm.older(2.0), inv.older(2.0), scheme, 5, "soi", 0)
    assert old.program_counts == young.program_counts
    np.testing.assert_array_equal(old.solve(right).x, again.solve(right).x)
    assert np.any(old.solve(right).x != young.solve(right).x)


_GROWING = """target_microsiemens,mean_microsiemens,sigma_microsiemens,time_s
1,1,0.02,1
50,50,0.02,1
1,1,1.5,1000
50,50,1.5,1000
"""


@pytest.mark.parametrize(
    ("size", "settings", "fused"),
    [
        (24, {}, False),
        (10, {"array_pieces": "diagonal"}, False),
        (10, {"array_pieces": "nested"}, False),
        (64, {}, True),
    ],
)
def test_what_was_written_does_not_change_where_cells_become_worse(
    size, settings, fused, tmp_path, monkeypatch
):
    """Arrays are regularised by what cells are expected to be off by when they are written."""
    (tmp_path / "cells.csv").write_text(_GROWING)
    cell = CELLS.load({"model": "table", "table": str(tmp_path / "cells.csv"), "bits": 6})
    assert cell.lasting_error(np.eye(2), CellUse(age_s=1e3)) > 0.01
    device = DeviceSpec(cell=cell, inv_cell=cell)
    vmm, inv = dataclasses.replace(LOSSLESS, device=device), InvSpec(device=device, size=size)
    scheme = SCHEMES.load({"method": "fcg", **settings})
    written = []

    def noted(matrix, *others):
        written.append(matrix)
        return hold(matrix, *others)

    for module in ("inv", "fused"):
        monkeypatch.setattr(f"repast_dist.analog.arrays.{module}.hold", noted)
    rows = generator(3, "rows").standard_normal((20, 50))
    block = Rows(rows, 0.1) if fused else _block(20)
    young = prepare(block, vmm, inv, scheme, 5, "soi", 0)
    first = list(written)
    written.clear()
    assert first
    assert young.shift > 0
    old = young.aged(1e3)
    for matrix, other in zip(written, first, strict=True):
        np.testing.assert_array_equal(matrix, other)
    right = generator(1, "right").standard_normal((20, 3))
    assert np.any(old.solve(right).x != young.solve(right).x)


def test_all_of_an_array_drifts_by_one_factor_and_its_inverse_by_the_other_way():
    matrix = _block(12)
    inv = InvSpec(device=DEVICE, dac_bits=20, adc_bits=20)
    young, old = (program_inv(matrix, spec, 1, "a") for spec in (inv, inv.older(0.1)))
    factor = (0.1 / 1e-3) ** -0.05
    np.testing.assert_allclose(old.held, young.held * factor, rtol=1e-12)
    right = np.ones((12, 1))
    np.testing.assert_allclose(old.solve(right), young.solve(right) / factor, rtol=1e-4)


def test_further_slices_hold_what_was_read_back_before_cells_drifted():
    matrix = _block(12)
    inv = InvSpec(device=DEVICE, slices=2)
    young, old = (hold(matrix, spec, 1, "a") for spec in (inv, inv.older(0.1)))
    np.testing.assert_allclose(old.matrix, young.matrix * 100**-0.05, rtol=1e-12)


def test_a_device_of_some_age_is_that_much_older_everywhere():
    weights = generator(2, "w").standard_normal((30, 5))
    old = VmmSpec(device=dataclasses.replace(DEVICE, age_s=3.0))
    later = VmmSpec(device=DEVICE).older(3.0)
    first, second = (program_vmm(weights, spec, 1).planes for spec in (old, later))
    np.testing.assert_array_equal(first, second)


@dataclasses.dataclass(frozen=True)
class _Block:
    index: int = 0
    layer: int = 0
    layer_name: str = "dense"
    factor: str = "A"
    start: int = 0
    stop: int = 16
    size: int = 16
    transposed: bool = False


def test_a_block_ages_by_a_step_per_step_until_it_is_written_again():
    vmm, inv = VmmSpec(device=DEVICE), InvSpec(device=DEVICE)
    scheme = SCHEMES.load({"method": "single", "on_divergence": "use"})
    engine = make_engine(EngineSpec(), 7, vmm, inv, LOSSLESS, scheme, schedule=Schedule(step_s=0.5))
    state = BlockState(_Block(), 0, engine, scheme, OPTIMIZERS.load({}).second_order)
    state.add(_block(16))
    state.prepare(4, 0.1)
    right = np.ones((16, 1))
    answers = {step: state.solve(step, right)[0] for step in (4, 5, 7)}
    # A restored block is as old as it was.
    other = BlockState(_Block(), 0, engine, scheme, OPTIMIZERS.load({}).second_order)
    other.restore(state.arrays())
    for step in (7, 5):
        np.testing.assert_array_equal(other.solve(step, right)[0], answers[step])
    # One factor is the drift of all cells: answers grow by it, to the converters' half steps.
    growth = np.linalg.norm(answers[7]) / np.linalg.norm(answers[5])
    assert growth == pytest.approx(3**0.05, abs=0.01)
    assert np.linalg.norm(answers[5]) / np.linalg.norm(answers[4]) == pytest.approx(
        500**0.05, abs=0.02
    )
    state.prepare(8, 0.1)
    young = state.solve(8, right)[0]
    assert np.linalg.norm(young) == pytest.approx(np.linalg.norm(answers[4]), rel=0.05)

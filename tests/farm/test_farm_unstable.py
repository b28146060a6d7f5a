"""A training run whose inverting circuits are unstable or saturate says so and uses none."""

import pytest

from repast_dist.ground.errors import InversionError
from repast_dist.report.run_data import load_run
from repast_dist.report.run_report import run_page

UNSTABLE = (
    "model=digits_mlp",
    "train.max_steps=2",
    "train.epochs=1",
    "farm.backend=inprocess",
    "device.inv_cell.programming_sigma=0.08",
    "optimizer.damping=1e-6",
    "inversion.array_regularisation=0",
    "inversion.deflation=0",
)


def test_unstable_circuits_are_reported_and_their_blocks_solved_digitally(train):
    run = load_run(train(*UNSTABLE))
    rows = run.solves.to_pylist()
    unstable = [row for row in rows if not row["stable"]]
    assert unstable
    assert all(not row["converged"] and row["iterations"] == 0 for row in unstable)
    assert all(row["action"] == "fallback" for row in unstable)
    notes = [note.text for note in run_page(run).notes]
    assert any(f"{len(unstable)} of them had an unstable inverting circuit" in n for n in notes)


def test_a_run_that_asks_for_it_stops_at_an_unstable_circuit(train):
    with pytest.raises(InversionError, match="unstable"):
        train(*UNSTABLE, "inversion.on_divergence=raise")


SATURATED = (
    "model=digits_mlp",
    "train.max_steps=2",
    "train.epochs=1",
    "farm.backend=inprocess",
    "device.opamp.swing_v=0.5",
    "device.opamp.offset_v=0.3",
)
"""Offsets that take much of the swing."""


def test_saturated_circuits_are_reported_and_their_blocks_solved_digitally(train):
    run = load_run(train(*SATURATED))
    rows = run.solves.to_pylist()
    saturated = [row for row in rows if row["saturated"]]
    assert saturated
    assert all(row["stable"] and not row["converged"] for row in saturated)
    assert all(row["action"] == "fallback" for row in saturated)
    notes = [note.text for note in run_page(run).notes]
    assert any(f"In {len(saturated)} solves outputs went beyond" in n for n in notes)


def test_a_run_that_asks_for_it_stops_at_a_saturated_circuit(train):
    with pytest.raises(InversionError, match="beyond their swing"):
        train(*SATURATED, "inversion.on_divergence=raise")

"""The plan a user can read before running it."""

import itertools
import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from repast_dist.cli import main
from repast_dist.settings import load_settings
from repast_dist.studies.costing import chosen_workload, planned_step
from repast_dist.studies.plan import plan_page, soi_bound_s, soi_makespan_s


def small_plan(chips, **options):
    settings = load_settings(["study=plan", *options.get("settings", [])])
    return settings.machine.plan(chosen_workload(settings), chips, 128, 16)


def makespan(plan, owner):
    total = 0.0
    for factor in ("G", "A"):
        cost = [
            c * (b.factor == factor)
            for c, b in zip(plan.block_costs.per_step_s, plan.blocks, strict=True)
        ]
        total += max(sum(c for c, o in zip(cost, owner, strict=True) if o == k) for k in (0, 1))
    return total


def test_no_assignment_beats_the_bound_and_the_plan_is_near_the_best():
    plan = small_plan(2)
    every = itertools.product((0, 1), repeat=len(plan.blocks))
    best = min(makespan(plan, owner) for owner in every)
    assert soi_bound_s(plan) <= best * (1 + 1e-12)
    assert soi_makespan_s(plan) == pytest.approx(makespan(plan, plan.block_owner))
    # Graham 1969, for each kind: at most 4/3 - 1/(3 * 2) of the best.
    assert soi_makespan_s(plan) <= 7 / 6 * best


def test_the_tables_account_for_all_micro_batches_blocks_and_work():
    plan = small_plan(3)
    tables = plan_page(plan).tables
    assert sum(tables["chips"]["micro_batches"].to_pylist()) == plan.work.micro_batches
    assert sum(tables["chips"]["soi_blocks"].to_pylist()) == len(plan.blocks)
    work = sum(np.sum(tables["chips"][f"{factor}_blocks_s"].to_pylist()) for factor in "ga")
    assert work == pytest.approx(plan.block_costs.per_step_s.sum())
    assert tables["blocks"]["chip"].to_pylist() == list(plan.block_owner)


def test_what_blocks_are_said_to_take_of_a_step_is_a_part_of_it():
    page = plan_page(small_plan(4))
    figures = {figure.label: figure.number for figure in page.key_figures}
    assert 0 < figures["renewing and solving"] < figures["step"]
    assert "-0.0 %" not in page.answer


@pytest.mark.parametrize("extra", ["optimizer=sgd", "partition=capacity"])
def test_the_command_prints_who_does_what(tmp_path, capsys, extra):
    assert main(["study=plan", f"run_root={tmp_path}", "farm.chips=5", extra]) == 0
    printed = capsys.readouterr().out
    assert "8 micro-batches" in printed
    assert ("lower" in printed) == (extra != "optimizer=sgd")
    (folder,) = (tmp_path / "plan").iterdir()
    assert json.loads((folder / "settings.json").read_text())["farm"]["chips"] == 5
    assert (folder / "report.html").stat().st_size > 10_000


def test_the_fusion_table_says_what_was_chosen_and_what_it_saves():
    fused = (
        "soi.fusion=auto", "inversion=single", "workload=model", "model=digits_mlp",
        "optimizer.factor_decay=0.5", "soi.fused_left_out=0.3", "train.batch_size=32",
        "device.opamp.gbw_hz=null",
    )  # fmt: skip
    plan = planned_step(load_settings(["study=plan", "farm.chips=2", *fused]))
    rows = plan_page(plan).tables["fusion"].to_pylist()
    assert len(rows) == len(plan.blocks)
    assert any(row["fused"] for row in rows)
    # Two batches of 32, which leave out a quarter of the average.
    assert {(row["rows"], row["batches"]) for row in rows} == {(64, 2)}
    for row in rows:
        cheaper = row["fused_s"] is not None and row["fused_s"] < row["apart_s"]
        assert row["fused"] == cheaper
        assert row["saved_s"] == (row["apart_s"] - row["fused_s"] if cheaper else 0)


def test_a_sweep_leaves_one_table_of_settings_that_differ_and_key_figures(tmp_path, capsys):
    words = ["-j", "1", "-m", "study=plan", "farm.chips=1,2"]
    assert main([*words, f"run_root={tmp_path}"]) == 0
    assert "farm.chips" in capsys.readouterr().out.rpartition("Sweep")[0].rpartition("Sweep")[2]
    (folder,) = (tmp_path / "sweep").iterdir()
    rows = pq.read_table(folder / "tables" / "sweep.parquet").to_pylist()
    assert [row["farm.chips"] for row in rows] == [1, 2]
    # A setting that all runs share says nothing.
    assert not any(name.startswith("chip.") for name in rows[0])
    for row in rows:
        answer = json.loads((folder / row["run"] / "answer.json").read_text())
        figures = {item["name"]: item["value"] for item in answer["figures"]}
        assert {name: row[name] for name in figures} == figures
    one, two = (row["SOI work of the busiest chips"] for row in rows)
    assert two < one
    stored = json.loads((folder / "sweep.json").read_text())["points"]
    assert [point["settings"] for point in stored] == [{"farm.chips": 1}, {"farm.chips": 2}]


def test_a_training_run_answers_as_every_study_does(train):
    run_dir = train("farm=inprocess", "farm.chips=1", "model=digits_mlp", "train.max_steps=1")
    answer = json.loads((run_dir / "answer.json").read_text())
    result = json.loads((run_dir / "result.json").read_text())
    figures = {item["name"]: (item["value"], item["unit"]) for item in answer["figures"]}
    assert answer["study"] == "train"
    assert answer["answer"].startswith("After 1 epoch (1 step) the network classifies")
    assert figures["test loss"] == (result["epochs"][-1]["test_loss"], "1")
    assert figures["energy"] == (result["totals"]["energy_j"], "J")


@pytest.mark.parametrize(("fisher", "passes"), [("empirical", 0), ("sampled", 1), ("exact", 10)])
def test_a_plan_has_as_many_backward_passes_for_factors_as_training_makes(fisher, passes):
    for workload in ("workload=lenet5", "workload=model"):
        settings = load_settings([workload, "model=digits_mlp", f"optimizer.fisher={fisher}"])
        assert planned_step(settings).work.fisher_passes == passes

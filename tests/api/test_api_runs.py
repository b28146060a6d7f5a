"""Plans, runs and sweeps from Python hold what the command line writes."""

import dataclasses
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import repast_dist as rd
from repast_dist.cli import main
from repast_dist.ground.errors import RunDirectoryError
from repast_dist.network.tables import network_table

pytestmark = pytest.mark.usefixtures("own_folder")

SMALL = ("farm=inprocess", "farm.chips=2", "model=digits_mlp", "train.max_steps=1")


def test_a_plan_equals_the_study_of_the_same_settings(tmp_path: Path) -> None:
    hardware = rd.load_hardware("repast")
    step = rd.plan("lenet5", hardware, chips=3, batch_size=64, partition="round_robin")
    words = "study=plan chip=repast workload=lenet5 farm.chips=3 train.batch_size=64"
    assert main([*words.split(), "partition=round_robin", f"run_root={tmp_path}"]) == 0
    (folder,) = (tmp_path / "plan").iterdir()
    for name in ("chips", "blocks", "layers"):
        assert step.tables[name].equals(pq.read_table(folder / "tables" / f"{name}.parquet"))


def test_the_tables_of_a_plan_add_up_to_its_figures() -> None:
    step = rd.plan("lenet5", rd.load_hardware(), {"soi.interval": 1}, chips=2)
    figures = step.figures
    assert sum(step.tables["segments"]["time_s"].to_pylist()) == pytest.approx(figures["step_s"])
    static = step.plan.hardware.costs.static_w * 2 * figures["step_s"]
    ops = step.tables["ops"]
    ends_s = ops["start_s"].to_numpy() + ops["duration_s"].to_numpy()
    assert ends_s.max() == pytest.approx(figures["step_s"])
    ops_j = sum(ops["energy_j"].to_pylist())
    assert (ops_j + static) / 128 == pytest.approx(figures["energy_per_sample_j"])
    assert set(step.units) < set(figures)


def test_layers_of_ones_own_are_planned() -> None:
    table = network_table("lenet5")
    mine = dataclasses.replace(table, name="<mine>")
    step = rd.plan(mine, rd.load_hardware(), chips=2)
    assert step.figures == rd.plan("lenet5", rd.load_hardware(), chips=2).figures
    assert "&lt;mine&gt;" in step._repr_html_()
    assert "<mine>" not in step._repr_html_()


def test_a_table_of_ones_own_is_planned_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from typing import Literal\n"
        "from repast_dist.network.tables import network_table\n"
        "from repast_dist.parts import NETWORKS, NetworkTable, spec\n"
        "@NETWORKS.register\n"
        "@spec\n"
        "class Mine(NetworkTable):\n"
        "    name: Literal['mine'] = 'mine'\n"
        "    def workload(self, sequence=None):\n"
        "        return network_table('lenet5')\n"
    )
    step = rd.plan("mine", rd.load_hardware(), plugins=["mine.py"])
    assert step.figures == rd.plan("lenet5", rd.load_hardware()).figures


def test_a_training_run_is_opened_with_its_tables_and_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = rd.train(*SMALL, run_root=tmp_path)
    assert capsys.readouterr().out == "", "nobody reads it"
    assert run.folder.parent == tmp_path / "train"
    result = json.loads((run.folder / "result.json").read_text())
    assert run.figures["energy"] == result["totals"]["energy_j"]
    assert run.units["energy"] == "J"
    assert run.tables["steps"]["loss"].to_pylist() == [result["steps"][0]["loss"]]
    spent = sum(run.tables["trace"]["energy_j"].to_pylist())
    assert spent == pytest.approx(run.figures["energy"])
    assert run.tables["solves"].num_rows > 0
    assert run.settings["farm"]["chips"] == 2
    assert run.report is not None
    assert run.report.as_uri() in run._repr_html_()
    assert rd.open(run.folder).answer == run.answer
    with pytest.raises(RunDirectoryError, match="the run is finished"):
        rd.resume(run.folder)


def test_a_sweep_holds_its_runs_and_one_table_of_them(tmp_path: Path) -> None:
    axes = {"farm.chips": [1, 2], "partition": ["lpt", "round_robin"]}
    sweep = rd.sweep(axes, study="plan", workload="lenet5", run_root=tmp_path, jobs=1)
    rows = sweep.table.to_pylist()
    found = [(row["farm.chips"], row["partition.blocks"]) for row in rows]
    assert found == [(1, "lpt"), (1, "round_robin"), (2, "lpt"), (2, "round_robin")]
    for row, run in zip(rows, sweep.runs, strict=True):
        assert run.settings["farm"]["chips"] == row["farm.chips"]
        assert {name: row[name] for name in run.figures} == run.figures
    assert isinstance(rd.open(sweep.folder), type(sweep))


def test_every_study_leaves_an_answer_that_can_be_opened(tmp_path: Path) -> None:
    where = {"run_root": str(tmp_path / "runs"), "quiet": True}
    runs = [rd.train(*SMALL, seed=seed, **where) for seed in (1, 2)]
    folders = [str(run.folder) for run in runs]
    compared = rd.study("compare", {"study.runs": folders}, **where)
    assert compared.study == "compare"
    assert compared.answer.startswith("2 runs side by side")
    exported = rd.study("export-chakra", "workload=lenet5", "study.chips=2", **where)
    assert exported.answer == "2 Chakra traces of a step of lenet5, one per chip."
    assert rd.study("verify", {"study.run": folders[0]}, **where).folder == runs[0].folder


def test_python_prints_what_the_command_prints_where_it_is_asked_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["study=explain", "chip=repast"]
    assert main([*words, f"run_root={tmp_path / 'a'}"]) == 0
    command = capsys.readouterr().out
    rd.study("explain", "chip=repast", run_root=str(tmp_path / "a"), quiet=False)
    python = capsys.readouterr().out
    assert command.splitlines()[:-2] == python.splitlines()[:-2]
    assert len(command.splitlines()) > 5
    rd.study("explain", "chip=repast", run_root=str(tmp_path / "a"))
    assert capsys.readouterr().out == ""


def test_nothing_in_a_notebook_is_taken_for_a_tag(tmp_path: Path) -> None:
    figure = {"name": "<b>x</b>", "value": 1.5, "unit": "<i>"}
    answer = {"study": "plan", "answer": "<script>", "figures": [figure], "plugins": {}}
    (tmp_path / "answer.json").write_text(json.dumps(answer))
    shown = rd.open(tmp_path)._repr_html_()
    assert not any(tag in shown for tag in ("<b>", "<i>", "<script>"))
    hardware = rd.load_hardware("small", **{"chip.name": "<b>", "chip.source": "<i>"})
    assert not any(tag in hardware._repr_html_() for tag in ("<b>", "<i>"))


def test_the_parts_of_a_chip_are_shown_with_their_sum() -> None:
    hardware = rd.load_hardware()
    text = repr(hardware)
    assert f"{hardware.area_m2 * 1e6:.4g} mm²" in text
    assert f"{hardware.peak_power_w:.4g} W" in text
    shown = hardware._repr_html_()
    assert all(f"<td>{row.component}</td>" in shown for row in hardware.tree)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="no finished run; valid: a folder that holds"):
        rd.open(tmp_path)
    with pytest.raises(RunDirectoryError, match="resume: no run directory at"):
        rd.resume(tmp_path / "none")

"""Runs of any study stand side by side with what differs: settings, key figures, tables."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from repast_dist.ground.errors import RunDirectoryError, StorageError
from repast_dist.settings import load_settings
from repast_dist.studies import answers_beside, run_study
from repast_dist.studies.multirun import run_sweep
from repast_dist.studies.output import read_figures

QUIET = Console(quiet=True)
PLAN = ("study=plan", "workload=lenet5", "chip=repast")


def ask(root, *words):
    return run_study(load_settings([f"run_root={root}", *words]), QUIET)


def compare(root, *runs):
    out = io.StringIO()
    words = ["study=compare", f"run_root={root}", f"study.runs=[{','.join(map(str, runs))}]"]
    folder = run_study(load_settings(words), Console(file=out, width=200))
    return folder, out.getvalue()


def rows_of(folder, name):
    return pq.read_table(folder / "tables" / f"{name}.parquet").to_pylist()


def test_plans_are_compared_by_what_their_tables_say(tmp_path):
    runs = [ask(tmp_path, *PLAN, f"farm.chips={chips}") for chips in (2, 3)]
    folder, said = compare(tmp_path, *runs)
    one, other = rows_of(folder, "runs")
    assert (one["farm.chips"], other["farm.chips"]) == (2, 3)
    assert (one["run"], other["run"]) == ("chips=2", "chips=3")
    for row, run in ((one, runs[0]), (other, runs[1])):
        for name, (value, _) in read_figures(run).items():
            assert row[name] == value
    assert "chips=2" in said
    # Every number that differs is that of the tables, and rows that one run lacks are empty.
    tables = [
        {(row["chip"]): row for row in rows_of(run, "chips")} for run in runs
    ]  # fmt: skip
    differences = [row for row in rows_of(folder, "differences") if row["table"] == "chips"]
    assert differences
    for row in differences:
        for found, name in zip(tables, ("chips=2", "chips=3"), strict=True):
            chip = found.get(int(row["row"]))
            assert row[name] == (None if chip is None else chip[row["column"]])
        assert row["chips=2"] != row["chips=3"]
    assert (folder / "report.html").is_file()
    # In the other order they differ in as much.
    turned, _ = compare(tmp_path, *runs[::-1])
    keys = ("table", "row", "column")
    assert {tuple(row[key] for key in keys) for row in rows_of(turned, "differences")} == {
        tuple(row[key] for key in keys) for row in rows_of(folder, "differences")
    }


def test_rows_are_named_by_what_they_are_of_and_not_by_a_result():
    def table(limit, seconds):
        return pa.table(
            {
                "network": ["lenet5"] * 4,
                "mode": ["strong", "weak"] * 2,
                "chips": [1, 1, 2, 2],
                "step_s": [1.0, 1.0, seconds, 1.0],
                "limited_by": ["compute", "links", limit, "compute"],
                "fits": [True, True, False, True],
            }
        )

    tables = [table("compute", 2.0), table("links", 3.0)]
    assert answers_beside._unequal(tables) == [("lenet5, strong, 2", "step_s", [2.0, 3.0])]


@pytest.mark.parametrize(
    "words",
    [("study=explain",), ("study=device", "device=wan2022"),
     pytest.param(("study=export-chakra", *PLAN[1:]), marks=pytest.mark.slow),
     pytest.param(("study=scaling", "workload=lenet5", "farm=inprocess", "study.chips=[1,2]"),
                  marks=pytest.mark.slow)],
)  # fmt: skip
def test_any_study_is_compared_with_itself_and_with_a_plan(tmp_path, words):
    changed = "device.temperature_k=330.0" if words[0] == "study=device" else "chip=small"
    runs = [ask(tmp_path, *words), ask(tmp_path, *words, changed), ask(tmp_path, *PLAN)]
    folder, _ = compare(tmp_path, *runs[:2])
    assert len(rows_of(folder, "runs")) == 2
    folder, _ = compare(tmp_path, *runs)
    names = [row["run"] for row in rows_of(folder, "runs")]
    assert len(set(names)) == 3
    # All below a folder, but comparisons themselves.
    folder, _ = compare(tmp_path, tmp_path)
    assert len(rows_of(folder, "runs")) == 3


@pytest.mark.slow
def test_the_folder_of_a_sweep_stands_for_its_runs_and_training_runs_stand_beside_plans(tmp_path):
    points = [[*PLAN, f"farm.chips={n}", f"run_root={tmp_path}"] for n in (1, 2)]
    sweep = run_sweep([load_settings(point) for point in points], points, QUIET)
    trained = ask(
        tmp_path, "model=digits_mlp", "farm=inprocess", "farm.chips=1", "train.max_steps=1",
        "dataset.train_samples=32", "dataset.test_fraction=0.02", "train.batch_size=16",
        "train.micro_batch_size=16",
    )  # fmt: skip
    folder, _ = compare(tmp_path / "beside", sweep, trained)
    rows = rows_of(folder, "runs")
    assert [row["farm.chips"] for row in rows] == [1, 2, 1]
    assert rows[2]["test loss"] == read_figures(trained)["test loss"][0]
    assert rows[0]["test loss"] is None


def test_a_study_that_has_not_answered_is_named(tmp_path):
    one, other = (ask(tmp_path, *PLAN, f"farm.chips={chips}") for chips in (1, 2))
    (other / "answer.json").unlink()
    with pytest.raises(RunDirectoryError, match=r"no run directory in it .*answer\.json"):
        compare(tmp_path, one, other)


def test_stored_runs_are_fetched_and_compared(tmp_path):
    store = f"file://{tmp_path / 'store'}"
    for chip in ("small", "repast"):
        ask(tmp_path, "study=explain", f"chip={chip}", f"storage.uri={store}/{chip}")
    folder, said = compare(tmp_path / "elsewhere", f"{store}/small", f"{store}/repast")
    assert f"Fetched:       {store}/small\n" in said
    told = rows_of(folder, "runs")
    assert [row["chip.name"] for row in told] == ["small", "repast"]
    # All else follows from the name, and is told apart from the figures.
    assert "chip.tiles" not in told[0]
    assert [row["chip.tiles"] for row in rows_of(folder, "settings")] == [4, 168]
    beside, _ = compare(tmp_path / "all", store)
    assert [row["run"] for row in rows_of(beside, "runs")] == ["repast", "small"]
    with pytest.raises(StorageError, match="holds no run"):
        compare(tmp_path, f"{store}/none", f"{store}/small")

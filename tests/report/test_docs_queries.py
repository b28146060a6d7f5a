"""Every recipe of docs/queries.md runs as it stands and gives the right answer."""

import contextlib
import io
import json
import re
from pathlib import Path

import duckdb
import pytest
from example_run import write_example_run

from repast_dist.trace import read_trace, step_times, totals

DOCUMENT = Path(__file__).parents[2] / "docs" / "queries.md"
RECIPES = re.findall(r"^```(sql|python)\n(.*?)^```", DOCUMENT.read_text(), re.M | re.S)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_example_run(tmp_path_factory.mktemp("docs") / "run", steps=40, diverging=True)


@pytest.fixture(autouse=True)
def in_run_directory(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run_dir)


def ask(words: str) -> list[tuple]:  # type: ignore[type-arg]
    """Run the one SQL recipe that holds `words`."""
    (query,) = (text for kind, text in RECIPES if kind == "sql" and words in text)
    return duckdb.sql(query).fetchall()


def shown(words: str) -> str:
    """Run the one Python recipe that holds `words` and return what it prints."""
    (code,) = (text for kind, text in RECIPES if kind == "python" and words in text)
    with contextlib.redirect_stdout(io.StringIO()) as text:
        exec(compile(code, str(DOCUMENT), "exec"), {})
    return text.getvalue()


def test_every_recipe_is_run_by_this_file() -> None:
    assert [kind for kind, _ in RECIPES].count("sql") == 5
    assert [kind for kind, _ in RECIPES].count("python") == 5


def test_the_dearest_operation_comes_first_and_shares_add_up(run_dir: Path) -> None:
    rows = ask("AS percent")
    assert rows[0][:2] == ("program", "write_weights")
    total = totals(read_trace(run_dir / "trace"))
    assert rows[0][3] == pytest.approx(100 * rows[0][2] / total.energy_j)


def test_step_times_by_query_equal_those_of_the_package(run_dir: Path) -> None:
    rows = {refreshes: (steps, mean) for refreshes, steps, mean, _ in ask("AS refreshes")}
    ours = step_times(read_trace(run_dir / "trace"))["time_s"].to_numpy()
    assert rows[True][0] == 8
    assert rows[True][1] == pytest.approx(ours[::5].mean())
    assert rows[True][1] > rows[False][1]


def test_writes_per_layer_and_balance_over_chips_are_listed() -> None:
    assert [row[0] for row in sorted(ask("writes_per_step"))] == [0, 1, 2, 3]
    chips = ask("AS computing_s")
    assert [row[0] for row in chips] == [0, 1, 2, 3]
    assert chips[3][1] > chips[0][1]  # the example's last chip is the slowest


def test_hard_blocks_are_found(run_dir: Path) -> None:
    rows = ask("worst_residual")
    failed = {row[0] for row in rows if row[4]}
    blocks = json.loads((run_dir / "result.json").read_text())["blocks"]
    assert failed == {block["index"] for block in blocks if block["n"] > 100}


def test_python_recipes_print_what_they_promise(run_dir: Path) -> None:
    total = totals(read_trace(run_dir / "trace"))
    assert "energy_j double J" in shown("ds.dataset")
    assert "communicate" in shown("pivot")
    assert "spent_j" in shown("join_asof")
    assert f"{total.energy_j} J in 40 steps" in shown("read_solves")
    shown("export_perfetto")
    assert (run_dir / "trace.json.gz").stat().st_size > 1000

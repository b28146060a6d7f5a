"""The report says what the trace says, and works in a real browser without a network."""

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from browser import CHROMIUM, Browser
from example_run import write_example_run

from repast_dist.ground.errors import RunDirectoryError
from repast_dist.ground.files import SETTINGS
from repast_dist.report import figures, library
from repast_dist.report.axes import Axis
from repast_dist.report.page import (
    Column,
    Figure,
    Page,
    Section,
    Table,
    arrow_table,
    render,
    settings_tables,
    write_page,
)
from repast_dist.report.run_data import activity, block_work, load_run, step_bars
from repast_dist.report.run_report import run_page, write_run_report
from repast_dist.report.units import si
from repast_dist.trace import PHASES, trace_batch

_WITHOUT = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


def needs_browser(test):
    """Mark a test that starts a browser, which takes long."""
    return pytest.mark.slow(_WITHOUT(test))


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_example_run(tmp_path_factory.mktemp("runs") / "run", diverging=True, steps=40)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as one:
        yield one


def figures_of(page: Page) -> dict[str, Figure]:
    parts = [part for section in page.sections for part in section.parts]
    return {part.title: part for part in parts if isinstance(part, Figure)}


def test_energies_in_the_report_equal_those_duckdb_finds_in_the_trace(run_dir: Path) -> None:
    run = load_run(run_dir)
    files = f"'{run_dir}/trace/*.parquet'"
    page = run_page(run)
    rows = duckdb.sql(f"select phase::varchar, sum(energy_j) from {files} group by all").fetchall()
    table = next(
        part
        for section in page.sections
        for part in section.parts
        if isinstance(part, Table) and part.title == "Phases"
    )
    assert {row[0]: row[4] for row in table.rows} == {name: pytest.approx(j) for name, j in rows}
    tree = figures_of(page)["Energy by phase and operation"].data[0]
    by_op = duckdb.sql(
        f"select phase || '/' || replace(op, '_', ' '), sum(energy_j) from {files} group by all"
    ).fetchall()
    shown = dict(zip(tree["ids"], tree["values"], strict=True))
    assert {name: shown[name] for name, _ in by_op} == {n: pytest.approx(j) for n, j in by_op}
    total = duckdb.sql(f"select sum(energy_j) from {files}").fetchall()[0][0]
    assert si(total, "J") in page.answer


def test_the_answer_names_accuracy_time_energy_and_what_dominates(run_dir: Path) -> None:
    run = load_run(run_dir)
    answer = run_page(run).answer
    last = run.result["epochs"][-1]
    assert f"{100 * last['test_accuracy']:.1f} %" in answer
    assert "the backward pass takes the most time" in answer
    assert "writing cells the most energy" in answer
    assert answer.count(". ") == 1  # two sentences


def test_the_answer_of_a_run_cut_short_says_when_it_was_tested(run_dir: Path) -> None:
    run = load_run(run_dir)
    *earlier, _ = run.result["epochs"]
    cut = dataclasses.replace(run, result=run.result | {"epochs": earlier})
    answer = run_page(cut).answer
    assert answer.startswith(f"After 1 epoch ({earlier[-1]['step']} steps) the")
    assert "On 4 simulated chips all 40 steps take" in answer
    assert "On 4 simulated chips the run takes" in run_page(run).answer


def test_one_chip_and_one_step_are_no_chips_and_steps(tmp_path: Path) -> None:
    page = run_page(load_run(write_example_run(tmp_path / "run", n_chips=1, steps=1)))
    details = {tile.label: tile.detail for tile in page.key_figures}
    assert details["Simulated energy"] == "1 chip"
    assert details["Simulated time"] == "1 step"


def test_solves_that_missed_their_target_are_announced_at_the_top(run_dir: Path) -> None:
    run = load_run(run_dir)
    failed = sum(not ok for ok in run.solves["converged"].to_pylist())
    note = run_page(run).notes[0]
    assert note.level == "warning"
    assert note.text.startswith(f"{failed} of {run.solves.num_rows} solves did not reach")
    assert "block 4 in step 3" in note.text
    assert f"{failed} were solved again with more damping" in note.text


def test_the_page_says_how_long_the_cells_last(run_dir: Path) -> None:
    page = run_page(load_run(run_dir))
    tile = next(item for item in page.key_figures if item.label == "Life of the cells")
    assert tile.value == "6.75 days"
    tables = [part for section in page.sections for part in section.parts]
    worn = next(part for part in tables if getattr(part, "title", "") == "Wear of the cells")
    assert [row[1] for row in worn.rows] == [1.0, 4.0, 0.2]
    assert (
        "cells of activations and errors wear out first: after 22.7 million epochs" in worn.caption
    )


def test_a_chip_that_computes_half_of_a_step_is_half_busy(run_dir: Path) -> None:
    run = load_run(run_dir)
    busy = activity(run.trace)
    totals = run.result["totals"]
    weights = [totals["chips"][str(chip)]["utilisation"] for chip in busy.chips]
    # One bin per step here: the mean over bins, weighted with time, is the utilisation.
    assert busy.busy.shape == (4, 40)
    assert busy.busy.mean(axis=1) == pytest.approx(weights, rel=0.05)
    assert 0 <= busy.busy.min() <= busy.busy.max() <= 1


def test_the_balance_of_soi_blocks_is_held_against_its_lower_bound(run_dir: Path) -> None:
    run = load_run(run_dir)
    work = block_work(run.trace)
    query = (
        f"select chip, block, sum(duration_s) s from '{run_dir}/trace/*.parquet' "
        "where block >= 0 group by all"
    )
    mean, largest = duckdb.sql(f"select sum(s) / 4, max(s) from ({query})").fetchall()[0]
    busiest = duckdb.sql(f"select max(t) from (select sum(s) t from ({query}) group by chip)")
    assert work.bound_s == pytest.approx(max(mean, largest))
    assert work.busiest_s == pytest.approx(busiest.fetchall()[0][0])
    assert set(work.seconds) == {"inversion", "program"}


def test_chips_that_are_shown_together_all_count_in_the_balance(tmp_path: Path) -> None:
    # Each of 40 chips solves with two blocks as quickly: nothing could be spread better.
    blocks = {"chip": 2 * [*range(40)], "block": [*range(80)]}
    zeros = np.zeros(80, np.int64)
    rows = blocks | {
        "bank": zeros, "step": zeros, "phase": zeros + PHASES.index("inversion"), "op": zeros,
        "start_s": np.repeat([0.0, 1e-6], 40), "duration_s": zeros + 1e-6, "energy_j": zeros + 1e-9,
    }  # fmt: skip
    other = {name: np.array(values[:2]) for name, values in rows.items()}
    batch = trace_batch(rows, ["inv_solve"])
    idle = trace_batch(other | {"chip": [40, 41], "block": [-1, -1]}, ["inv_solve"])
    run = dataclasses.replace(
        load_run(write_example_run(tmp_path / "run", steps=1)),
        trace=pa.Table.from_batches([batch, idle]),
    )
    drawn = figures_of(run_page(run))
    work = drawn["Work on SOI blocks per chip"]
    assert work.data[0]["x"] == ["0 +39", "40 +1"]
    assert list(work.data[0]["y"]) == pytest.approx([2.0, 0.0])
    assert "The busiest chip is 5 % above it." in work.frame.caption  # 80 blocks, 42 chips
    assert "Work of 2 of 42 chips" in drawn["One step (step 0)"].frame.caption


def test_what_stands_out_in_a_long_curve_is_drawn_whichever_step_it_falls_on() -> None:
    values = np.ones(20_000)
    values[[7, 12_345, 19_999]] = (5.0, 0.1, 3.0)
    drawn = figures.line("t", [figures.Curve("c", range(20_000), values)], Axis("x"), Axis("y"))
    x, y = drawn.data[0]["x"], drawn.data[0]["y"]
    assert {0: 1.0, 7: 5.0, 12_345: 0.1, 19_999: 3.0}.items() <= dict(
        zip(x, y, strict=True)
    ).items()
    assert list(x) == sorted(x)
    assert len(x) <= 2002


def test_a_solve_that_is_worst_is_seen_among_thousands_of_steps(run_dir: Path) -> None:
    run = load_run(run_dir)
    one = run.solves.slice(0, 1)
    steps = 1000
    solves = pa.concat_tables([one] * steps).combine_chunks()
    residual = np.full(steps, 1e-6)
    residual[501] = 0.5
    for name, values in (("step", np.arange(steps, dtype=np.int32)), ("residual", residual)):
        solves = solves.set_column(solves.schema.get_field_index(name), name, pa.array(values))
    drawn = figures_of(run_page(dataclasses.replace(run, solves=solves)))
    shown = drawn["Relative residual per SOI block"]
    assert max(shown.data[0]["customdata"][0]) == 0.5
    assert "worst of 3 steps" in shown.frame.caption


def test_gantt_bars_of_a_step_cover_exactly_the_work_of_each_phase(run_dir: Path) -> None:
    run = load_run(run_dir)
    bars = step_bars(run.trace, 5, max_chips=4)
    per_phase = duckdb.sql(
        f"select phase::varchar, sum(duration_s) from '{run_dir}/trace/*.parquet' "
        "where step = 5 and phase not in ('inversion') group by all"
    ).fetchall()
    # Only the inversion phase overlaps with itself in the example.
    for name, seconds in per_phase:
        assert sum(bar[1] for bar in bars.segments[name]) == pytest.approx(seconds)
    assert list(bars.lanes) == ["chip 0", "chip 1", "chip 2", "chip 3"]


def test_a_first_order_run_has_a_report_without_the_inversion_section(tmp_path: Path) -> None:
    run_dir = write_example_run(tmp_path / "run", steps=5)
    for path in (run_dir / "solves").iterdir():
        path.unlink()
    titles = [section.title for section in run_page(load_run(run_dir)).sections]
    assert "Inversion" not in titles
    assert "Chips" in titles


def test_a_network_that_reconstructs_has_no_accuracy_in_its_report(tmp_path: Path) -> None:
    run_dir = write_example_run(tmp_path / "run", steps=40)
    result = json.loads((run_dir / "result.json").read_text())
    result["settings"]["model"]["loss"] = "pixel_cross_entropy"
    for epoch in result["epochs"]:
        epoch |= {"test_accuracy": 0.0, "train_accuracy": 0.0, "test_squared_error": 1.25}
    (run_dir / "result.json").write_text(json.dumps(result))
    page = run_page(load_run(run_dir))
    assert "squared error 1.25 per sample" in page.answer
    assert "accuracy" not in render(page).lower().split('<script type="application/json" id')[0]


def test_a_damaged_result_is_named(tmp_path: Path) -> None:
    run_dir = write_example_run(tmp_path / "run", steps=2)
    (run_dir / "result.json").write_text('{"study": ')
    with pytest.raises(RunDirectoryError, match=r"result\.json: not readable"):
        write_run_report(run_dir)


def test_text_from_settings_cannot_become_markup() -> None:
    evil = '<script>alert("x")</script>'
    table = Table(evil, [Column(evil)], [[evil]])
    figure = Figure(evil, [{"name": "</script>" + evil}], {})
    page = render(Page(evil, evil, evil, [Section(evil, [table, figure], evil)]))
    assert evil not in page
    spec = re.search(r'class="spec" data-for="plot2">(.*?)</script>', page)
    assert spec is not None
    assert json.loads(spec[1])["data"][0]["name"] == "</script>" + evil


def test_links_lead_to_folders_whatever_they_are_called() -> None:
    table = Table("t", [Column("run")], [["here"]], links=["lr #1? 5 %/a:b/report.html"])
    page = render(Page("t", "s", "a", [Section("s", [table])]))
    assert '<a href="lr%20%231%3F%205%20%25/a%3Ab/report.html">here</a>' in page


def test_numbers_that_are_not_finite_become_gaps_in_plots() -> None:
    figure = Figure("f", [{"y": [1.0, float("nan"), float("inf")]}], {})
    page = render(Page("t", "s", "a", [Section("s", [figure])]))
    assert '"y":[1.0,null,null]' in page


def test_arrow_units_become_si_columns_and_constants_show_their_source() -> None:
    schema = pa.schema([pa.field("latency_s", pa.float64(), metadata={"unit": "s"})])
    table = arrow_table("t", pa.table({"latency_s": [2e-9]}, schema=schema))
    assert table.columns[0].name == "latency"
    assert table.columns[0].show(2e-9) == "2.00 ns"
    plain, constants = settings_tables(
        {
            "seed": 1,
            "adc": {
                "energy_j": {"value": 1, "unit": "J", "source": "ISAAC", "confidence": "B"},
                "area_m2": {"value": None, "library": "lib.Adc", "unit": "m2", "source": "ISAAC"},
            },
        }
    )
    assert plain.rows == [["seed", 1]]
    assert constants.rows == [
        ["adc.energy_j", 1, "J", "ISAAC", "B"],
        ["adc.area_m2", "from lib.Adc", "m2", "ISAAC", ""],
    ]


@needs_browser
@pytest.mark.parametrize(
    ("width", "dark"),
    [
        (1200, False),
        (1200, True),
        (390, False),
    ],
)
def test_the_report_draws_every_plot_without_errors_or_requests(
    run_dir: Path, browser: Browser, width: int, dark: bool
) -> None:
    path = write_run_report(run_dir)
    browser.open(path, width=width, dark=dark)
    expected = len(figures_of(run_page(load_run(run_dir))))
    drawn = browser.evaluate("document.querySelectorAll('.plot:has(.main-svg)').length")
    assert drawn == expected >= 11
    assert browser.evaluate("document.querySelectorAll('.trace.bars path').length") > 40
    assert browser.problems() == []
    asked = browser.requests()
    assert [url for url in asked if not url.startswith(("file://", "data:"))] == []
    # Nothing makes the page scroll sideways.
    assert browser.evaluate("document.documentElement.scrollWidth") <= width


@needs_browser
def test_pages_of_runs_share_one_plotting_library(tmp_path: Path, browser: Browser) -> None:
    figure = Figure("f", [{"y": [1.0, 2.0]}], {})
    page = Page("t", "s", "a", [Section("s", [figure])])
    root = tmp_path / "runs"
    runs = [root / "train" / "2026-01-31_12-00-00", root / "sweep" / "2026-01-31_12-00-00_2"]
    for run in (*runs, runs[1] / "0001"):
        run.mkdir(parents=True)
        write_page(page, run / "report.html")
        assert (run / "report.html").stat().st_size < 100_000
        browser.open(run / "report.html")
        assert browser.evaluate("document.querySelectorAll('.plot:has(.main-svg)').length") == 1
        assert browser.problems() == []
    (shared,) = root.glob("*.js")
    assert shared.stat().st_size > 3_000_000
    # A page that was moved says what is missing; one that stands alone draws anywhere.
    moved = tmp_path / "moved.html"
    moved.write_text((runs[0] / "report.html").read_text())
    browser.open(moved)
    assert "study.standalone=true" in browser.evaluate("document.body.innerText")
    for beside in (tmp_path / "other", tmp_path / "other" / "folder"):
        # The library in its own folder or one above is found.
        beside.mkdir()
        (tmp_path / "other" / shared.name).write_bytes(shared.read_bytes())
        (beside / "moved.html").write_text(moved.read_text())
        browser.open(beside / "moved.html")
        assert browser.evaluate("document.querySelectorAll('.plot:has(.main-svg)').length") == 1
    write_page(page, runs[0] / "report.html", standalone=True)
    moved.write_text((runs[0] / "report.html").read_text())
    browser.open(moved)
    assert browser.evaluate("document.querySelectorAll('.plot:has(.main-svg)').length") == 1


@needs_browser
def test_pages_outside_the_folder_of_runs_share_a_library_beside_them(
    tmp_path: Path, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = Page("t", "s", "a", [Section("s", [Figure("f", [{"y": [1.0, 2.0]}], {})])])
    runs = [tmp_path / "mine" / name for name in ("a", "b")]
    for run in runs:
        run.mkdir(parents=True)
        (run / SETTINGS).write_text("{}")
        write_page(page, run / "report.html")
        assert {item.name for item in run.iterdir()} == {SETTINGS, "report.html"}
        assert (run / "report.html").stat().st_size < 100_000
    # One that is in no run directory, such as that of a list of runs, has it in its own folder.
    write_page(page, tmp_path / "mine" / "index.html")
    (shared,) = tmp_path.rglob("*.js")
    assert shared.parent == tmp_path / "mine"
    for path in (runs[1] / "report.html", tmp_path / "mine" / "index.html"):
        browser.open(path)
        assert browser.evaluate("document.querySelectorAll('.plot:has(.main-svg)').length") == 1
        assert browser.problems() == []
    # Where it cannot be put, it is in the page.
    shared.unlink()

    def refused(*_: object, **__: object) -> tuple[int, str]:
        raise PermissionError

    monkeypatch.setattr(library.tempfile, "mkstemp", refused)
    write_page(page, runs[0] / "report.html")
    browser.open(runs[0] / "report.html")
    assert browser.evaluate("document.querySelectorAll('.plot:has(.main-svg)').length") == 1


@needs_browser
def test_a_page_that_asks_for_the_network_is_stopped_and_noticed(
    tmp_path: Path, browser: Browser
) -> None:
    path = tmp_path / "page.html"
    write_page(Page("t", "s", "a", []), path)
    path.write_text(
        path.read_text().replace("</main>", '<img src="http://127.0.0.1:9/x.png"></main>')
    )
    browser.open(path)
    assert any("127.0.0.1:9" in text for text in [*browser.problems(), *browser.requests()])


@needs_browser
def test_tables_sort_by_value_and_back(run_dir: Path, browser: Browser) -> None:
    browser.open(write_run_report(run_dir))
    column = (
        "[...[...document.querySelectorAll('h3')].find(h => h.textContent === 'Phases')"
        ".parentElement.querySelectorAll('tbody tr')].map(r => parseFloat(r.cells[4].dataset.v))"
    )
    press = (
        "[...document.querySelectorAll('h3')].find(h => h.textContent === 'Phases')"
        ".parentElement.querySelectorAll('th button')[4].click()"
    )
    before = browser.evaluate(column)
    browser.evaluate(press)
    assert browser.evaluate(column) == sorted(before) != before
    browser.evaluate(press)
    assert browser.evaluate(column) == sorted(before, reverse=True)


@needs_browser
def test_dark_mode_redraws_plots_and_printing_opens_folded_tables(
    run_dir: Path, browser: Browser, tmp_path: Path
) -> None:
    browser.open(write_run_report(run_dir))
    colour = "document.querySelector('.trace.bars path').style.fill"
    light = browser.evaluate(colour)
    browser.media(dark=True)
    assert browser.evaluate(colour) != light
    assert browser.evaluate("document.querySelectorAll('details[open]').length") == 0
    browser.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert browser.evaluate(colour) == light
    assert browser.evaluate("document.querySelectorAll('details:not([open])').length") == 0
    browser.evaluate("window.dispatchEvent(new Event('afterprint'))")
    browser.pdf(tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")


def test_importing_the_report_does_not_pull_in_ray_or_hydra() -> None:
    script = (
        "import sys, repast_dist.report.run_report; "
        "print([m for m in ('ray', 'hydra', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"

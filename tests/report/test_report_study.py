"""Study pages and comparisons: every number comes from the tables, every chart is drawn."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from browser import CHROMIUM, Browser
from example_run import write_example_run

from repast_dist.ground.errors import RunDirectoryError
from repast_dist.report import palette
from repast_dist.report.axes import Axis, log_ticks
from repast_dist.report.compare import (
    comparison_page,
    comparison_table,
    find_runs,
    load_comparison,
    write_comparison,
)
from repast_dist.report.page import Figure, Frame, KeyFigure, Table
from repast_dist.report.point_figures import Mark, Marks, scatter
from repast_dist.report.study_page import (
    Chart,
    StudyPage,
    StudySection,
    chart_figure,
    study_page,
    write_study,
)


def with_units(columns: dict[str, list], units: dict[str, str]) -> pa.Table:  # type: ignore[type-arg]
    table = pa.table(columns)
    fields = [
        field.with_metadata({"unit": units[field.name]}) if field.name in units else field
        for field in table.schema
    ]
    return table.cast(pa.schema(fields))


def scaling_table() -> pa.Table:
    chips = [1, 2, 4, 8, 16] * 2
    networks = ["vgg16"] * 5 + ["resnet50"] * 5
    seconds = [8e-3 / n * (1 + 0.02 * n) for n in chips[:5]] + [3e-3 / n + 1e-4 for n in chips[5:]]
    return with_units(
        {
            "network": networks,
            "chips": chips,
            "time_s": seconds,
            "low_s": [0.9 * s for s in seconds],
            "high_s": [1.1 * s for s in seconds],
            "efficiency": [seconds[i - i % 5] / (seconds[i] * chips[i]) for i in range(10)],
        },
        {"time_s": "s", "low_s": "s", "high_s": "s", "efficiency": "fraction"},
    )


def residual_map() -> pa.Table:
    noise, damping = np.meshgrid([0.0, 0.005, 0.01, 0.03], [1e-3, 1e-2, 1e-1])
    return pa.table(
        {
            "noise": noise.ravel(),
            "damping": damping.ravel(),
            "residual": (1e-6 + noise.ravel() ** 2 / damping.ravel()).tolist(),
            "method": ["fcg"] * 12,
        }
    )


def example_study() -> StudyPage:
    tables = {
        "scaling": scaling_table(),
        "residuals": residual_map(),
        "phases": with_units(
            {
                "network": ["vgg16"] * 3 + ["resnet50"] * 3,
                "phase": ["forward", "inversion", "program"] * 2,
                "part": ["adc", "adc", "cells"] * 2,
                "energy_j": [1e-3, 4e-3, 2e-3, 5e-4, 1e-3, 1e-3],
            },
            {"energy_j": "J"},
        ),
        "sensitivity": pa.table(
            {
                "constant": ["adc energy", "write energy", "link rate"],
                "halved": [12.0, 11.0, 9.5],
                "doubled": [7.0, 8.0, 10.5],
            }
        ),
    }
    charts = [
        Chart("line", "scaling", "Time of a step", "chips", "time_s", series="network",
              band=("low_s", "high_s"), log_x=True, log_y=True),
        Chart("line", "scaling", "Efficiency", "chips", "efficiency", series="network",
              log_x=True, references={"target": 0.8}),
        Chart("bars", "phases", "Energy by phase", "network", "energy_j", series="phase",
              stacked=True, references={"published": 5e-3}),
        Chart("heat_map", "residuals", "Residual", "noise", "damping", value="residual",
              where={"method": "fcg"}, log_value=True),
        Chart("treemap", "phases", "Energy", "phase", "part", value="energy_j",
              where={"network": "vgg16"}),
        Chart("tornado", "sensitivity", "Speedup when a constant changes", "constant",
              band=("halved", "doubled"), base=10.0, axis="speedup"),
    ]  # fmt: skip
    return StudyPage(
        study="scaling",
        title="Scaling",
        answer="Two networks scale to 16 chips. Efficiency falls to 80 %.",
        tables=tables,
        sections=[StudySection("Results", charts, list(tables))],
        key_figures=[KeyFigure("Networks", "2")],
        sources=[("ADC energy", "ISAAC, B")],
        settings={"farm": {"chips": 4}},
        versions={"numpy": "2.3"},
        command="repast-dist study=scaling",
    )


def figure(title: str) -> Figure:
    parts = study_page(example_study()).sections[0].parts
    return next(part for part in parts if isinstance(part, Figure) and part.title == title)


def test_a_study_leaves_its_page_and_its_tables_with_units(tmp_path: Path) -> None:
    write_study(example_study(), tmp_path)
    stored = pq.read_table(tmp_path / "tables" / "scaling.parquet")
    assert stored.equals(scaling_table())
    assert stored.schema.field("time_s").metadata == {b"unit": b"s"}
    assert "tables/scaling.parquet" in (tmp_path / "report.html").read_text()


def test_curves_are_in_the_unit_of_the_axis_and_sorted() -> None:
    chart = figure("Time of a step")
    assert chart.layout["yaxis"]["title"]["text"] == "time, ms"
    curve = next(trace for trace in chart.data if trace.get("name") == "vgg16")
    assert curve["x"] == [1, 2, 4, 8, 16]
    assert curve["y"][0] == pytest.approx(8.16)
    edges = [trace["y"][0] for trace in chart.data if trace.get("legendgroup") == "vgg16"]
    assert edges == [pytest.approx(0.9 * 8.16), pytest.approx(1.1 * 8.16)]


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([1.27, 2.24], [1.2, 1.4, 1.6, 1.8, 2.0, 2.2, 2.4]),
        ([3.0, 80.0], [1, 2, 5, 10, 20, 50, 100, 200, 500]),
        ([1e-9, 1.0], [1e-10, 1e-8, 1e-6, 1e-4, 1e-2, 1.0]),
    ],
)
def test_a_logarithmic_axis_has_several_round_ticks(
    values: list[float], ticks: list[float]
) -> None:
    assert log_ticks(values)["tickvals"] == pytest.approx(ticks)


def test_points_that_are_not_joined_have_marks_and_no_line() -> None:
    def modes(**changes: object) -> set[str]:
        chart = Chart("line", "scaling", "t", "chips", "time_s", series="network", **changes)  # type: ignore[arg-type]
        return {trace["mode"] for trace in chart_figure(chart, scaling_table()).data}

    assert modes(joined=False) == {"markers"}
    assert modes() == {"lines+markers"}
    assert modes(marked="resnet") == {"markers", "lines+markers"}


def test_a_published_figure_is_drawn_at_its_value_on_the_scaled_axis() -> None:
    layout = figure("Energy by phase").layout
    assert layout["yaxis"]["title"]["text"] == "energy, mJ"
    assert layout["shapes"][0]["y0"] == pytest.approx(5.0)
    assert layout["annotations"][0]["text"] == "published"


def test_on_a_logarithmic_axis_marks_stand_side_by_side_in_place_of_bars() -> None:
    table = pa.table({"net": ["a", "b"] * 2, "of": ["x", "x", "y", "y"], "n": [1.0, 10.0, 0.1, 5]})
    chart = Chart("bars", "t", "T", "net", "n", series="of", log_y=True)
    drawn = chart_figure(chart, table)
    assert [trace["type"] for trace in drawn.data] == ["scatter", "scatter"]
    assert [list(trace["y"]) for trace in drawn.data] == [[1.0, 10.0], [0.1, 5.0]]
    assert drawn.data[0]["offsetgroup"] != drawn.data[1]["offsetgroup"]
    assert drawn.layout["scattermode"] == "group"


def test_stacked_bars_have_no_more_names_than_colours_and_the_same_sums() -> None:
    names = [f"part {k:02d}" for k in range(20)]
    share = {"a": [k / 190 for k in range(20)], "b": [0.0, *[1 / 19] * 19]}
    rows = [(net, name, share[net][k]) for net in "ab" for k, name in enumerate(names)]
    columns = zip(("net", "part", "share"), zip(*rows, strict=True), strict=True)
    table = pa.table({name: list(values) for name, values in columns})
    drawn = chart_figure(
        Chart("bars", "t", "T", "net", "share", series="part", stacked=True), table
    )
    assert len(drawn.data) == palette.COLOURS
    # The first is nothing in both.
    assert drawn.data[-1]["name"] == "12 others"
    assert [trace["name"] for trace in drawn.data[:2]] == ["part 13", "part 14"]
    assert len({trace["marker"]["color"] for trace in drawn.data}) == palette.COLOURS
    assert np.sum([trace["y"] for trace in drawn.data], axis=0) == pytest.approx([1.0, 1.0])


def test_names_with_brackets_are_not_taken_for_tags() -> None:
    odd = "bits<8, noise>1 %"
    shown = "bits&lt;8, noise&gt;1 %"
    table = pa.table({"variant": [odd, odd], "x": [1, 2], "loss": [1.0, 2.0]})
    lines = chart_figure(Chart("line", "t", "t", x="x", y="loss", series="variant"), table)
    assert lines.data[0]["name"] == shown
    bars = chart_figure(Chart("bars", "t", "t", x="variant", y="loss", series="x"), table)
    assert list(bars.data[0]["x"]) == [shown]
    heat = Chart("heat_map", "t", "t", x="x", y="variant", value="loss")
    assert list(chart_figure(heat, table).data[0]["y"]) == [shown]
    tree = Chart("treemap", "t", "t", x="variant", y="x", value="loss")
    assert shown in chart_figure(tree, table).data[0]["labels"]
    points = Marks('a "quoted" <b>', [Mark(1.0, 2.0, ['say "a" & <b>'])])
    (drawn,) = scatter("t", [points], Axis("x"), Axis("y"), Frame()).data
    assert drawn["name"] == 'a "quoted" &lt;b&gt;'
    assert drawn["text"][0] == 'say "a" &amp; &lt;b&gt;'


def test_an_area_on_an_axis_is_what_the_table_says() -> None:
    table = with_units({"chips": [1, 2], "area_m2": [2.5e-5, 5e-5]}, {"area_m2": "m2"})
    drawn = chart_figure(Chart("line", "t", "t", x="chips", y="area_m2"), table)
    assert drawn.layout["yaxis"]["title"]["text"] == "area, mm2"
    assert drawn.data[0]["y"] == pytest.approx([25.0, 50.0])


def test_a_setting_that_is_none_is_drawn_as_one_more_value() -> None:
    table = pa.table(
        {"a.gbw_hz": [1e8, None, 1e8, None], "chips": [1, 1, 2, 2], "loss": [1.0, 2.0, 3.0, 4.0]}
    )
    lines = chart_figure(Chart("line", "t", "t", x="chips", y="loss", series="a.gbw_hz"), table)
    assert {it["name"]: list(it["y"]) for it in lines.data} == {
        "a.gbw_hz 1e+08": [1.0, 3.0],
        "a.gbw_hz –": [2.0, 4.0],
    }
    bars = chart_figure(Chart("bars", "t", "t", x="a.gbw_hz", y="loss", series="chips"), table)
    assert {it["name"]: (list(it["x"]), list(it["y"])) for it in bars.data} == {
        "chips 1": (["–", "1e+08"], [2.0, 1.0]),
        "chips 2": (["–", "1e+08"], [4.0, 3.0]),
    }
    over = Chart("line", "t", "t", x="a.gbw_hz", y="loss", series="chips", log_x=True)
    drawn = chart_figure(over, table)
    assert [list(it["y"]) for it in drawn.data] == [[1.0], [3.0]]
    assert drawn.frame.caption == "2 rows without a number of 'a.gbw_hz' not shown."


def test_a_heat_map_places_each_value_at_its_settings() -> None:
    trace = figure("Residual").data[0]
    assert trace["x"] == ["0", "0.005", "0.01", "0.03"]
    assert trace["y"] == ["0.001", "0.01", "0.1"]
    assert trace["z"][0][3] == pytest.approx(np.log10(1e-6 + 0.03**2 / 1e-3))


def test_a_tornado_puts_the_widest_swing_first_and_starts_bars_at_the_middle() -> None:
    low, high = figure("Speedup when a constant changes").data
    assert low["y"] == ["adc energy", "write energy", "link rate"]
    assert (low["base"][0], low["x"][0], high["x"][0]) == (10.0, 2.0, -3.0)


def test_a_chart_of_an_unknown_column_or_table_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"no column speed in table 'scaling'; valid: network"):
        chart_figure(Chart("line", "scaling", "t", "chips", "speed"), scaling_table())
    broken = StudyPage("s", "t", "a", {}, [StudySection("Results", tables=["gone"])])
    with pytest.raises(ValueError, match="'Results': no table 'gone'"):
        study_page(broken)


@pytest.fixture
def two_runs(tmp_path: Path) -> list[Path]:
    first = write_example_run(tmp_path / "runs" / "a", n_chips=2, steps=20)
    second = write_example_run(tmp_path / "runs" / "b", n_chips=4, steps=40, seed=2)
    return [first, second]


def test_a_comparison_lists_exactly_the_settings_that_differ(two_runs: list[Path]) -> None:
    comparison = load_comparison(two_runs)
    assert comparison.differing == {"farm.chips": ["2", "4"]}
    assert comparison.names == ["chips=2", "chips=4"]
    result = json.loads((two_runs[1] / "result.json").read_text())
    result["settings"]["inversion"]["method"] = "refine"
    result["status"] = "interrupted"
    (two_runs[1] / "result.json").write_text(json.dumps(result))
    changed = load_comparison(two_runs)
    assert changed.differing["inversion.method"] == ["fcg", "refine"]
    assert changed.names == ["fcg", "refine"]
    assert "interrupted" in comparison_page(changed).notes[0].text


def test_a_comparison_puts_each_run_s_own_totals_side_by_side(two_runs: list[Path]) -> None:
    rows = comparison_table(load_comparison(two_runs)).to_pylist()
    for row, path in zip(rows, two_runs, strict=True):
        result = json.loads((path / "result.json").read_text())
        assert row["energy_j"] == pytest.approx(result["totals"]["energy_j"])
        assert row["time_s"] == pytest.approx(result["totals"]["time_s"])
        assert row["test_accuracy"] == result["epochs"][-1]["test_accuracy"]
        assert row["steps"] == result["totals"]["steps"]


def test_loss_over_energy_ends_at_the_energy_spent_by_the_last_epoch(two_runs: list[Path]) -> None:
    comparison = load_comparison(two_runs)
    parts = [part for section in comparison_page(comparison).sections for part in section.parts]
    chart = next(p for p in parts if p.title == "Test loss over simulated energy")  # type: ignore[union-attr]
    assert isinstance(chart, Figure)
    for curve, total in zip(chart.data, comparison.totals, strict=True):
        assert curve["x"][-1] == pytest.approx(1e3 * total.energy_j)
    assert chart.layout["xaxis"]["title"]["text"] == "simulated energy, mJ"
    assert any(isinstance(part, Table) and part.title == "Settings that differ" for part in parts)


def test_runs_are_found_below_a_folder_and_one_run_is_not_enough(two_runs: list[Path]) -> None:
    assert find_runs(two_runs[0].parent) == two_runs
    with pytest.raises(RunDirectoryError, match="at least two runs"):
        load_comparison(two_runs[:1])
    (two_runs[0].parent / "empty").mkdir()
    with pytest.raises(RunDirectoryError, match="no run directory"):
        find_runs(two_runs[0].parent / "empty")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_study_and_comparison_pages_draw_in_a_browser(tmp_path: Path, two_runs: list[Path]) -> None:
    study = write_study(example_study(), tmp_path / "study")
    compare = write_comparison(two_runs, tmp_path / "compare.html")
    with Browser() as browser:
        for path, plots in ((study, 6), (compare, 5)):
            browser.open(path)
            assert (
                browser.evaluate("document.querySelectorAll('.plot:has(.main-svg)').length")
                == plots
            )
            assert browser.problems() == []
            assert all(url.startswith(("file:", "data:")) for url in browser.requests())

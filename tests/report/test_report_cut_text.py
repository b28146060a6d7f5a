"""No text of a page is cut: pages of runs in a browser as wide as a desk's and as a phone's."""

import os
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser
from rich.console import Console

from repast_dist.report.axes import Axis
from repast_dist.report.figures import Swing, tornado
from repast_dist.report.page import Column, Figure, Page, Section, Table, write_page
from repast_dist.settings import load_settings
from repast_dist.studies import run_study

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]
CUT_TEXT = (Path(__file__).parent / "cut_text.js").read_text()
STUDIES = {
    "train": ("model=digits_mlp", "farm=inprocess", "train.max_steps=4", "train.epochs=1",
              "dataset.train_samples=96", "train.batch_size=32", "dataset.test_fraction=0.05"),
    "explain": ("study=explain", "chip=repast"),
    "plan": ("study=plan", "workload=resnet18", "chip=repast", "farm.chips=3"),
    "device": ("study=device", "device=wan2022"),
    "scaling": ("study=scaling", "workload=lenet5", "farm=inprocess", "study.chips=[1,2,4]"),
}  # fmt: skip
WIDTHS = (1280, 400)


@pytest.fixture(scope="module")
def browser():
    with Browser(120) as one:
        yield one


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    made = {}

    def run(name):
        if name not in made:
            words = STUDIES.get(name)
            if words is None:
                runs = f"[{run('train')},{run('plan')}]"
                words = ("study=compare", f"study.runs={runs}")
            settings = load_settings([f"run_root={root}", *words])
            made[name] = run_study(settings, Console(quiet=True))
        return made[name]

    return run


def cut(browser, page, width):
    browser.open(page, width=width)
    assert browser.problems() == []
    return browser.evaluate(CUT_TEXT)


@pytest.mark.skipif(os.environ.get("REPAST_FUZZ") != "full", reason="takes half a minute")
def test_the_page_of_the_headline_shows_all_of_its_text(tmp_path, browser):
    words = ("study=headline", "farm=inprocess", "study.networks=[lenet5]",
             "study.sensitive=[lenet5]", f"run_root={tmp_path}")  # fmt: skip
    page = run_study(load_settings(words), Console(quiet=True)) / "report.html"
    for width in WIDTHS:
        assert cut(browser, page, width) == [], width


@pytest.mark.parametrize("name", [*STUDIES, "compare"])
def test_pages_of_runs_show_all_of_their_text(runs, browser, name):
    page = runs(name) / "report.html"
    for width in WIDTHS:
        assert cut(browser, page, width) == [], width


def test_all_names_of_a_long_legend_are_seen(tmp_path, browser):
    names = [f"the {number}th of many operations" for number in range(18)]
    curves = [{"y": [1.0, number], "name": name} for number, name in enumerate(names)]
    figure = Figure("Many curves", curves, {"showlegend": True})
    write_page(Page("t", "s", "a", [Section("s", [figure])]), tmp_path / "page.html")
    for width in WIDTHS:
        assert cut(browser, tmp_path / "page.html", width) == []
        shown = "[...document.querySelectorAll('.legendtext')].map(text => text.textContent)"
        assert browser.evaluate(shown) == names
        # The curves keep the height that they would have without a legend, or nearly.
        area = "document.querySelector('.plot .nsewdrag').getBoundingClientRect()"
        assert browser.evaluate(f"{area}.height") > 200


def test_a_long_title_below_bars_with_long_labels_is_seen_whole(tmp_path, browser):
    swings = [Swing(f"energy of the {n}th component of the array", 1.0, 3.0) for n in range(3)]
    result = Axis("energy saving over the other, geometric mean of 16 networks")
    figure = tornado("What decides", swings, 2.0, result, ("halved", "doubled"))
    write_page(Page("t", "s", "a", [Section("s", [figure])]), tmp_path / "page.html")
    for width in WIDTHS:
        assert cut(browser, tmp_path / "page.html", width) == []


@pytest.mark.parametrize(
    ("spoilt", "told"),
    [
        (".answer { overflow: hidden; white-space: nowrap; width: 80px }", "cut at the right"),
        (".answer { overflow: hidden; height: 9px }", "cut at the bottom"),
        (".scroll { background: none; max-height: 60px }", "nothing says that it scrolls"),
        (".answer { white-space: nowrap }", "the page scrolls sideways"),
        (".plot svg text.xtitle { transform: translate(0, 30px) }", "beyond its figure"),
    ],
)
def test_what_is_cut_is_found(tmp_path, browser, spoilt, told):
    table = Table("Rows", [Column("name")], [[f"row {n}"] for n in range(20)])
    layout = {"xaxis": {"title": {"text": "steps"}}}
    parts = [table, Figure("One curve", [{"y": [1.0, 2.0]}], layout)]
    page = Page("t", "s", "an answer that is long. " * 20, [Section("s", parts)])
    write_page(page, tmp_path / "page.html")
    assert cut(browser, tmp_path / "page.html", 1280) == []
    browser.evaluate(
        f"document.head.append(Object.assign(document.createElement('style'), "
        f"{{textContent: {spoilt!r}}}))"
    )
    assert any(told in line for line in browser.evaluate(CUT_TEXT))

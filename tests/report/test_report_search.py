"""The page of a search: every point is drawn, and a click shows its settings."""

import io
import itertools
import json

import pyarrow.parquet as pq
import pytest
from browser import CHROMIUM, Browser
from rich.console import Console

from repast_dist.settings import load_settings
from repast_dist.studies import run_study

pytest.importorskip("optuna")

STUDY = {
    "name": "search",
    "question": "Which <chip> is best?",
    "measures": {"cost": {"kind": "cost"}},
    "parameters": {
        "chip.tiles": {"low": 4, "high": 200},
        "converters": {"one": {"chip.vmm.adcs_per_array": 1}, "4": {"chip.vmm.adcs_per_array": 4}},
        "chip.residual.arrays_per_bank": [1, 2, 8],
    },
    "objectives": {"cost.step_s": "lowest", "cost.energy_per_sample_j": "lowest"},
    "constraints": {"cost.area_m2": {"at_most": 3e-4}},
    "sampler": {"kind": "random"},
    "points": 24,
}


@pytest.fixture(scope="module", params=[2, 1], ids=["front", "one objective"])
def folder(request, tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("search")
    objectives = dict(list(STUDY["objectives"].items())[: request.param])
    (tmp_path / "my" / "study").mkdir(parents=True)
    text = json.dumps(STUDY | {"objectives": objectives})
    (tmp_path / "my" / "study" / "mine.yaml").write_text(text)
    settings = load_settings(
        [
            "study=mine", "chip=repast", "workload=lenet5", "farm.backend=inprocess",
            "farm.chips=1", f"run_root={tmp_path}",
        ],
        tmp_path / "my",
    )  # fmt: skip
    return run_study(settings, Console(file=io.StringIO()))


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [1280, 400])
def test_every_point_is_drawn_and_a_click_shows_its_settings(folder, width):
    points = pq.read_table(folder / "tables" / "points.parquet").to_pylist()
    shown = {f"point-{row['point']}" for row in points if row["state"] != "refused"}
    with Browser(120) as browser:
        browser.open(folder / "report.html", width=width)
        assert browser.problems() == []
        assert browser.evaluate("document.querySelector('h1').textContent") == STUDY["question"]
        drawn = browser.evaluate(
            "[...document.querySelectorAll('.plot')].map(div => div.data.flatMap("
            "trace => trace.customdata ?? []).filter(name => name))"
        )
        # The first plot is the front, or the best so far; the last is the lines of all points.
        assert set(drawn[0]) == shown
        assert set(drawn[-1]) == shown
        row = next(row for row in points if row["state"] not in ("refused", "front", "best"))
        pairs = browser.evaluate(
            "(() => { const div = document.querySelector('.plot');"
            f"div.emit('plotly_click', {{points: [{{customdata: 'point-{row['point']}'}}]}});"
            "return [...div.closest('figure').querySelectorAll('.chosen div')].map("
            "pair => [pair.querySelector('dt').textContent, pair.querySelector('dd').textContent])"
            "})()"
        )
        found = dict(pairs)
        assert found["point"] == str(row["point"])
        assert found["chip.tiles"] == str(row["chip.tiles"])
        assert found["converters"] == row["converters"]
        # Another click takes its place.
        browser.evaluate(
            "document.querySelector('.plot').emit("
            f"'plotly_click', {{points: [{{customdata: {json.dumps(drawn[0][0])}}}]}})"
        )
        assert browser.evaluate("document.querySelectorAll('.chosen').length") == 1
        # No labels of an axis lie on each other, and its ends have theirs.
        labels = browser.evaluate(
            "(() => { const div = [...document.querySelectorAll('.plot')].at(-1);"
            "return div.layout.annotations.map(({x, y, text}, number) => {"
            'const node = div.querySelector(`.annotation[data-index="${number}"]`);'
            "const {left, right} = node.getBoundingClientRect();"
            "return {x, y, text, left, right, shown: node.style.display !== 'none'}})})()"
        )
        for height in {label["y"] for label in labels}:
            axis = sorted((e for e in labels if e["y"] == height), key=lambda label: label["x"])
            seen = [label for label in axis if label["shown"]]
            assert seen[0] == axis[0]
            for label, following in itertools.pairwise(seen):
                assert label["right"] < following["left"], (label, following)
        # Nothing is wider than the page, and no tile cuts its text.
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
        inside = "document.querySelectorAll('.tile *')"
        cut = f"[...{inside}].filter(part => part.scrollWidth > part.clientWidth + 1)"
        assert browser.evaluate(f"{cut}.length") == 0

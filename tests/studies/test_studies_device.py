"""``study=device``: drawn cells beside the table they are drawn from."""

import json

import pyarrow.parquet as pq
import pytest

from repast_dist.cli import main


def answered(root, *overrides):
    assert main([f"run_root={root}", "study=device", *overrides]) == 0
    (answer,) = root.rglob("answer.json")
    figures = {f["name"]: f["value"] for f in json.loads(answer.read_text())["figures"]}
    return answer.parent, figures


def test_drawn_cells_lie_beside_the_data_on_page_and_in_tables(tmp_path):
    folder, figures = answered(tmp_path, "device=cmo_hfox", "study.cells=4000")
    assert figures["largest difference, mean"] < 0.002
    assert figures["largest difference, sigma"] < 0.002
    assert figures["spread, all cells"] == pytest.approx(0.416e-6, rel=0.01)
    rows = pq.read_table(folder / "tables" / "cells.parquet").to_pylist()
    measured = [row for row in rows if row["kind"] == "measured"]
    assert len(measured) == 45
    fallen = {row["time_s"]: row["off_target_siemens"] for row in measured}
    assert fallen[604800.0] == pytest.approx(-1.185e-6, rel=1e-3)
    page = (folder / "report.html").read_text()
    assert "cmo_hfox.csv" in page
    assert "measured, 86.4 ks" in page


def test_cells_of_both_kinds_that_differ_are_drawn_apart(tmp_path):
    folder, figures = answered(tmp_path, "device=reram", "study.cells=1000", "study.targets=5")
    assert figures["spread, multiplying cells"] == pytest.approx(0.005 * 34.5e-6)
    assert figures["spread, inverting cells"] == pytest.approx(0.01 * 34.5e-6)
    rows = pq.read_table(folder / "tables" / "cells.parquet").to_pylist()
    assert {row["cells"] for row in rows} == {"multiplying", "inverting"}
    assert "formula" in json.loads((folder / "answer.json").read_text())["answer"]


def test_an_age_beyond_the_table_is_noted(tmp_path):
    folder, _ = answered(
        tmp_path, "device=wan2022_aged", "device.age_s=1e6", "study.cells=500", "study.targets=3"
    )
    assert "beyond the last measurement" in (folder / "report.html").read_text()

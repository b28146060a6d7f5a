"""The page of all runs."""

import dataclasses
import json
from pathlib import Path

import pytest

from repast_dist.cli import main
from repast_dist.ground.files import RESULT, read_json, write_json
from repast_dist.studies import runs
from repast_dist.studies.run_directory import locked


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("lab") / "my runs"
    fast = ["model=digits_mlp", "optimizer=sgd", "engine=float64", "train.max_steps=2",
            "train.epochs=1", "farm.backend=inprocess", f"run_root='{root}'"]  # fmt: skip
    assert main([*fast, "seed=1"]) == 0
    assert main([*fast, "farm.chips=2"]) == 0
    assert main(["study=explain", "chip=repast", f"run_root='{root}'"]) == 0
    return root


def test_every_run_is_listed_with_what_differs_and_its_answer(root, monkeypatch, capsys):
    opened = []
    monkeypatch.setattr(runs.webbrowser, "open", opened.append)
    # A damaged run and a folder that is none are passed over.
    (root / "train" / "broken").mkdir(exist_ok=True)
    (root / "train" / "broken" / "settings.json").write_text("{")
    assert main(["open", str(root)]) == 0
    assert opened == [(root / "index.html").as_uri()]
    printed = capsys.readouterr().out
    assert "seed=1, chips=4" in printed
    assert "seed=0, chips=2" in printed
    text = (root / "index.html").read_text()
    for folder in (*root.glob("train/2*"), *root.glob("explain/2*")):
        assert f'<a href="{folder.relative_to(root)}/report.html">' in text
        assert json.loads((folder / "answer.json").read_text())["answer"][:40] in text
    assert text.count('class="spec"') == 1
    assert len(text) < 100_000


def test_what_few_runs_have_stands_first_where_a_legend_shows_it(root):
    trained = [run for run in runs.find_runs(root) if run.study == "train"]
    settings = trained[0].settings
    found = [
        dataclasses.replace(
            trained[0], settings={**settings, "seed": seed, "model": {"name": name}}
        )
        for seed, name in ((0, "a"), (0, "a"), (0, "b"), (1, "a"))
    ]
    assert runs._differing(found) == ["seed=0, model=a"] * 2 + [
        "model=b, seed=0",
        "seed=1, model=a",
    ]


def test_runs_are_newest_first_with_their_size_and_state(root):
    found = runs.find_runs(root)
    assert [run.study for run in found] == ["explain", "train", "train"]
    assert {run.status for run in found} == {"finished"}
    assert [len(run.epochs) for run in found] == [0, 1, 1]
    drawn = [
        figure for section in runs.runs_page(root, found, [""] * 3, 1).sections
        for figure in section.parts if hasattr(figure, "data")
    ]  # fmt: skip
    assert [len(figure.data) for figure in drawn] == [1]
    size = sum(file.stat().st_size for file in found[0].folder.rglob("*") if file.is_file())
    assert found[0].size_bytes == size


def test_a_page_in_a_browser_follows_what_goes_on(root, monkeypatch, capsys):
    folder = next(root.glob("train/2*"))
    kept = read_json(folder / RESULT)
    index, seen = root / runs.INDEX, []

    def wait(_seconds: float) -> None:
        seen.append(index.read_text())
        if len(seen) == 2:
            write_json(folder / RESULT, kept)
        if len(seen) > 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(runs.webbrowser, "open", lambda _: None)
    monkeypatch.setattr(runs.time, "sleep", wait)
    write_json(folder / RESULT, {**kept, "status": "running", "epochs": []})
    try:
        with locked(folder):
            assert main(["open", str(root)]) == 0
    finally:
        write_json(folder / RESULT, kept)
    assert "follows the runs that go on" in capsys.readouterr().out
    assert ["data-refresh" in text for text in seen] == [True, True]
    assert "data-refresh" not in index.read_text()
    assert ">running<" in seen[1]
    assert ">running<" not in index.read_text()
    # Ctrl-C ends it, too, and what was killed goes on no more.
    write_json(folder / RESULT, {**kept, "status": "running"})
    try:
        with locked(folder):
            seen += [""]
            assert main(["open", str(root)]) == 0
        assert ">running<" in index.read_text()
        assert "data-refresh" not in index.read_text()
        assert main(["open", str(root)]) == 0
        assert ">stopped<" in index.read_text()
    finally:
        write_json(folder / RESULT, kept)


def test_a_folder_without_runs_is_named(tmp_path, capsys):
    assert main(["open", str(tmp_path)]) == 1
    assert f"run_root: {tmp_path} holds no runs" in capsys.readouterr().err
    assert main(["open", "a", "b"]) == 2
    (tmp_path / "report.html").touch()
    capsys.readouterr()
    assert main(["open", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert f"it is a run itself, and its page is {tmp_path / 'report.html'}" in said


@pytest.mark.parametrize("name", ["lr=0.1,wd=1", "it's"])
def test_a_folder_may_have_any_name(tmp_path, capsys, name):
    folder = tmp_path / name
    folder.mkdir()
    assert main(["open", str(folder), "study.browser=false"]) == 1
    assert f"{folder} holds no runs" in capsys.readouterr().err

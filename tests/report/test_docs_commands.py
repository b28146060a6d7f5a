"""Every command of the tutorial runs, in order, with the files that the tutorial shows."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^```(sh|yaml)\n(.*?)^```", re.M | re.S)


def blocks(document: Path) -> list[tuple[str, str]]:
    return BLOCK.findall(document.read_text())


def write_file(folder: Path, text: str) -> None:
    """Write a shown file; its first line is a comment with its path."""
    path = folder / text.splitlines()[0].removeprefix("# ")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def run_line(folder: Path, line: str) -> None:
    here = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{here}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        line, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


@pytest.mark.slow
@pytest.mark.ray
def test_the_tutorial_works_from_an_empty_folder(tmp_path: Path) -> None:
    lines = 0
    for kind, text in blocks(DOCS / "tutorial.md"):
        if kind == "yaml":
            write_file(tmp_path, text)
            continue
        for line in filter(None, text.splitlines()):
            assert line.startswith("repast-dist "), f"not a command of ours: {line}"
            run_line(tmp_path, line)
            lines += 1
    assert lines >= 8
    reports = list(tmp_path.glob("*/train/*/report.html"))
    assert len(reports) == 8  # five single runs and a sweep of three


def test_the_settings_reference_is_that_of_the_settings_classes() -> None:
    spec = importlib.util.spec_from_file_location("make_settings", DOCS / "make_settings.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    stored = (DOCS / "settings.md").read_text()
    assert stored == module.settings_page(), "run: python docs/make_settings.py"


def test_links_between_documents_lead_somewhere() -> None:
    missing = [
        f"{document.name}: {target}"
        for document in DOCS.glob("*.md")
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text())
        if not (DOCS / target).exists()
    ]
    assert missing == []

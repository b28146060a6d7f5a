"""Every command of the tutorial runs, in order, with the files that the tutorial shows."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from repast_dist.cli import main
from repast_dist.training.kfac import convention_scales

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
    """Run a command as a shell does."""
    here = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{here}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        line, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def run_here(line: str) -> None:
    """Run a command in this process and folder, which has imported all that a new one would.

    Trainings take two steps, one after the other where there are several.
    """
    words = shlex.split(line)[1:]
    words += ["train.max_steps=2"] * ("train.max_steps=6" in words) + ["-j", "1"] * ("-m" in words)
    if "--help" in words:
        with pytest.raises(SystemExit) as stopped:
            main(words)
        assert stopped.value.code == 0
        return
    assert main(words) == 0, line


@pytest.mark.slow
@pytest.mark.ray
def test_the_tutorial_works_from_an_empty_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = 0
    for kind, text in blocks(DOCS / "tutorial.md"):
        if kind == "yaml":
            write_file(tmp_path, text)
            continue
        for line in filter(None, text.splitlines()):
            assert line.startswith("repast-dist "), f"not a command of ours: {line}"
            # The first one, on a cluster of its own, as a user's shell runs it.
            run_here(line) if lines else run_line(tmp_path, line)
            lines += 1
    assert lines >= 8
    assert len(list(tmp_path.glob("*/train/*/report.html"))) == 5
    assert len(list(tmp_path.glob("bits/sweep/*/*/report.html"))) == 3


def test_the_settings_reference_is_that_of_the_settings_classes() -> None:
    # In a process of its own: other tests register parts of their own in this one.
    words = [sys.executable, str(DOCS / "make_settings.py"), "--print"]
    made = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert (DOCS / "settings.md").read_text() == made, "run: python docs/make_settings.py"


@pytest.mark.parametrize(
    ("convention", "row"),
    [
        ("kfc", "KFC"),
        ("asdl", "ASDL (asd"),
        ("curvlinops", "curvlinops 3"),
        ("mpd", "MPD-KFAC (l"),
        ("kfac-jax", "kfac-jax 0"),
        ("kfac-pytorch", "kfac-pytorch 0"),
    ],
)
def test_the_documented_conversions_between_codes_are_those_of_the_code(
    convention: str, row: str
) -> None:
    lines = (DOCS / "accuracy.md").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"| {row}"))
    formulas = [cell.strip() for cell in line.strip("|").split("|")[1:]]
    python = [re.sub(r"(?<=[NS)]) (?=[NS])", "*", f).replace("²", "**2").replace("³", "**3")
              for f in formulas]  # fmt: skip
    python = [re.sub(r"\*\*(\d) (?=[NS])", r"**\1*", f) for f in python]
    samples, positions = 7, 5
    shown = [eval(formula, {"N": samples, "S": positions}) for formula in python]
    assert shown == pytest.approx(convention_scales(convention, samples, positions))


def test_links_between_documents_lead_somewhere() -> None:
    missing = [
        f"{document.name}: {target}"
        for document in DOCS.glob("*.md")
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text())
        if not (DOCS / target).exists()
    ]
    assert missing == []

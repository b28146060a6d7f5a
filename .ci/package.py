"""Build the source archive and the wheel, and try the wheel in clean environments.

``python .ci/package.py FOLDER`` builds into ``FOLDER/dist`` (the wheel from the source archive, so
that both are tried), compares what the wheel holds with what the repository holds, and installs it
with all that it needs for the Python that runs this; ``FOLDER all``: for every Python found that
the package is for. Each installation answers questions in an empty folder: files of settings, data
sets and pages must come with the package.
"""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VERSIONS = ("3.12", "3.13", "3.14")
QUESTIONS = (
    "farm=inprocess train.max_steps=2",
    "model=fashion_mlp dataset=fashion_1280 farm=inprocess train.max_steps=1 train.batch_size=64",
    "study=plan workload=resnet50 chip=repast",
    "study=device device=wan2022",
)
"""They read settings, both data sets, tables of measurements and the parts of pages."""


def main(folder: Path, versions: Sequence[str]) -> None:
    """Build, compare, install and ask."""
    shutil.rmtree(folder, ignore_errors=True)
    wheel = build(folder / "dist")
    compare(wheel)
    losses = {}
    for version, program in pythons(versions).items():
        losses[version] = tried(program, wheel, folder / version)
        print(f"Python {version}: installed from the wheel, {len(QUESTIONS)} questions answered")
    for version in sorted({*versions} - {*losses}):
        print(f"Python {version}: not found, not tried")
    if not losses:
        raise SystemExit(f"none of Python {', '.join(versions)} was found")
    if len({f"{loss:.9g}" for loss in losses.values()}) > 1:
        raise SystemExit(f"first losses differ between versions of Python: {losses}")


def build(folder: Path) -> Path:
    """Return the wheel that the source archive makes."""
    run([sys.executable, "-P", "-m", "build", "--outdir", str(folder), str(ROOT)])
    (wheel,) = folder.glob("*.whl")
    if not list(folder.glob("*.tar.gz")):
        raise SystemExit(f"{folder}: no source archive")
    return wheel


def compare(wheel: Path) -> None:
    """Refuse a wheel that lacks a file of the repository, or has one more."""
    # What is new and not committed yet counts, what git ignores does not.
    which = ["--cached", "--others", "--exclude-standard"]
    listed = run(["git", "-C", str(ROOT), "ls-files", *which, "repast_dist", "conf"]).split()
    ours = {f"repast_dist/{name}" if name.startswith("conf/") else name for name in listed}
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    if ours != packed:
        raise SystemExit(f"{wheel.name} and the repository differ in {sorted(ours ^ packed)[:10]}")


def pythons(versions: Sequence[str]) -> dict[str, str]:
    """Return version -> program, of those versions that are found."""
    found: dict[str, str] = {}
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for version in versions:
        places = [shutil.which(f"python{version}"), sys.executable]
        places += sorted(str(path) for path in pyenv.glob(f"{version}.*/bin/python{version}"))
        for place in filter(None, places):
            says = "import sys; print('%d.%d' % sys.version_info[:2], sys._base_executable)"
            answer = subprocess.run([place, "-c", says], capture_output=True, text=True)
            # A shim of a version manager is there for versions that are not.
            if answer.returncode == 0 and answer.stdout.split()[0] == version:
                found[version] = answer.stdout.split()[1]
                break
    return found


def tried(program: str, wheel: Path, folder: Path) -> float:
    """Install the wheel in a new environment, ask it, and return the loss of its first step."""
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir(parents=True)
    run([program, "-m", "venv", str(folder / "venv")])
    commands = folder / "venv" / "bin"
    # Compiling half a gigabyte of packages, of which little is imported, takes as long as the rest.
    install = ["-m", "pip", "install", "--quiet", "--no-compile", str(wheel)]
    run([str(commands / "python"), *install])
    command = str(commands / "repast-dist")
    for number, question in enumerate(QUESTIONS):
        words = [command, *question.split(), f"hydra.run.dir={number}"]
        run(words, cwd=elsewhere, env=without_paths())
        if not (elsewhere / str(number) / "report.html").is_file():
            raise SystemExit(f"{question}: no page")
    inside = "import repast_dist; print(repast_dist.__file__)"
    where = run([str(commands / "python"), "-c", inside], cwd=elsewhere, env=without_paths())
    if str(folder) not in where:
        raise SystemExit(f"{where.strip()} answered, not the package that was installed")
    result = json.loads((elsewhere / "0" / "result.json").read_text())
    # Environments take half a gigabyte each.
    shutil.rmtree(folder / "venv")
    return float(result["steps"][0]["loss"])


def without_paths() -> dict[str, str]:
    """Return the environment without what would let Python find the checkout."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def run(words: list[str], cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Return what a command prints; end with what it says where it fails."""
    done = subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    main(Path(sys.argv[1]).resolve(), VERSIONS if sys.argv[2:] == ["all"] else [own])

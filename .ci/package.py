"""Build the source archive and the wheel, and try the wheel in clean environments.

``python .ci/package.py FOLDER`` builds into ``FOLDER/dist`` (the wheel from the source archive, so
that both are tried), compares what the wheel holds with what the repository holds, and installs it
with all that it needs for the Python that runs this; ``FOLDER all``: for every Python that the
package is for and that is found, or that Debian's testing has, where root may put that into a
folder (`debootstrap`). Each installation answers questions in an empty folder: files of settings,
data sets and pages must come with the package.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
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
DEBIAN = "http://deb.debian.org/debian"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def main(folder: Path, versions: Sequence[str]) -> None:
    """Build, compare, install and ask."""
    shutil.rmtree(folder, ignore_errors=True)
    wheel = build(folder / "dist")
    compare(wheel)
    losses = {}
    found = pythons(versions)
    for version in versions:
        with contextlib.ExitStack() as stack:
            words = [found[version]] if version in found else None
            if words is None and len(versions) > 1:
                words = stack.enter_context(debian(version, folder))
            if words is None:
                print(f"Python {version}: not found, not tried")
                continue
            losses[version] = tried(words, wheel, folder / version)
        print(f"Python {version}: installed from the wheel, {len(QUESTIONS)} questions answered")
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


@contextlib.contextmanager
def debian(version: str, folder: Path) -> Iterator[list[str] | None]:
    """Put Debian's testing with a Python into a folder for a while, and give the words that run it
    there; None where that is not to be had.
    """
    root = folder / f"debian-{version}"
    with contextlib.ExitStack() as stack:
        if os.geteuid() or not shutil.which("debootstrap"):
            yield None
            return
        print(f"Python {version}: not found, taken from Debian's testing")
        packages = f"python{version},python{version}-venv,ca-certificates"
        make = ["debootstrap", "--variant=minbase", f"--include={packages}", "testing", str(root)]
        stack.callback(removed, root)
        if not succeeds(["timeout", "900", *make, DEBIAN]):
            yield None
            return
        shutil.copy("/etc/resolv.conf", root / "etc")
        if CERTIFICATES.is_file():
            shutil.copy(CERTIFICATES, root / CERTIFICATES.relative_to("/"))
        # The trial's folder has the same path inside.
        for place in ("/proc", "/dev", str(folder)):
            inside = root / place.lstrip("/")
            inside.mkdir(parents=True, exist_ok=True)
            if not succeeds(["mount", "--bind", place, str(inside)]):
                yield None
                return
            stack.callback(run, ["umount", str(inside)])
        yield ["chroot", str(root), f"/usr/bin/python{version}"]


def removed(root: Path) -> None:
    """Remove a system in a folder, but never what is still mounted there."""
    if f" {root}/" in Path("/proc/mounts").read_text():
        raise SystemExit(f"{root}: something is still mounted there; unmount and remove it")
    shutil.rmtree(root, ignore_errors=True)


def tried(python: list[str], wheel: Path, folder: Path) -> float:
    """Install the wheel in a new environment, ask it, and return the loss of its first step."""
    *inside, _ = python
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir(parents=True)
    run([*python, "-m", "venv", str(folder / "venv")])
    commands = folder / "venv" / "bin"
    # Compiling half a gigabyte of packages, of which little is imported, takes as long as the rest.
    install = ["-m", "pip", "install", "--quiet", "--no-compile", str(wheel)]
    run([*inside, str(commands / "python"), *install])
    ask = [*inside, "env", "-C", str(elsewhere), "-u", "PYTHONPATH"]
    for number, question in enumerate(QUESTIONS):
        words = [str(commands / "repast-dist"), *question.split(), f"hydra.run.dir={number}"]
        run([*ask, *words])
        if not (elsewhere / str(number) / "report.html").is_file():
            raise SystemExit(f"{question}: no page")
    which = "import repast_dist; print(repast_dist.__file__)"
    where = run([*ask, str(commands / "python"), "-c", which])
    if str(folder) not in where:
        raise SystemExit(f"{where.strip()} answered, not the package that was installed")
    result = json.loads((elsewhere / "0" / "result.json").read_text())
    # Environments take half a gigabyte each.
    shutil.rmtree(folder / "venv")
    return float(result["steps"][0]["loss"])


def succeeds(words: list[str]) -> bool:
    """Return whether a command does what it shall."""
    return subprocess.run(words, capture_output=True).returncode == 0


def run(words: list[str]) -> str:
    """Return what a command prints; end with what it says where it fails."""
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    main(Path(sys.argv[1]).resolve(), VERSIONS if sys.argv[2:] == ["all"] else [own])

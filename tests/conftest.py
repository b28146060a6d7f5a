"""One Ray cluster for the whole test session, and runs made the way the command makes them."""

import contextlib
import copy
import io
import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import psutil
import pytest
import sharing_out
from omegaconf import OmegaConf
from rich.console import Console
from threadpoolctl import threadpool_limits

import repast_dist
from repast_dist import parts
from repast_dist.farm.checkpoint import latest_checkpoint
from repast_dist.ground.registry import Registry
from repast_dist.settings import load_settings
from repast_dist.studies import run_study


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Share tests out in a way of our own in the place of file by file."""
    if config.getvalue("dist") == "loadfile":
        return sharing_out.Scheduling(config, log)
    return None


def pytest_configure(config):
    """Some settings are loaded by modules, before any fixture is there."""
    # Ray has its workers give way to all other processes, here to tests that nobody waits for.
    os.environ.setdefault("RAY_worker_niceness", "0")
    if getattr(config.option, "numprocesses", None):
        compile_once()
    patched = files_parsed_once()
    patched.__enter__()
    config.add_cleanup(lambda: patched.__exit__(None, None, None))


def compile_once() -> None:
    """Have kernels compiled before many processes need them, each of which would compile them."""
    package = Path(repast_dist.__file__).parent
    if any(package.glob("analog/kernels/__pycache__/*.nbi")):
        return
    short = ("farm.backend=inprocess", "train.max_steps=1", "train.epochs=1", "train.batch_size=32")
    with tempfile.TemporaryDirectory() as folder:
        runs = [
            subprocess.Popen(
                [sys.executable, "-m", "repast_dist.cli", *words, *short, f"run_root={folder}"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
            for words in (["experiment=honest"], ["model=digits_transformer", "inversion=fcg"])
        ]
        for run in runs:
            run.wait()


def pytest_collection_modifyitems(config, items):
    """Begin with what takes long, where tests are shared out."""
    strays = [
        item.nodeid
        for item in items
        if "ray_cluster" in getattr(item, "fixturenames", ())
        and not sharing_out.with_ray(item.nodeid)
    ]
    if strays:
        raise pytest.UsageError(f"tests/sharing_out.py: these need the session's Ray: {strays}")
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: sharing_out.turn(item.nodeid))


@pytest.fixture(scope="session", autouse=True)
def one_blas_thread():
    """Tests share the cores with workers."""
    with threadpool_limits(1):
        yield


@contextlib.contextmanager
def files_parsed_once():
    """Hydra parses all YAML files for all settings anew, which takes longer than many a test."""
    parse, parsed = OmegaConf.load, {}

    def load(file):
        if not hasattr(file, "fileno"):
            return parse(file)
        state = os.fstat(file.fileno())
        key = state.st_dev, state.st_ino, state.st_mtime_ns, state.st_size
        if key not in parsed:
            parsed[key] = parse(file)
        return copy.deepcopy(parsed[key])

    with mock.patch.object(OmegaConf, "load", load):
        yield


@pytest.fixture(scope="session", autouse=True)
def nothing_is_forced_to_disk():
    """No test cuts the power, and waiting for the disk takes as long as many a run computes."""
    with mock.patch.object(os, "fsync", return_value=None):
        yield


KINDS = [item for item in vars(parts).values() if isinstance(item, Registry)]


@pytest.fixture(autouse=True)
def no_part_stays(monkeypatch):
    """What a test registers or activates is not there in the next one."""
    monkeypatch.setattr("repast_dist.ground.plugins._ACTIVE", {})
    for kind in KINDS:
        kind._find_own()
        monkeypatch.setattr(kind, "_members", dict(kind._members))


@pytest.fixture(scope="session")
def ray_cluster():
    """Ray on loopback, ended with the session; no process of ours may be left."""
    from repast_dist.farm.cluster import cluster
    from repast_dist.farm.specs import FarmSpec

    with cluster(FarmSpec(object_store_bytes=300_000_000)):
        yield
    left = [p for p in psutil.Process().children(recursive=True) if "ray" in p.name().lower()]
    assert not left, f"left behind: {left}"


@pytest.fixture
def train(tmp_path):
    """Run the train study with overrides; returns the run directory."""

    def run(*overrides: str, root: Path | None = None) -> Path:
        settings = load_settings([f"run_root={root or tmp_path}", *overrides])
        return run_study(settings, Console(file=io.StringIO()))

    return run


class DeadWorkers(logging.Handler):
    """Keeps what runs of this process say of workers whose processes died."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if "died" in record.getMessage():
            self.said.append(record.getMessage())


DEAD = DeadWorkers()


@pytest.fixture(autouse=True)
def no_worker_dies(request):
    """A run whose worker crashed goes on, and ends with the same numbers."""
    logging.getLogger("repast_dist.farm.coordinator").addHandler(DEAD)
    yield
    said, DEAD.said = DEAD.said, []
    if not request.node.get_closest_marker("kills_workers"):
        assert said == []


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    """Work in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)


def final_arrays(run_dir: Path) -> dict[str, bytes]:
    """Return all arrays a run ended with, as bytes, so that equal means equal to the bit."""
    checkpoint, refused = latest_checkpoint(run_dir / "checkpoints")
    assert checkpoint is not None
    assert not refused
    return {name: np.ascontiguousarray(a).tobytes() for name, a in checkpoint.arrays.items()}

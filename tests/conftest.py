"""One Ray cluster for the whole test session, and runs made the way the command makes them."""

import copy
import io
import os
from pathlib import Path
from unittest import mock

import numpy as np
import psutil
import pytest
from omegaconf import OmegaConf
from rich.console import Console
from threadpoolctl import threadpool_limits

from repast_dist import parts
from repast_dist.farm.checkpoint import latest_checkpoint
from repast_dist.ground.registry import Registry
from repast_dist.settings import load_settings
from repast_dist.studies import run_study

LONGEST = (
    "test_the_chips_of_a_removed_node_move_to_the_others_and_to_one_that_is_added",
    "test_every_setting_acts_or_is_refused[device]",
    "test_of_ten_thousand_blocks_none_is_solved_on_an_unstable_array",
    "test_every_setting_acts_or_is_refused[inversion]",
    "test_ranges_of_the_step_before_clip_what_the_percentile_leaves[fashion_cnn]",
)
"""Tests of more than ten seconds; they only begin before others."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Share tests out among processes: what takes long first, and together what shares a fixture.

    All that need the session's Ray run on one process, which starts it once. Slow tests go
    wherever there is room, unless their file has something to share; of all others a file stays
    together.
    """
    if not hasattr(config, "workerinput"):
        return
    for item in items:
        if (group := _shared(item)) is not None:
            item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=_turn)


def _needs_session_ray(item):
    in_test = item.get_closest_marker("ray") and not item.get_closest_marker("slow")
    return "ray_cluster" in item.fixturenames or in_test


def _shared(item):
    """Return the name of the tests that run on the same process, or None: it stands alone."""
    if _needs_session_ray(item):
        return "ray"
    definitions = item._fixtureinfo.name2fixturedefs.values()
    of_file = any(one.scope == "module" for found in definitions for one in found)
    return None if item.get_closest_marker("slow") and not of_file else item.location[0]


def _turn(item):
    """Return what sorts tests: those that mostly wait for other processes, long ones, the rest."""
    if item.name in LONGEST:
        return 1, LONGEST.index(item.name)
    if _needs_session_ray(item):
        return 0, 0
    if item.get_closest_marker("ray"):
        return 2, 0
    return (3 if item.get_closest_marker("slow") else 4), 0


@pytest.fixture(scope="session", autouse=True)
def one_blas_thread():
    """Tests share the cores with workers."""
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="session", autouse=True)
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

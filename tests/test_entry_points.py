"""Parts of installed packages, found by their entry points from the command line."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from repast_dist.ground.errors import SettingsError
from repast_dist.ground.plugins import PluginSource, activate

ROOT = Path(__file__).parents[1]
CELL = (ROOT / "tests" / "plugins" / "my_cell.py").read_text()
BROKEN = '"""A module that cannot be imported."""\n\nimport no_such_library_\n'
NAMES = """
[repast_dist.cell_models]
multiplied = tiny_cells
shattered = tiny_broken

[repast_dist.plugins]
cells = tiny_cells
pieces = tiny_broken
"""
METADATA = "Metadata-Version: 2.1\nName: tiny-cells\nVersion: 0.3.1\n"
TRAINING = (
    "model=digits_mlp", "dataset=digits", "farm.backend=inprocess", "farm.chips=1",
    "train.max_steps=1", "engine=analog",
)  # fmt: skip
CHOSEN = ("device.inv_cell.model=multiplied", "device.inv_cell.log_sigma=0.02")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an installed package, as an installer leaves it."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "tiny_cells.py").write_text(CELL)
    (folder / "tiny_broken.py").write_text(BROKEN)
    info = folder / "tiny_cells-0.3.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(METADATA)
    (info / "entry_points.txt").write_text(NAMES)
    (info / "RECORD").write_text("")
    return folder


def command(site: Path, folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, beside the installed package."""
    paths = os.pathsep.join([str(site), str(ROOT)])
    return subprocess.run(
        [sys.executable, "-m", "repast_dist.cli", f"run_root={folder}", *overrides],
        env=os.environ | {"PYTHONPATH": paths},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def result(folder: Path) -> dict[str, object]:
    (path,) = folder.glob("*/*/result.json")
    return json.loads(path.read_text())  # type: ignore[no-any-return]


@pytest.mark.slow
def test_a_member_of_an_installed_package_trains_and_is_recorded(
    site: Path, tmp_path: Path
) -> None:
    done = command(site, tmp_path, *TRAINING, *CHOSEN)
    assert done.returncode == 0, done.stderr
    found = result(tmp_path)
    cell = found["settings"]["device"]["inv_cell"]  # type: ignore[index]
    assert (cell["model"], cell["log_sigma"]) == ("multiplied", 0.02)
    assert found["versions"]["tiny-cells"] == "0.3.1"  # type: ignore[index]
    assert found["plugins"] == {"multiplied": hashlib.sha256(CELL.encode()).hexdigest()}


@pytest.mark.slow
def test_an_installed_plug_in_is_taken_by_its_name(site: Path, tmp_path: Path) -> None:
    done = command(site, tmp_path, *TRAINING, "plugins=[cells]", *CHOSEN)
    assert done.returncode == 0, done.stderr
    found = result(tmp_path)
    assert found["plugins"] == {"cells": hashlib.sha256(CELL.encode()).hexdigest()}
    assert found["versions"]["tiny-cells"] == "0.3.1"  # type: ignore[index]


@pytest.mark.slow
@pytest.mark.parametrize("asked", ["device.cell.model=shattered", "plugins=[pieces]"])
def test_a_broken_entry_point_is_named_by_who_asks_for_it(
    site: Path, tmp_path: Path, asked: str
) -> None:
    done = command(site, tmp_path, asked, "--cfg")
    assert done.returncode == 2
    setting, _, name = asked.partition("=")
    assert f"error: {setting}: {name.strip('[]')} of package tiny-cells 0.3.1" in done.stderr
    assert "module tiny_broken, line 3" in done.stderr
    assert "No module named 'no_such_library_'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_broken_entry_point_is_offered_and_disturbs_nobody_else(
    site: Path, tmp_path: Path
) -> None:
    done = command(site, tmp_path, "device.cell.model=no_such_cell", "--cfg")
    assert done.returncode == 2
    assert "multiplied" in done.stderr
    assert "shattered" in done.stderr
    assert "tiny_broken" not in done.stderr


def test_a_module_that_is_another_one_on_a_worker_is_refused() -> None:
    here = PluginSource("cells", "", "json", "0" * 64, "tiny-cells", "0.3.1")
    with pytest.raises(SettingsError, match=r"valid: tiny-cells 0\.3\.1 on every machine"):
        activate([here])

"""Exported circuits: files of any matrix, calculated values beside, agreement with ngspice."""

import csv
import io

import numpy as np
import pytest
from rich.console import Console

from repast_dist.analog.spice import ngspice_installed, run_ngspice
from repast_dist.ground.errors import DataError, SettingsError
from repast_dist.settings import load_settings
from repast_dist.studies import run_study


def _run(tmp_path, *overrides):
    settings = load_settings(["study=export-spice", f"run_root={tmp_path}", *overrides])
    return run_study(settings, Console(file=io.StringIO()))


def _outputs(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_random_matrix_becomes_a_multiplying_and_an_inverting_circuit(tmp_path):
    folder = _run(tmp_path, "study.size=6")
    files = sorted(path.name for path in (folder / "spice").iterdir())
    assert files == ["inv.cir", "inv.csv", "vmm_row0_column0.cir", "vmm_row0_column0.csv"]
    assert len(_outputs(folder / "spice" / "inv.csv")) == 6
    # Two slices of four bits, two cells of a pair.
    assert len(_outputs(folder / "spice" / "vmm_row0_column0.csv")) == 6 * 2 * 2
    largest = max(abs(float(row["calculated"])) for row in _outputs(folder / "spice" / "inv.csv"))
    assert largest == pytest.approx(0.2)


@pytest.mark.skipif(not ngspice_installed(), reason="ngspice is not installed")
def test_a_fused_circuit_solves_with_the_matrix_it_never_holds(tmp_path):
    exact = ["study.condition=4", "device.inv_cell.programming_sigma=0"]
    folder = _run(tmp_path, "study.size=8", "study.circuits=[inv,fused]", *exact)
    solved = {
        name: run_ngspice((folder / "spice" / f"{name}.cir").read_text())
        for name in ("inv", "fused")
    }
    rows = _outputs(folder / "spice" / "fused.csv")
    calculated = np.array([float(row["calculated"]) for row in rows])
    np.testing.assert_allclose(calculated, solved["fused"], atol=1e-6)
    # Both circuits solve the same system; they differ by the finite gain of their amplifiers.
    np.testing.assert_allclose(solved["fused"], solved["inv"], atol=0.02 * 0.2)


@pytest.mark.skipif(not ngspice_installed(), reason="ngspice is not installed")
@pytest.mark.parametrize("pole", ["null", "200000000.0"])
def test_transients_end_where_we_read_them(tmp_path, pole):
    words = ["study.size=8", "study.condition=4", "study.circuits=[inv,fused]"]
    words.append(f"device.opamp.second_pole_hz={pole}")
    folder = _run(tmp_path, *words, "study.transient=true")
    for name in ("inv_transient", "fused_transient"):
        rows = _outputs(folder / "spice" / f"{name}.csv")
        calculated, found = (
            np.array([float(row[column]) for row in rows]) for column in ("calculated", "ngspice")
        )
        at_rest = _outputs(folder / "spice" / f"{name.removesuffix('_transient')}.csv")
        np.testing.assert_allclose(calculated, found, atol=1e-6)
        # Within half a step of 8 bits of where they come to rest, and not there yet.
        left = np.abs(found - [float(row["ngspice"]) for row in at_rest]).max()
        assert 1e-5 < left < 0.2 / 254


def test_amplifiers_that_rest_at_once_have_no_transient(tmp_path):
    with pytest.raises(DataError, match="gbw_hz"):
        _run(tmp_path, "study.transient=true", "device.opamp.gbw_hz=null")


def test_an_unstable_circuit_is_refused(tmp_path):
    words = ["study.condition=1e4", "device.inv_cell.programming_sigma=0.05"]
    with pytest.raises(DataError, match="unstable"):
        _run(tmp_path, *words, "study.circuits=[inv]")


def test_a_matrix_that_is_no_product_of_rows_has_no_fused_circuit(tmp_path):
    path = tmp_path / "m.npy"
    np.save(path, np.array([[1.0, 2.0], [2.0, 1.0]]))
    with pytest.raises(SettingsError, match="positive definite; valid for this one: vmm, inv"):
        _run(tmp_path, "study.matrix=file", f"study.path={path}", "study.circuits=[fused]")


@pytest.mark.skipif(not ngspice_installed(), reason="ngspice is not installed")
def test_what_is_written_beside_a_circuit_is_what_ngspice_finds(tmp_path):
    folder = _run(tmp_path, "study.size=12", "device.wire={row_ohm: 1.0, column_ohm: 2.0}")
    for name in ("inv", "vmm_row0_column0"):
        rows = _outputs(folder / "spice" / f"{name}.csv")
        solved = run_ngspice((folder / "spice" / f"{name}.cir").read_text())
        for column in ("calculated", "ngspice"):
            values = np.array([float(row[column]) for row in rows])
            np.testing.assert_allclose(values, solved, rtol=0, atol=1e-3 * np.abs(solved).max())


def test_a_block_of_a_factor_is_exported(tmp_path):
    folder = _run(
        tmp_path,
        "study.matrix=factor",
        "study.size=10",
        "study.steps=2",
        "study.circuits=[inv]",
        "study.simulate=false",
    )
    rows = _outputs(folder / "spice" / "inv.csv")
    assert len(rows) == 10
    assert all(row["ngspice"] == "" for row in rows)


@pytest.mark.parametrize("suffix", [".npy", ".csv"])
def test_a_matrix_of_the_users_own_is_exported(tmp_path, suffix):
    matrix, path = np.array([[2.0, 0.5], [0.5, 1.0], [0.1, 0.2]]), tmp_path / f"m{suffix}"
    np.save(path, matrix) if suffix == ".npy" else np.savetxt(path, matrix, delimiter=",")
    folder = _run(tmp_path, "study.matrix=file", f"study.path={path}", "study.circuits=[vmm]")
    assert len(_outputs(folder / "spice" / "vmm_row0_column0.csv")) == 2 * 4


def test_what_cannot_be_exported_is_said(tmp_path):
    with pytest.raises(SettingsError, match=r"study.*path"):
        load_settings(["study=export-spice", "study.matrix=file"])
    with pytest.raises(SettingsError, match=r"valid: .*conv"):
        _run(tmp_path, "study.matrix=factor", "study.layer=none", "study.steps=1")
    path = tmp_path / "m.npy"
    np.save(path, np.array([[np.nan]]))
    with pytest.raises(DataError, match="finite"):
        _run(tmp_path, "study.matrix=file", f"study.path={path}")

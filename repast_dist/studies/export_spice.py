"""``study=export-spice``: circuits of programmed arrays for ngspice, with what we calculate."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from repast_dist.analog.spice import (
    Circuit,
    fused_circuit,
    inv_circuit,
    ngspice_installed,
    run_ngspice,
    vmm_circuits,
)
from repast_dist.ground.errors import DataError, SettingsError
from repast_dist.ground.rng import generator
from repast_dist.report.console import print_table
from repast_dist.report.page import Note
from repast_dist.report.study_page import StudyPage, StudySection
from repast_dist.studies.costing import table
from repast_dist.studies.factors import factors_of, second_order_of
from repast_dist.studies.kinds.export_spice import ExportSpiceStudy
from repast_dist.studies.output import begin, finish
from repast_dist.studies.settings import RunSettings
from repast_dist.training.kfac import damped_block


def run(
    study: ExportSpiceStudy, settings: RunSettings, run_dir: Path | None, console: Console
) -> Path:
    """Program the matrix, write its circuits, and run them where ngspice is installed."""
    matrix, what = chosen_matrix(study, settings)
    circuits = _circuits(study, settings, matrix)
    folder = begin(settings)
    (folder / "spice").mkdir()
    for circuit in circuits:
        path = folder / "spice" / f"{circuit.name}.cir"
        path.write_text(circuit.text)
        _write_csv(path.with_suffix(".csv"), _output_rows(circuit, None))
    console.print(f"Circuits:      {folder / 'spice'}", markup=False, soft_wrap=True)
    simulate = study.simulate and ngspice_installed()
    rows, outputs = [], []
    for circuit in circuits:
        solved = _simulated(circuit, console) if simulate else None
        found = _output_rows(circuit, solved)
        _write_csv(folder / "spice" / f"{circuit.name}.csv", found)
        outputs += found
        rows.append(_circuit_row(circuit, solved))
    page = _page(what, rows, outputs, simulate)

    def details() -> None:
        print_table("Circuits", page.tables["circuits"], console)
        console.print(f"Run one with:  ngspice -b {folder / 'spice' / circuits[0].name}.cir",
                      markup=False, soft_wrap=True)  # fmt: skip

    return finish(page, settings, console, folder, details)


def chosen_matrix(study: ExportSpiceStudy, settings: RunSettings) -> tuple[np.ndarray, str]:
    """Return the matrix the settings choose, float64, and what it is.

    Raises
    ------
    SettingsError
        There is no such layer or file format.
    DataError
        The file holds no finite matrix.
    """
    if study.path is not None:
        return _from_file(Path(study.path)), str(study.path)
    if study.matrix == "factor":
        return _factor_block(study, settings)
    n = study.size
    random = generator(settings.seed, "spice", "matrix")
    basis, _ = np.linalg.qr(random.standard_normal((n, n)))
    matrix = (basis * np.geomspace(1.0, 1.0 / study.condition, n)) @ basis.T
    return (matrix + matrix.T) / 2, f"random, {n} x {n}, condition {study.condition:g}"


def _from_file(path: Path) -> np.ndarray:
    try:
        if path.suffix == ".npy":
            matrix = np.load(path, allow_pickle=False)
        elif path.suffix == ".csv":
            matrix = np.loadtxt(path, delimiter=",", ndmin=2)
        else:
            raise SettingsError(f"study.path: {path} is neither; valid: a .npy or .csv file")
    except (OSError, ValueError) as error:
        raise DataError(f"study.path: {path} cannot be read ({error})") from None
    if matrix.ndim != 2 or not np.isfinite(matrix).all() or not matrix.size:
        raise DataError(f"study.path: {path} holds no finite matrix, but {matrix.shape}")
    return np.asarray(matrix, np.float64)


def _factor_block(study: ExportSpiceStudy, settings: RunSettings) -> tuple[np.ndarray, str]:
    factors = factors_of(settings, study.steps)
    layers = [factor.layer for factor in factors]
    if study.layer is not None and study.layer not in layers:
        valid = ", ".join(dict.fromkeys(layers))
        raise SettingsError(f"study.layer: no factors of '{study.layer}'; valid: {valid}")
    wanted = study.layer or layers[0]
    found = next(f for f in factors if (f.layer, f.kind) == (wanted, study.factor))
    width = len(found.matrix)
    size = min(study.size, width)
    start = (width - size) // 2
    damping = found.damping(second_order_of(settings.optimizer))
    block = damped_block(found.matrix, start, start + size, damping)
    return block, f"factor {study.factor} of {wanted}, {start} to {start + size} of {width}"


def _circuits(study: ExportSpiceStudy, settings: RunSettings, matrix: np.ndarray) -> list[Circuit]:
    seed = settings.seed
    vector = generator(seed, "spice", "vector").uniform(-1.0, 1.0, len(matrix))
    circuits = []
    if "vmm" in study.circuits:
        spec = settings.hardware.vmm_spec
        circuits += vmm_circuits(matrix, vector, spec, study.full_scale_v, seed, "spice")
    inverting, volts = settings.hardware.inv_spec, study.full_scale_v
    for transient in (False, True) if study.transient else (False,):
        if "inv" in study.circuits:
            circuits.append(
                inv_circuit(matrix, vector, inverting, volts, seed, "spice", transient=transient)
            )
        if "fused" in study.circuits:
            rows, diagonal = _as_rows(matrix)
            circuits.append(
                fused_circuit(
                    rows, diagonal, vector, inverting, volts, seed, "spice", transient=transient
                )
            )
    return circuits


def _as_rows(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and a diagonal with ``rows rows' + diag(diagonal)`` equal to the matrix.

    Half of the smallest eigenvalue becomes the diagonal, as damping does in training.
    """
    symmetric = matrix.shape[0] == matrix.shape[1] and np.allclose(matrix, matrix.T)
    smallest = np.linalg.eigvalsh(matrix)[0] if symmetric else 0.0
    if smallest <= 0:
        raise SettingsError(
            "study.circuits: a fused circuit inverts a product of rows, so the matrix must be "
            "symmetric and positive definite; valid for this one: vmm, inv"
        )
    diagonal = np.full(len(matrix), smallest / 2)
    return np.linalg.cholesky(matrix - np.diag(diagonal)), diagonal


def _simulated(circuit: Circuit, console: Console) -> np.ndarray:
    with console.status(f"ngspice: {circuit.name}"):
        try:
            return run_ngspice(circuit.text)
        except DataError as error:
            raise DataError(
                f"{circuit.name}: {error}; study.simulate=false writes the circuits only"
            ) from None


def _output_rows(circuit: Circuit, solved: np.ndarray | None) -> list[dict[str, Any]]:
    return [
        {
            "circuit": circuit.name,
            "output": label,
            "unit": circuit.unit,
            "calculated": float(circuit.calculated[number]),
            "ngspice": None if solved is None else float(solved[number]),
        }
        for number, label in enumerate(circuit.labels)
    ]


def _circuit_row(circuit: Circuit, solved: np.ndarray | None) -> dict[str, Any]:
    largest = float(np.max(np.abs(circuit.calculated), initial=0.0))
    cards = circuit.text.partition(".control")[0].splitlines()
    row = {
        "circuit": circuit.name,
        "elements": sum(line[:1] in "rvie" for line in cards if line),
        "outputs": len(circuit.labels),
        "largest": largest,
        "unit": circuit.unit,
        "difference": None,
    }
    if solved is not None:
        row["difference"] = float(np.abs(solved - circuit.calculated).max()) / (largest or 1.0)
    return row


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["output", "unit", "calculated", "ngspice"], restval="",
                                extrasaction="ignore")  # fmt: skip
        writer.writeheader()
        writer.writerows(rows)


def _page(
    what: str, rows: list[dict[str, Any]], outputs: list[dict[str, Any]], simulated: bool
) -> StudyPage:
    notes = []
    if simulated:
        worst = max(row["difference"] for row in rows)
        answer = (
            f"ngspice and repast_dist agree on {len(outputs)} outputs of {len(rows)} circuits to "
            f"{worst:.1e} of the largest output ({what})."
        )
    else:
        answer = f"{len(rows)} circuits with {len(outputs)} calculated outputs ({what})."
        notes.append(Note("ngspice was not run: not installed, or study.simulate=false."))
    return StudyPage(
        study="export-spice",
        title="Circuits of programmed arrays",
        answer=answer,
        tables={"circuits": table(rows, {}), "outputs": table(outputs, {})},
        sections=[
            StudySection("Circuits", tables=["circuits"], notes=notes),
            StudySection("Outputs", tables=["outputs"]),
        ],
        captions={
            "circuits": "Largest output in its unit; largest difference relative to it.",
            "outputs": (
                "Column currents, or voltages of amplifiers, at the operating point; of a "
                "transient at the time when they are read."
            ),
        },
        sources=[("INV circuit", "Sun et al., PNAS 2019")],
    )

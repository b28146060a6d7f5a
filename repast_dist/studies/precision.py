"""``study=precision``: how many bits which inversion reaches, on which arrays, at which damping.

A short exact run leaves real K-FAC factors and gradients. Blocks of them are damped, programmed
into arrays of every kind of cell asked for, and solved by every method; each damped block on one
kind of cell is a point of its own. Nothing is trained with the answers: the residuals are the
result.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from repast_dist.analog import LOSSLESS, BlockSolver, InvSpec, Scheme, Solution, VmmSpec, prepare
from repast_dist.ground.errors import DataError
from repast_dist.ground.rng import generator
from repast_dist.ground.spec import spec, to_dict
from repast_dist.report.console import data_table
from repast_dist.report.page import KeyFigure, Note
from repast_dist.report.study_page import Chart, StudyPage, StudySection
from repast_dist.studies.costing import table
from repast_dist.studies.factors import Factor, capture_factors, second_order_of
from repast_dist.studies.kinds.precision import PrecisionStudy
from repast_dist.studies.output import begin, finish
from repast_dist.studies.points import run_points
from repast_dist.studies.settings import RunSettings
from repast_dist.studies.study import Variants
from repast_dist.studies.variants import varied
from repast_dist.training.kfac import damped_block

_WORST_RESIDUAL = 10.0
"""Shown for an answer that is worse than none at all."""

_MOST_BITS = 20.0
"""The last colour of the maps."""

_ENOUGH = 2.0**-8
"""Relative residual from which eight bits are said to suffice."""

_UNITS = {"residual": "1", "condition": "1"}


@spec
class PrecisionPoint:
    """One damped block on one kind of cell.

    Attributes
    ----------
    factors : str
        Digest of all that decides the factors.
    layer, factor : str
        Which factor.
    start, stop : int
        The rows and columns of the block.
    damping : float
        As ``optimizer.damping``.
    added : float
        What the optimizer then adds to the factor's diagonal.
    columns : int
        Right-hand sides at most.
    inversions : dict
        Name -> settings of each way to invert that is tried.
    vmm, inv : VmmSpec, InvSpec
        The arrays.
    seed : int
        Of the programming errors.
    """

    factors: str
    layer: str
    factor: str
    start: int
    stop: int
    damping: float
    added: float
    columns: int
    inversions: dict[str, Scheme]
    vmm: VmmSpec
    inv: InvSpec
    seed: int


def precision_point(factors: Sequence[Factor], point: PrecisionPoint) -> dict[str, Any]:
    """Solve one point with every method.

    Returns
    -------
    dict
        ``rows``: one record per method.
    """
    found = next(f for f in factors if (f.layer, f.kind) == (point.layer, point.factor))
    block = damped_block(found.matrix, point.start, point.stop, point.added)
    gradient = found.gradient[point.start : point.stop]
    right = gradient[:, gradient.any(axis=0)][:, : point.columns]
    if not right.size:
        raise DataError(
            f"layer {point.layer}, factor {point.factor}, rows {point.start}:{point.stop}: the "
            "gradient is zero, there is nothing to solve for; valid: more study.steps or another "
            "seed"
        )

    def tried(inversion: Scheme) -> dict[str, Any]:
        addresses = ("precision", point.layer, point.start)
        return outcome(
            prepare(block, point.vmm, point.inv, inversion, point.seed, *addresses), right
        )

    cell = point.inv.device.inv_cell
    common = {
        "block_size": point.stop - point.start,
        "cell_bits": cell.bits,
        "noise": cell.programming_spread,
        "damping": point.damping,
        "condition": float(np.linalg.cond(block)),
    }
    return {
        "rows": [
            common | {"method": name} | tried(inversion)
            for name, inversion in point.inversions.items()
        ]
    }


def outcome(solver: BlockSolver, right: np.ndarray) -> dict[str, Any]:
    """Solve with a programmed block and return what it takes and what is left.

    Parameters
    ----------
    solver : BlockSolver
        The programmed block.
    right : ndarray
        (n, r) right-hand sides.

    Returns
    -------
    dict
        ``residual`` (relative, of the worst right-hand side) and its ``bits``; mean ``rounds``;
        ``converged``; operations per right-hand side; cells programmed.
    """
    solution = solver.solve(right)
    columns = right.shape[1]
    return {
        "residual": _shown_residual(solution),
        "bits": float(max(0.0, -np.log2(max(_shown_residual(solution), 2.0**-48)))),
        "rounds": float(solution.iterations.mean()),
        "converged": bool(solution.converged.all()),
        "inv_ops": solution.counts.inv_ops / columns,
        "vmm_ops": solution.counts.vmm_ops / columns,
        "digital_ops": solution.counts.digital_ops / columns,
        "program_cells": solver.program_counts.program_cells,
    }


def _shown_residual(solution: Solution) -> float:
    return float(min(solution.residual.max(), _WORST_RESIDUAL))


def _inversions(
    study: PrecisionStudy, settings: RunSettings, variants: Variants, where: str
) -> dict[str, Scheme]:
    """Return the schemes of variants; those that work in rounds get the study's limit of them."""
    found = {}
    for name, changes in variants.items():
        scheme: Any = varied(settings, changes, f"{where}.{name}").inversion
        if hasattr(scheme, "max_iterations") and "inversion.max_iterations" not in changes:
            scheme = dataclasses.replace(scheme, max_iterations=study.max_iterations)
        found[name] = scheme
    return found


def precision_points(
    study: PrecisionStudy, settings: RunSettings, factors: Sequence[Factor]
) -> list[PrecisionPoint]:
    """Return every damped block on every kind of cell, the largest blocks first."""
    inversions = _inversions(study, settings, study.variants, "study.variants")
    widest = max(factors, key=lambda factor: len(factor.matrix))
    optimizer, digest = second_order_of(settings.optimizer), _digest(study, settings)
    points = []
    for start, stop in _blocks(len(widest.matrix), study.block_sizes):
        for bits in study.cell_bits:
            for sigma in study.programming_sigma:
                cell = dataclasses.replace(settings.device.inv_cell, bits=bits)
                cell = cell.with_programming_sigma(sigma)
                device = dataclasses.replace(settings.device, inv_cell=cell)
                hardware = dataclasses.replace(settings.hardware, device=device)
                for damping in study.damping:
                    points.append(
                        PrecisionPoint(
                            factors=digest,
                            layer=widest.layer,
                            factor=widest.kind,
                            start=start,
                            stop=stop,
                            damping=damping,
                            added=widest.damping(dataclasses.replace(optimizer, damping=damping)),
                            columns=study.columns,
                            inversions=inversions,
                            vmm=hardware.residual_spec,
                            inv=hardware.inv_spec,
                            seed=settings.seed,
                        )
                    )
    return points


def _blocks(width: int, sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield start and stop of the blocks in the middle of a factor, the largest first."""
    for size in sorted({min(size, width) for size in sizes}, reverse=True):
        start = (width - size) // 2
        yield start, start + size


def _digest(study: PrecisionStudy, settings: RunSettings) -> str:
    parts = (settings.model, settings.dataset, settings.optimizer, settings.train)
    decisive = [to_dict(part) for part in parts] + [study.steps, settings.seed]
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


def few_bit_rows(study: PrecisionStudy, settings: RunSettings) -> list[dict[str, Any]]:
    """Return rounds to many bits with cells of few beside those that were published.

    Their matrices are not published; ours are ten random sample covariances of 64 samples in 16
    dimensions.
    """
    published = study.published
    rows = [
        {
            "method": published.name,
            "rounds": float(published.rounds),
            "residual": 2.0**-published.target_bits,
            "converged": "all",
        }
    ]
    ideal = InvSpec()
    cell = dataclasses.replace(ideal.device.inv_cell, bits=published.cell_bits)
    inv = dataclasses.replace(ideal, device=dataclasses.replace(ideal.device, inv_cell=cell))
    where = "study.published.variants"
    for name, inversion in _inversions(study, settings, published.variants, where).items():
        solutions = [
            _covariance(published.size, inv, inversion, settings.seed, number)
            for number in range(10)
        ]
        good = sum(bool(solution.converged.all()) for solution in solutions)
        rows.append(
            {
                "method": name,
                "rounds": float(np.mean([s.iterations.mean() for s in solutions])),
                "residual": max(_shown_residual(s) for s in solutions),
                "converged": f"{good} of {len(solutions)}",
            }
        )
    return rows


def _covariance(size: int, inv: InvSpec, inversion: Scheme, seed: int, number: int) -> Solution:
    random = generator(seed, "covariance", number)
    samples = random.standard_normal((4 * size, size))
    matrix = samples.T @ samples / len(samples)
    solver = prepare(matrix, LOSSLESS, inv, inversion, seed, "covariance", number)
    return solver.solve(random.standard_normal((size, 8)))


def precision(rows: Sequence[dict[str, Any]], three_bits: Sequence[dict[str, Any]]) -> StudyPage:
    """Make the study's page of solved points.

    Parameters
    ----------
    rows : sequence of dict
        Rows of all records of `precision_point`.
    three_bits : sequence of dict
        Of `three_bit_rows`.
    """
    methods = list(dict.fromkeys(row["method"] for row in rows))
    size = _nearest(rows, "block_size", 256)
    bits = max(row["cell_bits"] for row in rows)
    noise = _nearest(rows, "noise", 0.01)
    frontier = frontier_rows(rows)
    at = {"block_size": size, "cell_bits": bits}
    rounds = max(row["rounds"] for row in rows)
    return StudyPage(
        study="precision",
        title="How many bits which inversion reaches",
        answer=_answer(frontier, size, bits, noise),
        tables={
            "points": table(rows, _UNITS),
            "methods": table(
                method_rows(rows), {"converged": "fraction", "eight_bits": "fraction"}
            ),
            "divergence": table(divergence_rows([r for r in rows if at.items() <= r.items()]), {}),
            "all_divergence": table(divergence_rows(rows), {}),
            "frontier": table(frontier, {}),
            "three_bit_cells": table(three_bits, {}),
        },
        captions={
            "methods": "Over all points: share that reaches the target, and eight bits; medians "
            "over the points that reach the target, per right-hand side.",
            "divergence": f"Blocks of {size}, {bits}-bit cells: 'bits in rounds' of the worst "
            "right-hand side; bits in brackets where the target is missed, 'no' where the answer "
            "is worse than none.",
            "all_divergence": "The same for all blocks and cells.",
            "frontier": "The smallest damping down to which a method reaches the target at every "
            "damping that is no smaller, and the rounds it takes there.",
            "three_bit_cells": "Relative residual 2^-24 of 16 x 16 systems, cells without noise.",
        },
        key_figures=_key_figures(rows),
        sections=[
            StudySection(
                f"Bits: blocks of {size}, {bits}-bit cells",
                charts=[_bits_map(m, at, "noise") for m in methods],
                intro="Bits of the worst right-hand side, -log2 of its relative residual, over "
                "damping and programming noise. Brighter is better; all maps share their colours.",
            ),
            StudySection(
                f"Rounds: blocks of {size}, {bits}-bit cells",
                charts=[_rounds_map(m, at, rounds) for m in _where(rows, "rounds", 1.0)],
                intro="Mean rounds until the target is reached or the method is given up.",
            ),
            StudySection(
                f"Cells: blocks of {size}, {noise:.1%} programming noise",
                charts=[
                    _bits_map(m, {"block_size": size, "noise": noise}, "cell_bits")
                    for m in _where(rows, "inv_ops", 0.0)
                ],
                intro="Bits of the worst right-hand side, over damping and bits per cell.",
            ),
            StudySection(
                f"Block size: {bits}-bit cells, {noise:.1%} programming noise",
                charts=[
                    Chart(
                        "line",
                        "points",
                        title,
                        x="damping",
                        y=column,
                        series="method",
                        where={"cell_bits": bits, "noise": noise, "block_size": each},
                        log_x=True,
                        log_y=True,
                    )
                    for each in sorted({row["block_size"] for row in rows})
                    for title, column in (
                        (f"Residual, blocks of {each}", "residual"),
                        (f"Rounds, blocks of {each}", "rounds"),
                    )
                ],
            ),
            StudySection(
                "Where methods diverge",
                tables=["methods", "divergence", "frontier", "all_divergence"],
            ),
            StudySection(
                "24 bits with 3-bit cells",
                tables=["three_bit_cells"],
                intro="Beside the published figure of HP-INV; its matrices are not published, "
                "ours are sample covariances.",
            ),
            StudySection("All points", tables=["points"]),
        ],
        sources=[
            ("taylor", "RePAST, arXiv 2210.15255"),
            (
                "refine without regularisation; 24 bits in about 10 rounds",
                "HP-INV, Nature Electronics 2025",
            ),
            ("two slices", "Song et al., Science 383 (2024), 903"),
        ],
        notes=[
            Note(
                "Read-back of what the first slice holds is taken to be exact; a reader that is "
                "not adds its own error to the second slice."
            )
        ],
    )


def _bits_map(method: str, where: dict[str, Any], y: str) -> Chart:
    return Chart(
        "heat_map", "points", method, x="damping", y=y, value="bits",
        where=where | {"method": method}, limits=(0.0, _MOST_BITS), height_px=260,
    )  # fmt: skip


def _rounds_map(method: str, where: dict[str, Any], most: float) -> Chart:
    return Chart(
        "heat_map", "points", method, x="damping", y="noise", value="rounds",
        where=where | {"method": method}, log_value=True, limits=(1.0, most), height_px=260,
    )  # fmt: skip


def frontier_rows(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return, per array and method, the smallest damping with which it still converges."""
    found = []
    for key, group in _grouped(rows, ("block_size", "cell_bits", "noise", "method")):
        reached = None
        for row in sorted(group, key=lambda row: -row["damping"]):
            if not row["converged"]:
                break
            reached = row
        found.append(
            key
            | {
                "smallest_damping": reached["damping"] if reached else None,
                "rounds": reached["rounds"] if reached else None,
                "condition": reached["condition"] if reached else None,
            }
        )
    return found


def divergence_rows(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return, per array and method, the bits reached at every damping, as text."""
    found = []
    for key, group in _grouped(rows, ("block_size", "cell_bits", "noise", "method")):
        cells = {
            f"damping {row['damping']:g}": (
                f"{row['bits']:.0f} in {row['rounds']:.0f}"
                if row["converged"]
                else (f"({row['bits']:.0f})" if row["residual"] < 1 else "no")
            )
            for row in sorted(group, key=lambda row: -row["damping"])
        }
        found.append(key | cells)
    return found


def method_rows(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return shares and medians per method."""
    found = []
    for key, group in _grouped(rows, ("method",)):
        good = [row for row in group if row["converged"]]
        found.append(
            key
            | {
                "converged": len(good) / len(group),
                "eight_bits": sum(row["residual"] <= _ENOUGH for row in group) / len(group),
                "most_bits": max(row["bits"] for row in group),
            }
            | {
                f"median_{name}": float(np.median([row[name] for row in good])) if good else None
                for name in ("rounds", "inv_ops", "vmm_ops", "digital_ops")
            }
        )
    return found


def _grouped(
    rows: Sequence[dict[str, Any]], names: Sequence[str]
) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    for key, group in groups.items():
        yield dict(zip(names, key, strict=True)), group


def _where(rows: Sequence[dict[str, Any]], name: str, limit: float) -> list[str]:
    """Return the methods that somewhere take more of an operation than a limit."""
    return list(dict.fromkeys(row["method"] for row in rows if row[name] > limit))


def _nearest(rows: Sequence[dict[str, Any]], name: str, wanted: float) -> Any:
    return min({row[name] for row in rows}, key=lambda value: abs(value - wanted))


def _answer(frontier: Sequence[dict[str, Any]], size: int, bits: int, noise: float) -> str:
    here = [
        row
        for row in frontier
        if (row["block_size"], row["cell_bits"], row["noise"]) == (size, bits, noise)
    ]
    reached: dict[float, list[str]] = {}
    for row in sorted(here, key=lambda row: row["rounds"] or 0.0):
        if row["smallest_damping"] is not None:
            text = f"{row['method']} ({row['rounds']:.0f} rounds)"
            reached.setdefault(row["smallest_damping"], []).append(text)
    parts = [
        f"down to {damping:g} by {' and '.join(reached[damping])}" for damping in sorted(reached)
    ]
    failed = [row["method"] for row in here if row["smallest_damping"] is None]
    if failed:
        parts.append(f"at no damping tried by {' and '.join(failed)}")
    return (
        f"Blocks of {size} in {bits}-bit cells with {noise:.1%} programming noise are solved to "
        f"the target: damping {'; '.join(parts)}."
    )


def _key_figures(rows: Sequence[dict[str, Any]]) -> list[KeyFigure]:
    return [
        KeyFigure(
            f"{row['method']} reaches the target",
            f"{row['converged']:.0%}",
            "of all points",
            number=row["converged"],
            unit="fraction",
        )
        for row in method_rows(rows)
    ]


def run(
    study: PrecisionStudy, settings: RunSettings, run_dir: Path | None, console: Console
) -> Path:
    """Train for the factors, solve every point, and write the page.

    Raises
    ------
    DataError
        The network has no factors, or a block's gradient is zero.
    """
    folder = begin(settings, run_dir)
    console.print(f"Training {study.steps} steps in float64 for the factors")
    factors = capture_factors(
        settings.model,
        settings.dataset,
        settings.optimizer,
        settings.train,
        study.steps,
        settings.seed,
    )
    if not factors:
        raise DataError(f"model {settings.model.name}: no layer has Kronecker factors")
    records = run_points(
        precision_point,
        precision_points(study, settings, factors),
        shared=factors,
        run_dir=folder,
        farm=settings.farm,
        console=console,
        title="inverting",
        reuse=study.reuse,
    )
    rows = [row for record in records for row in record["rows"]]
    page = precision(rows, few_bit_rows(study, settings))
    console.print(data_table("Methods", page.tables["methods"]))
    return finish(page, settings, console, folder)

"""Points of ``study=precision``: damped blocks on kinds of cells, solved by every method."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from repast_dist.analog import LOSSLESS, BlockSolver, InvSpec, Scheme, Solution, VmmSpec, prepare
from repast_dist.ground.errors import DataError
from repast_dist.ground.rng import generator
from repast_dist.ground.spec import spec, to_dict
from repast_dist.studies.factors import Factor, second_order_of
from repast_dist.studies.kinds.precision import PrecisionStudy
from repast_dist.studies.settings import RunSettings
from repast_dist.studies.study import Variants
from repast_dist.studies.variants import varied
from repast_dist.training.kfac import damped_block

_WORST_RESIDUAL = 10.0
"""Shown for an answer that is worse than none at all."""


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


def inversions_of(
    study: PrecisionStudy, settings: RunSettings, variants: Variants, where: str
) -> dict[str, Scheme]:
    """Return the schemes of variants; those that work in rounds get the study's limit of them.

    Parameters
    ----------
    study, settings : PrecisionStudy, RunSettings
        What was asked, and what the variants start from.
    variants : dict
        Name -> settings that differ.
    where : str
        Their place in the settings, for messages.

    Raises
    ------
    SettingsError
        A variant names no setting, a value that is not valid, or one that the study does not read.
    """
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
    inversions = inversions_of(study, settings, study.variants, "study.variants")
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
    for name, inversion in inversions_of(study, settings, published.variants, where).items():
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

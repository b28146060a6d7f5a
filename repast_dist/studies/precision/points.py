"""Points of ``study=precision``: damped blocks on kinds of cells, solved by every method."""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import scipy.linalg

from repast_dist.analog import LOSSLESS, BlockSolver, InvSpec, Scheme, Solution, VmmSpec, prepare
from repast_dist.analog.prices import Prices, by_number
from repast_dist.ground.errors import DataError, SettingsError
from repast_dist.ground.rng import generator
from repast_dist.ground.spec import spec, to_dict
from repast_dist.hardware.hardware import Hardware
from repast_dist.planning.solve_costs import solve_prices
from repast_dist.studies.factors import Factor, second_order_of
from repast_dist.studies.kinds.precision import PrecisionGrid, PrecisionStudy
from repast_dist.studies.settings import RunSettings
from repast_dist.studies.study import Variants
from repast_dist.studies.variants import varied
from repast_dist.training.kfac import damped_block

WORST_RESIDUAL = 10.0
"""Shown for an answer that is worse than none at all."""

_AFTER_TRAINING = ("chip", "device", "components", "inversion")
_OF_DAMPING = ("soi.block_size", "optimizer.damping", "optimizer.damping_form")
"""Settings that a grid may vary, since they decide what is done with the factors."""

CHOLESKY = "Cholesky"
"""The digital algorithm that is priced on the chip's own units."""


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
    prices : dict
        Name of an inversion that chooses by price -> what the operations of a solve cost.
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
    prices: dict[str, Prices] = dataclasses.field(default_factory=dict)


def precision_point(factors: Sequence[Factor], point: PrecisionPoint) -> dict[str, Any]:
    """Solve one point with every method.

    Returns
    -------
    dict
        ``rows``: one record per method; ``columns``: right-hand sides; ``digital_residual``:
        algorithm -> relative residual of the worst right-hand side in 32-bit floating point.
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

    def tried(name: str, inversion: Scheme) -> dict[str, Any]:
        addresses = ("precision", point.layer, point.start)
        known = point.prices.get(name)
        solver = prepare(
            block, point.vmm, point.inv, inversion, point.seed, *addresses,
            prices=(lambda _: known) if known else by_number,
        )  # fmt: skip
        return outcome(solver, right)

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
            common | {"method": name} | tried(name, inversion)
            for name, inversion in point.inversions.items()
        ],
        "columns": right.shape[1],
        "digital_residual": _single_precision(block, right),
    }


def _single_precision(block: np.ndarray, right: np.ndarray) -> dict[str, float]:
    """Return the residual of the worst right-hand side, by algorithms of 32-bit floating point."""
    a, b = block.astype(np.float32), right.astype(np.float32)
    try:
        factor = scipy.linalg.cho_factor(a, lower=True)
        inverse = scipy.linalg.cho_solve(factor, np.eye(len(a), dtype=np.float32))
        found = {CHOLESKY: scipy.linalg.cho_solve(factor, b), "Cholesky inverse": inverse @ b}
        found["LU inverse"] = scipy.linalg.inv(a) @ b
    except np.linalg.LinAlgError:
        # To single precision the block is not positive definite.
        return dict.fromkeys((CHOLESKY, "Cholesky inverse", "LU inverse"), WORST_RESIDUAL)
    norm = np.linalg.norm(right, axis=0)
    return {
        name: float(np.max(np.linalg.norm(right - block @ x.astype(np.float64), axis=0) / norm))
        for name, x in found.items()
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
        ``converged``; operations per right-hand side; cells programmed; and the counts of both,
        as of `SolveCounts`, over all right-hand sides.
    """
    solution = solver.solve(right)
    columns = right.shape[1]
    return {
        "residual": _shown_residual(solution),
        "bits": true_bits(_shown_residual(solution)),
        "rounds": float(solution.iterations.mean()),
        "converged": bool(solution.converged.all()),
        "inv_ops": solution.counts.inv_ops / columns,
        "vmm_ops": solution.counts.vmm_ops / columns,
        "digital_ops": solution.counts.digital_ops / columns,
        "program_cells": solver.program_counts.program_cells,
        "settling_s": solution.counts.settling_s / columns,
        "solve_counts": dataclasses.asdict(solution.counts),
        "program_counts": dataclasses.asdict(solver.program_counts),
    }


def true_bits(residual: float) -> float:
    """Return ``-log2`` of a relative residual, from 0 to 48."""
    return float(max(0.0, -np.log2(max(residual, 2.0**-48))))


def _shown_residual(solution: Solution) -> float:
    return float(min(solution.residual.max(), WORST_RESIDUAL))


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


@dataclasses.dataclass(frozen=True)
class PrecisionCase:
    """A combination of a grid's values: what of it decides the numbers, and what the price.

    Attributes
    ----------
    grid : str
        The grid.
    values : dict
        Dotted path -> value.
    settings : RunSettings
        The settings with these values.
    inversions : dict
        Name -> settings of each way to invert that is tried.
    """

    grid: str
    values: dict[str, Any]
    settings: RunSettings
    inversions: dict[str, Scheme]

    def point(
        self, study: PrecisionStudy, factors: Sequence[Factor], digest: str
    ) -> PrecisionPoint:
        """Return the damped block in the middle of the widest factor, and its arrays."""
        return middle_of_widest(self.settings, factors, study.columns, self.inversions, digest)


def middle_of_widest(
    settings: RunSettings,
    factors: Sequence[Factor],
    columns: int,
    inversions: dict[str, Scheme],
    digest: str = "",
) -> PrecisionPoint:
    """Return the damped block in the middle of the widest factor, and the arrays of the settings.

    Parameters
    ----------
    settings : RunSettings
        Width of the block, damping, and the hardware.
    factors : sequence of Factor
        Those of a network.
    columns : int
        Right-hand sides at most.
    inversions : dict
        Name -> how it is solved.
    digest : str
        Of all that decides the factors, where points are kept.
    """
    widest = max(factors, key=lambda factor: len(factor.matrix))
    optimizer = second_order_of(settings.optimizer)
    width = len(widest.matrix)
    size = min(settings.soi.block_size, width)
    start = (width - size) // 2
    return PrecisionPoint(
        factors=digest,
        layer=widest.layer,
        factor=widest.kind,
        start=start,
        stop=start + size,
        damping=optimizer.damping,
        added=widest.damping(optimizer),
        columns=columns,
        inversions=inversions,
        vmm=settings.hardware.residual_spec,
        inv=settings.hardware.inv_spec,
        seed=settings.seed,
        prices=_known_prices(inversions, size, columns, settings.hardware),
    )


def _known_prices(
    inversions: Mapping[str, Scheme], size: int, columns: int, hardware: Hardware
) -> dict[str, Prices]:
    """Return the prices of a block that is solved with once, for the inversions that choose by
    them.
    """
    return {
        name: solve_prices(size, hardware, scheme).for_right_sides(columns)
        for name, scheme in inversions.items()
        if scheme.chooses_by_price
    }


def precision_cases(study: PrecisionStudy, settings: RunSettings) -> list[PrecisionCase]:
    """Return every combination of values of every grid that is to be solved.

    Raises
    ------
    SettingsError
        A grid or a variant names no setting, a value that is not valid, or one that the study does
        not read.
    """
    return [
        case
        for name in study.solve or study.grids
        for case in _of_grid(study, settings, name, study.grids[name])
    ]


def _of_grid(
    study: PrecisionStudy, settings: RunSettings, name: str, grid: PrecisionGrid
) -> Iterator[PrecisionCase]:
    _check_factors_stay(f"study.grids.{name}.settings", grid.settings)
    _check_factors_stay(f"study.grids.{name}.axes", grid.axes)
    start = varied(settings, grid.settings, f"study.grids.{name}.settings")
    variants = {
        variant: changes
        for variant, changes in study.variants.items()
        if variant in grid.methods or not grid.methods
    }
    for chosen in itertools.product(*grid.axes.values()):
        values = dict(zip(grid.axes, chosen, strict=True))
        changed = varied(start, values, f"study.grids.{name}.axes")
        inversions = inversions_of(study, changed, variants, "study.variants")
        yield PrecisionCase(name, values, changed, inversions)


def _check_factors_stay(where: str, paths: Iterable[str]) -> None:
    for path in paths:
        if path.partition(".")[0] not in _AFTER_TRAINING and path not in _OF_DAMPING:
            raise SettingsError(
                f"{where}: {path} decides the factors, which are the same on all grids; valid: "
                f"{', '.join((*_OF_DAMPING, *(f'{group}.*' for group in _AFTER_TRAINING)))}"
            )


def factors_digest(study: PrecisionStudy, settings: RunSettings) -> str:
    """Return a digest of all that decides the factors."""
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

"""Reports on the solves of a step, one per SOI block."""

import dataclasses
import math
from collections.abc import Iterable, Sequence


@dataclasses.dataclass(frozen=True)
class SolveReport:
    """The report of one solve; `repast_dist.trace.schema.SOLVE_SCHEMA` explains the fields."""

    step: int
    block: int
    layer: int
    factor: str
    method: str
    iterations: int
    mean_iterations: float
    residual: float
    target_bits: int
    converged: bool
    stable: bool
    saturated: bool
    action: str
    chip: int
    right_sides: int


def merged(reports: Iterable[SolveReport]) -> list[SolveReport]:
    """Merge reports into one per block, in block order; the worst right-hand sides count."""
    of_block: dict[int, list[SolveReport]] = {}
    for report in reports:
        of_block.setdefault(report.block, []).append(report)
    return [_worst(of_block[block]) for block in sorted(of_block)]


def _worst(reports: Sequence[SolveReport]) -> SolveReport:
    worst = max(reports, key=lambda r: (_SEVERITY[r.action], r.residual, -r.chip))
    right_sides = sum(report.right_sides for report in reports)
    # An exact sum: it must not depend on who solved what.
    rounds = math.fsum(report.mean_iterations * report.right_sides for report in reports)
    return dataclasses.replace(
        worst,
        iterations=max(report.iterations for report in reports),
        mean_iterations=rounds / right_sides if right_sides else 0.0,
        residual=max(report.residual for report in reports),
        converged=all(report.converged for report in reports),
        stable=all(report.stable for report in reports),
        saturated=any(report.saturated for report in reports),
        right_sides=right_sides,
    )


_SEVERITY = {"none": 0, "use": 1, "damp": 2, "fallback": 3}

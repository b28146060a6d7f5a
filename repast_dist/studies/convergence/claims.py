"""Claims about convergence, and the verdicts that the tables support.

A setting *matches* the reference, float64, if its mean final loss is not above the worst seed of
the reference, or less than one percent above its mean. Every verdict is computed from the tables.
"""

from collections.abc import Iterator

from repast_dist.report.units import si
from repast_dist.studies.convergence.tables import DIGITAL, FIRST, Row, Rows
from repast_dist.studies.kinds.convergence import ConvergenceStudy

_SAME = 1.01
"""Final losses within a percent are the same."""


def claim_rows(study: ConvergenceStudy, damping: Rows, targets: Rows, epochs: int) -> Rows:
    """Return every claim with the verdict that the tables support.

    Parameters
    ----------
    study : ConvergenceStudy
        Says which variants are claimed to be worse, and than which.
    damping : list of dict
        `summary_rows` of plain damping, all methods and noises.
    targets : list of dict
        `target_rows`.
    epochs : int
        Epochs of a run.
    """
    return [
        *_at_best_damping(study, damping),
        *_retuned(study, damping),
        *_in_half_the_epochs(targets, epochs),
        *_costs_to_target(targets),
    ]


def _at_best_damping(study: ConvergenceStudy, damping: Rows) -> Iterator[Row]:
    """Compare all variants with the reference, at the damping that is best for it."""
    reference, best = study.reference, best_reference(study, damping)
    for row in damping:
        if row["damping"] != best["damping"] or row["method"] == reference:
            continue
        worse = row["method"] in study.claimed_worse
        what = "is worse than" if worse else "matches"
        yield _claim(
            f"{_named(row)} {what} {reference} at {reference}'s best damping",
            _matches(row, best) != worse,
            f"final loss {_band(row)}, {row['final_loss'] / best['final_loss']:.2f} times "
            f"{reference}'s {_band(best)} at damping {best['damping']:g}"
            + (f"; {row['diverged']:.0%} of runs fail" if row["diverged"] else "")
            + (f"; {row['missed']:.0%} of solves miss their target" if row["missed"] else ""),
        )


def _retuned(study: ConvergenceStudy, damping: Rows) -> Iterator[Row]:
    """Compare what is claimed to be worse with the reference, each at its own best damping."""
    reference, best = study.reference, best_reference(study, damping)
    for method, noise in dict.fromkeys((row["method"], row["noise"]) for row in damping):
        if method == reference or method not in study.claimed_worse:
            continue
        own = [r for r in damping if (r["method"], r["noise"]) == (method, noise)]
        tuned = min(own, key=_final_loss)
        yield _claim(
            f"{_named(tuned)} retuned is worse than {reference}",
            not _matches(tuned, best),
            f"final loss {_band(tuned)} at damping {tuned['damping']:g}, "
            f"{tuned['final_loss'] / best['final_loss']:.2f} times {reference}'s "
            f"{_band(best)} at {best['damping']:g}",
        )


def _in_half_the_epochs(targets: Rows, epochs: int) -> Iterator[Row]:
    """Compare epochs to target of second-order optimizers with half of all epochs."""
    for row in targets:
        if row["order"] == FIRST:
            continue
        taken = row["epochs_to_target"]
        reached = (
            f"after {taken} of {epochs} epochs"
            if taken is not None
            else f"not reached in {epochs} epochs"
        )
        yield _claim(
            f"{row['task']}: {row['optimizer']} reaches the better first-order final loss in "
            "half the epochs",
            taken is not None and taken <= epochs / 2,
            f"loss {row['target']:.4g} {reached}",
        )


def _costs_to_target(targets: Rows) -> Iterator[Row]:
    """Compare seconds and joules to target with the better first-order optimizer."""
    for row in targets:
        if row["order"] == FIRST or row["arithmetic"] == DIGITAL:
            continue
        rivals = [
            other
            for other in targets
            if other["task"] == row["task"]
            and other["order"] == FIRST
            and other["time_to_target_s"] is not None
        ]
        for name, column, unit in (
            ("less simulated time", "time_to_target_s", "s"),
            ("less simulated energy", "energy_to_target_j", "J"),
        ):
            rival = min(rivals, key=lambda other: float(other[column]), default=None)
            ours, theirs = row[column], rival[column] if rival else None
            shown = [f"{row['optimizer']}: {si(ours, unit) if ours else 'target not reached'}"]
            if rival:
                shown.append(f"{rival['optimizer']}: {si(theirs, unit)}")
            if ours and theirs:
                shown.append(f"ratio {ours / theirs:.2f}")
            yield _claim(
                f"{row['task']}: {row['optimizer']} takes {name} to the target than the "
                "better first-order optimizer",
                ours is not None and (theirs is None or ours < theirs),
                "; ".join(shown),
            )


def answer(study: ConvergenceStudy, damping: Rows, targets: Rows, epochs: int) -> str:
    """Say in two sentences what trains as well as the reference, and how fast.

    Parameters
    ----------
    study, damping, targets, epochs
        As in `claim_rows`.
    """
    best = best_reference(study, damping)
    beside = [
        row
        for row in damping
        if row["damping"] == best["damping"] and row["method"] != study.reference
    ]
    analog = [row for row in beside if row["arithmetic"] != DIGITAL]
    parts = [_matching(DIGITAL, [r for r in beside if r["arithmetic"] == DIGITAL], best)]
    for noise in dict.fromkeys(row["noise"] for row in analog):
        rows = [row for row in analog if row["noise"] == noise]
        parts.append(_matching(f"with {noise:.1%} noise", rows, best))
    chips = [
        f"{row['task']}, {row['optimizer']}: {_reached(row, epochs)}"
        for row in targets
        if row["order"] != FIRST
    ]
    return (
        f"At {study.reference}'s best plain damping, {best['damping']:g}, which ends at a loss of "
        f"{best['final_loss']:.3g}: {'; '.join(part for part in parts if part)}. The better final "
        f"loss of the first-order optimizers is reached by {'; '.join(chips)}."
    )


def best_reference(study: ConvergenceStudy, damping: Rows) -> Row:
    """Return the reference's row with the lowest final loss."""
    return min((row for row in damping if row["method"] == study.reference), key=_final_loss)


def _reached(row: Row, epochs: int) -> str:
    taken = row["epochs_to_target"]
    return f"epoch {taken} of {epochs}" if taken else f"none of {epochs} epochs"


def _matching(where: str, rows: Rows, best: Row) -> str:
    same = [row["method"] for row in rows if _matches(row, best)]
    other = [
        f"{row['method']} ({row['final_loss']:.3g})" for row in rows if not _matches(row, best)
    ]
    clauses = [f"{', '.join(same)} as good"] if same else []
    clauses += [f"{', '.join(other)} not"] if other else []
    return f"{where} {' and '.join(clauses)}" if rows else ""


def _named(row: Row) -> str:
    if row["arithmetic"] == DIGITAL:
        return str(row["method"])
    return f"{row['method']} with {row['noise']:.1%} noise"


def _matches(row: Row, exact: Row) -> bool:
    return bool(row["final_loss"] <= max(exact["high"], _SAME * exact["final_loss"]))


def _claim(claim: str, holds: bool, evidence: str) -> Row:
    return {"claim": claim, "verdict": "holds" if holds else "does not hold", "evidence": evidence}


def _band(row: Row) -> str:
    return f"{row['final_loss']:.3g} ({row['low']:.3g} to {row['high']:.3g})"


def _final_loss(row: Row) -> float:
    return float(row["final_loss"])

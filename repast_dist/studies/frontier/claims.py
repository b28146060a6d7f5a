"""Claims about what a loss costs, and the verdicts that the tables support."""

from collections.abc import Iterator

from repast_dist.report.units import si
from repast_dist.studies.frontier.cases import SECOND
from repast_dist.studies.frontier.tables import Row, Rows
from repast_dist.studies.kinds.frontier import FrontierStudy


def claim_rows(study: FrontierStudy, targets: Rows) -> Rows:
    """Return every claim with the verdict that the tables support.

    Parameters
    ----------
    study : FrontierStudy
        Says which shares of time and energy are claimed, and on how many tasks.
    targets : list of dict
        `repast_dist.studies.frontier.tables.target_rows`.
    """
    inverting = [row for row in targets if row["inverts"]]
    return [
        _on_tasks(study, inverting),
        *(_claim(_reaches(study, row), holds(study, row), evidence(row)) for row in inverting),
        *_against_chips_without(targets),
        *_against_more_rounds(study, inverting),
    ]


def holds(study: FrontierStudy, row: Row) -> bool:
    """Return whether an optimizer reaches the target of a task within the claimed shares."""
    time, energy = row["of_time"], row["of_energy"]
    return (
        time is not None
        and energy is not None
        and time <= study.time_claimed
        and energy <= study.energy_claimed
    )


def evidence(row: Row) -> str:
    """Say what the target took beside the rival, or how far the loss is from it."""
    if row["of_time"] is None:
        return (
            f"{row['seeds_at_target']} of {row['seeds']} seeds reach {row['target']:.4g}; final "
            f"loss {row['final_loss']:.4g} ({row['low']:.4g} to {row['high']:.4g})"
        )
    return (
        f"loss {row['target']:.4g} with {row['of_steps']:.2f} times {row['rival']}'s steps, "
        f"{row['of_time']:.2f} times its time, {row['of_energy']:.2f} times its energy "
        f"({row['of_dynamic']:.2f} without static power) and {row['of_writes']:.2f} times its cell "
        "writes"
    )


def _reaches(study: FrontierStudy, row: Row) -> str:
    return (
        f"{row['task']}: {row['optimizer']}, {row['chip']}, reaches {row['rival']}'s final "
        f"loss in at most {study.time_claimed:g} of its time and {study.energy_claimed:g} of its "
        "energy"
    )


def _on_tasks(study: FrontierStudy, inverting: Rows) -> Row:
    won = dict.fromkeys(row["task"] for row in inverting if holds(study, row))
    return _claim(
        f"An optimizer that inverts on arrays does so on at least {study.tasks_claimed} tasks",
        len(won) >= study.tasks_claimed,
        f"{len(won)} of {len(study.tasks)}" + (f": {', '.join(won)}" if won else ""),
    )


def _against_chips_without(targets: Rows) -> Iterator[Row]:
    """Compare the best chip with inverting arrays with the best of the same area without them."""
    second = [row for row in targets if row["order"] == SECOND]
    for task, optimizer in dict.fromkeys((row["task"], row["optimizer"]) for row in second):
        mine = [row for row in second if (row["task"], row["optimizer"]) == (task, optimizer)]
        for name, words in _COMPARED.items():
            with_arrays, without = (
                _least(mine, f"of_{name}", inverts) for inverts in (True, False)
            )
            ours, theirs = with_arrays[f"of_{name}"], without[f"of_{name}"]
            yield _claim(
                f"{task}: {optimizer} takes less {words} to the target with inverting arrays than "
                "without, on chips of equal area",
                ours is not None and (theirs is None or ours < theirs),
                f"{with_arrays['chip']} {_share(ours)}, {without['chip']} {_share(theirs)}, of "
                f"{mine[0]['rival']}'s",
            )


_SAME = 0.01
"""Mean losses that differ by no more than this share are the same."""

_COMPARED = {
    "time": "time", "energy": "energy", "dynamic": "energy beside static power",
}  # fmt: skip
"""What chips with and without inverting arrays are compared by."""


def _least(rows: Rows, column: str, inverts: bool) -> Row:
    """Return the row with the least of a column, of chips that invert on arrays or that do not."""
    mine = [row for row in rows if row["inverts"] == inverts]
    return min(mine, key=lambda row: (row[column] is None, row[column] or 0.0))


def _against_more_rounds(study: FrontierStudy, inverting: Rows) -> Iterator[Row]:
    """Compare the first chip's inversion with that of another one."""
    chip, compared = next(iter(study.chips)), study.saving_over
    for row in inverting:
        for other in inverting:
            same = all(other[name] == row[name] for name in ("task", "optimizer"))
            if not same or (row["chip"], other["chip"]) != (chip, compared):
                continue
            ours, theirs = row["inversion_j_of_a_step"], other["inversion_j_of_a_step"]
            yield _claim(
                f"{row['task']}: {row['optimizer']} inverts with 1/{study.saving_claimed:g} of the "
                f"energy per step on {chip} of that on {other['chip']}, and trains as well",
                None not in (ours, theirs)
                and ours * study.saving_claimed <= theirs
                and _trains_as(row, other),
                f"{_joules(ours)} and {_joules(theirs)} per step; final loss "
                f"{row['final_loss']:.4g} and {other['final_loss']:.4g} ({other['low']:.4g} to "
                f"{other['high']:.4g})",
            )


def _trains_as(row: Row, other: Row) -> bool:
    """Return whether a mean final loss is not above another's highest, or hardly above its mean."""
    return bool(row["final_loss"] <= max(other["high"], (1 + _SAME) * other["final_loss"]))


def _joules(value: float | None) -> str:
    return "unknown" if value is None else si(value, "J")


def _share(value: float | None) -> str:
    return "target missed" if value is None else f"{value:.2f}"


def _claim(claim: str, verdict: bool, shown: str) -> Row:
    return {
        "claim": claim,
        "verdict": "holds" if verdict else "does not hold",
        "evidence": shown,
    }

"""Trained points as tables: curves, what a common loss costs, and what would have to change.

A *loss* is the training loss averaged over the last few steps, of a run with fewer over those it
has. A run that ended early, or that ends no better than it began, has *failed*: it counts with the
loss of its first step, and never reaches a target.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from repast_dist.ops import Segment
from repast_dist.studies.case import Point, TrainedCase
from repast_dist.studies.frontier.cases import FIRST, SECOND

Row = dict[str, Any]
Rows = list[Row]

SHARES = {
    "inversion": ("inversion",),
    "factors": ("soi",),
    "writing": ("program",),
}
"""What second order adds -> the phases of a step in which it costs energy."""

SOLVING = (Segment.RENEW_AND_SOLVE_G.title, Segment.SOLVE_A.title)
"""Parts of a step in which blocks are renewed and solved with."""


@dataclasses.dataclass(frozen=True)
class Run(TrainedCase):
    """One trained point.

    Attributes
    ----------
    labels : dict
        Of `repast_dist.studies.case.TunedCase`.
    changes : dict
        What was varied: dotted path -> value.
    record : dict
        Of `repast_dist.studies.frontier.training.frontier_point`.
    window : int
        Steps over which a loss is averaged.
    """

    window: int

    @property
    def losses(self) -> np.ndarray:
        """The averaged loss after every step, (steps,)."""
        loss = np.asarray(self.record["loss"], float)
        total = np.concatenate([[0.0], np.cumsum(loss)])
        end = np.arange(1, len(loss) + 1)
        begin = np.maximum(end - self.window, 0)
        averaged: np.ndarray = (total[end] - total[begin]) / (end - begin)
        return averaged

    @property
    def failed(self) -> bool:
        """Whether training broke off, or ended no better than it began."""
        record = self.record
        if record["diverged"] is not None or not record["loss"]:
            return True
        return bool(self.losses[-1] >= record["loss"][0])

    @property
    def final_loss(self) -> float:
        """The averaged loss after the last step; see the module."""
        if self.failed:
            return float(self.record["loss"][0]) if self.record["loss"] else float("inf")
        return float(self.losses[-1])

    def spent(self, name: str) -> np.ndarray:
        """Return what was spent after every step, (steps,): time_s, energy_j or cell_writes."""
        of_step = (
            np.sum(list(self.record["phases_j"].values()), axis=0)
            if name == "energy_j"
            else np.asarray(self.record[name], float)
        )
        return np.cumsum(of_step)

    def spent_in(self, phases: Sequence[str], steps: int) -> float:
        """Return the energy of some phases in the first steps, in J."""
        return float(sum(np.sum(self.record["phases_j"][phase][:steps]) for phase in phases))

    def solving_s(self, steps: int) -> float:
        """Return the time of renewing blocks and solving with them in the first steps, in s."""
        return float(sum(np.sum(self.record["segments_s"][part][:steps]) for part in SOLVING))

    def forming_s(self, steps: int) -> float:
        """Return by how much the first steps take longer for forming factors, in s: against a
        passage through the layers of steps that form none; 0 where there are no such steps.
        """
        computing = np.asarray(self.record["segments_s"][Segment.COMPUTE.title], float)
        forms = np.asarray(self.record["phases_j"]["soi"], float) > 0
        if forms.all() or not forms.any():
            return 0.0
        return float((computing - computing[~forms].mean())[:steps][forms[:steps]].sum())

    def steps_to(self, target: float) -> int | None:
        """Return after how many steps the averaged loss is at a target first; None: never."""
        if self.failed:
            return None
        reached = np.flatnonzero(self.losses <= target)
        return int(reached[0]) + 1 if reached.size else None


SPENT = ("time_s", "energy_j", "cell_writes")
"""What a run spends."""


def first_order_target(runs: Sequence[Run]) -> float:
    """Return the lowest mean final loss of the optimizers that solve with nothing, of one task."""
    groups = _groups([run for run in runs if run.labels["order"] == FIRST])
    return min(float(np.mean([run.final_loss for run in group])) for group in groups)


def best_points(tuned: Sequence[Run]) -> dict[tuple[str, str], Point]:
    """Return, per optimizer and chip of one task, what was varied in the best of its runs.

    The target is the lowest final loss of any run of an optimizer that solves with nothing. Of runs
    that reach it the quickest in simulated time is the best; if none does, the one with the lowest
    final loss.
    """
    first = [run.final_loss for run in tuned if run.labels["order"] == FIRST]
    target = min(first)

    def judged(run: Run) -> tuple[bool, float]:
        steps = run.steps_to(target)
        if steps is None:
            return True, run.final_loss
        return False, float(run.spent("time_s")[steps - 1])

    best: dict[tuple[str, str], Run] = {}
    for run in tuned:
        key = run.labels["optimizer"], run.labels["chip"]
        if key not in best or judged(run) < judged(best[key]):
            best[key] = run
    return {key: run.changes for key, run in best.items()}


def tuning_rows(tuned: Sequence[Run], chosen: Mapping[tuple[str, str, str], Point]) -> Rows:
    """Return every setting that was tried, and which was chosen."""
    return [
        {
            **{name: run.labels[name] for name in (*_OF_A_GROUP, "tuned")},
            "final_loss": run.final_loss,
            "failed": run.failed,
            **{name: float(run.spent(name)[-1]) if run.record["loss"] else 0.0 for name in SPENT},
            "chosen": chosen[_group_of(run)] == run.changes,
        }
        for run in tuned
    ]


def target_rows(runs: Sequence[Run], static_w: Mapping[str, float]) -> Rows:
    """Return, per task, optimizer and chip, what the task's target costs.

    ``steps``, ``time_s``, ``energy_j``, ``cell_writes``: to the target, means over the seeds; None
    where a seed misses it. ``dynamic_j``: energy without what flows whatever is done.
    ``of_time``, ``of_energy``, ``of_dynamic``, ``of_writes``, ``of_steps``: relative to the
    optimizer whose final loss is the target, ``rival``.

    Parameters
    ----------
    runs : sequence of Run
        Reported runs.
    static_w : mapping
        Chip -> power that flows whatever is done, of all chips of a run.
    """
    rows: Rows = []
    for task in dict.fromkeys(run.labels["task"] for run in runs):
        own = [run for run in runs if run.labels["task"] == task]
        target = first_order_target(own)
        found = [_target_row(group, target, static_w) for group in _groups(own)]
        rival = min(
            (row for row in found if row["order"] == FIRST),
            key=lambda row: float(row["final_loss"]),
        )
        spent = _spent(own, rival, static_w)
        for row in found:
            rows.append(row | {"rival": rival["optimizer"]} | _relative(row, spent))
    return rows


def rival_rows(runs: Sequence[Run], static_w: Mapping[str, float]) -> Rows:
    """Return what optimizers that solve take to the final loss of each of those that do not.

    ``of_steps``, ``of_time``, ``of_energy``, ``of_dynamic``, ``of_writes``: relative to all that
    the ``rival`` took; None where a seed misses its loss.

    Parameters
    ----------
    runs : sequence of Run
        Reported runs.
    static_w : mapping
        Chip -> power that flows whatever is done, of all chips of a run.
    """
    rows: Rows = []
    for task in dict.fromkeys(run.labels["task"] for run in runs):
        own = [run for run in runs if run.labels["task"] == task]
        first = [run for run in own if run.labels["order"] == FIRST]
        for rivals in _groups(first):
            target = float(np.mean([run.final_loss for run in rivals]))
            rival = _target_row(rivals, target, static_w)
            spent = _spent(own, rival, static_w)
            for group in _groups([run for run in own if run.labels["order"] == SECOND]):
                row = _target_row(group, target, static_w)
                named = {name: row[name] for name in (*_OF_A_GROUP, "target", "seeds_at_target")}
                rows.append(named | {"rival": rival["optimizer"]} | _relative(row, spent))
    return rows


def _target_row(group: Sequence[Run], target: float, static_w: Mapping[str, float]) -> Row:
    labels = group[0].labels
    losses = [run.final_loss for run in group]
    steps = [run.steps_to(target) for run in group]
    reached = [taken for taken in steps if taken is not None]
    row = {name: labels[name] for name in (*_OF_A_GROUP, "order", "inverts", "tuned")}
    row |= {
        "target": target,
        "seeds": len(group),
        "seeds_at_target": len(reached),
        "final_loss": float(np.mean(losses)),
        "low": min(losses),
        "high": max(losses),
        "accuracy": _mean(run.record["accuracy"] for run in group),
        "failed": sum(run.failed for run in group),
        "inversion_j_of_a_step": _mean(
            run.spent_in(SHARES["inversion"], len(run.record["loss"])) / len(run.record["loss"])
            if run.record["loss"]
            else None
            for run in group
        ),
        "rounds": _mean(run.record["solves"].get("rounds") for run in group),
        "missed": _mean(run.record["solves"].get("missed") for run in group),
        "steps": _mean(steps),
    }
    for name in SPENT:
        at_target = [
            None if taken is None else float(run.spent(name)[taken - 1])
            for run, taken in zip(group, steps, strict=True)
        ]
        row[name] = _mean(at_target)
        row[f"{name}_of_a_step"] = _mean(
            run.spent(name)[-1] / len(run.record["loss"]) if run.record["loss"] else None
            for run in group
        )
    static = None if row["time_s"] is None else static_w[row["chip"]] * row["time_s"]
    row["dynamic_j"] = None if static is None else row["energy_j"] - static
    return row


def _spent(runs: Sequence[Run], rival: Row, static_w: Mapping[str, float]) -> dict[str, float]:
    """Return what the rival spends until its mean loss is the target: all its steps."""
    group = [
        run for run in runs
        if (run.labels["optimizer"], run.labels["chip"]) == (rival["optimizer"], rival["chip"])
    ]  # fmt: skip
    spent = {name: float(np.mean([run.spent(name)[-1] for run in group])) for name in SPENT}
    spent["dynamic_j"] = spent["energy_j"] - static_w[rival["chip"]] * spent["time_s"]
    return spent | {"steps": float(np.mean([len(run.record["loss"]) for run in group]))}


def _relative(row: Row, spent: Mapping[str, float]) -> Row:
    columns = {
        "steps": "of_steps", "time_s": "of_time", "energy_j": "of_energy",
        "dynamic_j": "of_dynamic", "cell_writes": "of_writes",
    }  # fmt: skip
    return {
        column: None if row[name] is None else row[name] / spent[name]
        for name, column in columns.items()
    }


def change_rows(runs: Sequence[Run], targets: Rows, time: float, energy: float) -> Rows:
    """Return what would have to change for the claimed shares of time and energy.

    ``a_step_may_take``: how much longer than a step of the rival one may take, at the steps that
    were needed; ``it_takes``: what it takes. The same for energy; and the energy to the target,
    relative to the rival's, if a part of the work cost nothing, and the time, if it took none.

    Parameters
    ----------
    runs : sequence of Run
        Reported runs.
    targets : list of dict
        `target_rows`.
    time, energy : float
        Shares that are claimed.
    """
    rivals = {
        row["task"]: row for row in targets
        if row["order"] == FIRST and row["optimizer"] == row["rival"]
    }  # fmt: skip
    rows: Rows = []
    for row in targets:
        if row["order"] != SECOND:
            continue
        rival = rivals[row["task"]]
        found = {name: row[name] for name in ("task", "optimizer", "chip", "of_steps")}
        share = row["of_steps"]
        for name, column, claimed in (("time", "time_s", time), ("energy", "energy_j", energy)):
            taken = row[f"{column}_of_a_step"], rival[f"{column}_of_a_step"]
            found[f"{name}_a_step_may_take"] = None if share is None else claimed / share
            found[f"{name}_it_takes"] = None if None in taken else taken[0] / taken[1]
        group = [run for run in runs if all(run.labels[k] == row[k] for k in _OF_A_GROUP)]
        for name in ("solving", "forming"):
            parts = _mean(
                None if (steps := run.steps_to(row["target"])) is None
                else getattr(run, f"{name}_s")(steps)
                for run in group
            )  # fmt: skip
            found[f"time_without_{name}"] = (
                None if parts is None or row["time_s"] is None
                else (row["time_s"] - parts) / row["time_s"] * row["of_time"]
            )  # fmt: skip
        for name, phases in SHARES.items():
            parts = _mean(
                None if (steps := run.steps_to(row["target"])) is None
                else run.spent_in(phases, steps)
                for run in group
            )  # fmt: skip
            found[f"energy_without_{name}"] = (
                None if parts is None or row["energy_j"] is None
                else (row["energy_j"] - parts) / row["energy_j"] * row["of_energy"]
            )  # fmt: skip
        rows.append(found)
    return rows


def part_rows(runs: Sequence[Run]) -> Rows:
    """Return, per task, optimizer and chip, what the parts of an average step take of its time, and
    how much of the passage through the layers is for forming factors.

    Parameters
    ----------
    runs : sequence of Run
        Reported runs.
    """
    rows: Rows = []
    for group in _groups([run for run in runs if run.record["loss"]]):
        named = {name: group[0].labels[name] for name in _OF_A_GROUP}
        steps = [len(run.record["loss"]) for run in group]
        forming = _mean(
            run.forming_s(count) / count for run, count in zip(group, steps, strict=True)
        )
        for segment in Segment:
            taken = _mean(np.mean(run.record["segments_s"][segment.title]) for run in group)
            if taken:
                of_factors = forming if segment is Segment.COMPUTE else 0.0
                rows.append(
                    named | {"part": segment.title, "part_s": taken, "of_factors_s": of_factors}
                )
    return rows


def curve_rows(runs: Sequence[Run], most: int = 60) -> Rows:
    """Return averaged losses, means over seeds with their band, over what was spent.

    Parameters
    ----------
    runs : sequence of Run
        Reported runs.
    most : int
        Points of a curve; those between are left out.
    """
    rows = []
    for group in _groups([run for run in runs if not run.failed]):
        steps = min(len(run.record["loss"]) for run in group)
        losses = np.array([run.losses[:steps] for run in group])
        spent = {name: np.mean([run.spent(name)[:steps] for run in group], 0) for name in SPENT}
        labels = group[0].labels
        name = labels["optimizer"]
        if labels["order"] == SECOND:
            name = f"{name}, {labels['chip']}"
        for at in np.unique(np.linspace(0, steps - 1, min(steps, most)).astype(int)).tolist():
            rows.append(
                {
                    "task": labels["task"],
                    "optimizer": name,
                    "step": at + 1,
                    "loss": float(losses[:, at].mean()),
                    "low": float(losses[:, at].min()),
                    "high": float(losses[:, at].max()),
                    **{column: float(values[at]) for column, values in spent.items()},
                }
            )
    return rows


_OF_A_GROUP = ("task", "optimizer", "chip")


def _groups(runs: Sequence[Run]) -> Iterator[list[Run]]:
    """Yield runs that differ in the seed alone."""
    groups: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault(_group_of(run), []).append(run)
    yield from groups.values()


def _group_of(run: Run) -> tuple[str, str, str]:
    task, optimizer, chip = (run.labels[name] for name in _OF_A_GROUP)
    return task, optimizer, chip


def _mean(values: Any) -> float | None:
    """Return the mean; None where one of the values is missing."""
    known = list(values)
    return None if None in known or not known else float(np.mean(known))

"""Trained points as tables: means over seeds, cost to a target, trade-offs.

A run's *final loss* is its last epoch's training loss. A run that ended early, or that is no
better at the end than before training, counts with the loss of its first batch, so that one
such run does not hide the others of its setting.
"""

import dataclasses
import enum
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

Row = dict[str, Any]
Rows = list[Row]

DIGITAL = "digital"
"""Arithmetic of inversions that no error of cells touches."""

FIRST = "first"
"""Order of optimizers that invert nothing."""

_EPOCH_MEANS = ("train_loss", "test_loss", "test_accuracy", "time_s", "energy_j")
_SHOWN_OF_TARGETS = ("seeds", "final_loss", "low", "high", "accuracy", "time_s", "energy_j")


class Part(enum.StrEnum):
    """The parts of the study that a run can belong to."""

    DAMPING = "damping"
    FORM = "damping form"
    NOISE = "noise"
    BLOCKS = "blocks"
    SEARCH = "search"
    OPTIMIZERS = "optimizers"


@dataclasses.dataclass(frozen=True)
class Run:
    """One trained point.

    Attributes
    ----------
    labels : dict
        What it is shown as: ``part`` of the study, ``seed``, and what was varied.
    record : dict
        Of `repast_dist.studies.convergence.training.convergence_point`.
    """

    labels: dict[str, Any]
    record: dict[str, Any]

    @property
    def setting(self) -> dict[str, Any]:
        """Its labels without the seed: what several runs have in common."""
        return {name: value for name, value in self.labels.items() if name != "seed"}

    @property
    def diverged(self) -> bool:
        """Whether training broke off, or ended no better than it began."""
        return self.record["diverged"] is not None or self._last >= self.record["first_loss"]

    @property
    def final_loss(self) -> float:
        """Last epoch's training loss; see the module."""
        return float(self.record["first_loss"] if self.diverged else self._last)

    @property
    def epochs(self) -> Rows:
        """Records of the epochs."""
        epochs: Rows = self.record["epochs"]
        return epochs

    @property
    def _last(self) -> float:
        return float(self.epochs[-1]["train_loss"]) if self.epochs else float("inf")


def best_settings(runs: Sequence[Run], keys: Sequence[str]) -> Rows:
    """Return, per value of some labels, all labels of the setting with the lowest final loss.

    Parameters
    ----------
    runs : sequence of Run
        Settings differ in labels; runs of one setting in ``seed`` only.
    keys : sequence of str
        Labels within which settings compete.
    """
    best: dict[tuple[Any, ...], dict[str, Any]] = {}
    for setting, group in _settings(runs):
        found = setting | {"final_loss": _mean(run.final_loss for run in group)}
        key = tuple(setting[name] for name in keys)
        if key not in best or found["final_loss"] < best[key]["final_loss"]:
            best[key] = found
    return list(best.values())


def summary_rows(runs: Sequence[Run]) -> Rows:
    """Return one row per setting: means over its seeds, and the band of the final loss."""
    rows = []
    for setting, group in _settings(runs):
        losses = [run.final_loss for run in group]
        rows.append(
            setting
            | {
                "seeds": len(group),
                "final_loss": _mean(losses),
                "low": min(losses),
                "high": max(losses),
                "accuracy": _mean(_last_of(run, "test_accuracy", 0.0) for run in group),
                "diverged": _mean(run.diverged for run in group),
            }
            | {
                name: _mean_or_none(run.record["solves"].get(name) for run in group)
                for name in ("median_residual", "worst_residual", "missed", "rounds")
            }
            | {
                name: _mean_or_none(_last_of(run, name, None) for run in group)
                for name in ("time_s", "energy_j")
            }
        )
    return rows


def target_rows(runs: Sequence[Run]) -> Rows:
    """Return, per task and optimizer, the cost of reaching the best first-order final loss."""
    rows: Rows = []
    for row in summary_rows(runs):
        group = [
            run
            for run in runs
            if (run.labels["task"], run.labels["optimizer"]) == (row["task"], row["optimizer"])
        ]
        target = target_loss(runs, row["task"])
        below = sum(run.final_loss <= target for run in group)
        there = next((item for item in _mean_epochs(group) if item["train_loss"] <= target), {})
        rows.append(
            {name: row[name] for name in (*group[0].setting, *_SHOWN_OF_TARGETS)}
            | {
                "target": target,
                "seeds_below": f"{below} of {len(group)}",
                "epochs_to_target": there.get("epoch"),
                "steps_to_target": there.get("step"),
                "time_to_target_s": there.get("time_s"),
                "energy_to_target_j": there.get("energy_j"),
            }
        )
    return rows


def target_loss(runs: Sequence[Run], task: str) -> float:
    """Return the best of the mean final losses of first-order optimizers on a task."""
    first_order = [
        run for run in runs if run.labels["task"] == task and run.labels["order"] == FIRST
    ]
    return min(float(row["final_loss"]) for row in summary_rows(first_order))


def curve_rows(runs: Sequence[Run]) -> Rows:
    """Return means over seeds per task, optimizer and epoch, with the band of the loss."""
    rows = []
    for setting, group in _settings(runs):
        for item in _mean_epochs(group):
            losses = [run.epochs[int(item["epoch"]) - 1]["train_loss"] for run in group]
            rows.append(
                {
                    "task": setting["task"],
                    "optimizer": setting["optimizer"],
                    "epoch": item["epoch"],
                    "loss": item["train_loss"],
                    "low": min(losses),
                    "high": max(losses),
                }
                | {name: item[name] for name in _EPOCH_MEANS[1:]}
            )
    return rows


def _mean_epochs(group: Sequence[Run]) -> Rows:
    """Return means over runs per epoch, up to the last epoch that all of them reached."""
    return [
        {"epoch": items[0]["epoch"], "step": items[0]["step"]}
        | {name: _mean(item[name] for item in items) for name in _EPOCH_MEANS}
        for items in zip(*(run.epochs for run in group), strict=False)
    ]


def trade_off_rows(blocks: Rows) -> Rows:
    """Return loss, time and energy per block size, relative to the largest."""
    rows = []
    for method in dict.fromkeys(row["method"] for row in blocks):
        own = sorted((r for r in blocks if r["method"] == method), key=lambda r: r["block_size"])
        whole = own[-1]
        for row in own:
            for name, column in (
                ("final loss", "final_loss"), ("seconds", "time_s"), ("joules", "energy_j"),
            ):  # fmt: skip
                relative = row[column] / whole[column] if row[column] and whole[column] else None
                rows.append(
                    {
                        "method": method,
                        "block_size": row["block_size"],
                        "quantity": name,
                        "relative": relative,
                    }
                )
    return rows


def _settings(runs: Sequence[Run]) -> Iterator[tuple[dict[str, Any], list[Run]]]:
    """Yield every setting, its labels without the seed, with its runs."""
    groups: dict[tuple[Any, ...], tuple[dict[str, Any], list[Run]]] = {}
    for run in runs:
        groups.setdefault(tuple(run.setting.values()), (run.setting, []))[1].append(run)
    yield from groups.values()


def _last_of(run: Run, name: str, missing: Any) -> Any:
    return run.epochs[-1][name] if run.epochs else missing


def _mean(values: Any) -> float:
    return float(np.mean(list(values)))


def _mean_or_none(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None

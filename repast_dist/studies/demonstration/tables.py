"""Trained runs as tables: epochs to an accuracy, and the share of them that an optimizer saves.

Tests follow epochs. Between two of them, and from nothing before the first, accuracy is taken to
grow evenly, so that epochs to a target are no whole numbers.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from repast_dist.studies.case import Point, TrainedCase
from repast_dist.studies.kinds.demonstration import DemonstrationStudy

Row = dict[str, Any]
Rows = list[Row]


@dataclasses.dataclass(frozen=True)
class Run(TrainedCase):
    """One trained run.

    Attributes
    ----------
    labels : dict
        Of `repast_dist.studies.case.TunedCase`.
    changes : dict
        What was varied: dotted path -> value.
    record : dict
        Of `repast_dist.studies.convergence.training.convergence_point`.
    """

    @property
    def group(self) -> tuple[str, str]:
        """Optimizer and circuit."""
        return self.labels["optimizer"], self.labels["circuit"]

    @property
    def accuracies(self) -> np.ndarray:
        """Share of the test set told right after every epoch, (epochs,)."""
        return np.array([epoch["test_accuracy"] for epoch in self.record["epochs"]], float)

    def epochs_to(self, target: float) -> float | None:
        """Return after how many epochs a target is reached first; None: never."""
        return epochs_to(self.accuracies, target)


def epochs_to(accuracies: np.ndarray, target: float) -> float | None:
    """Return after how many epochs a target is reached first, or None.

    Parameters
    ----------
    accuracies : ndarray
        (epochs,) after every epoch.
    target : float
        What is to be reached.
    """
    reached = np.flatnonzero(accuracies >= target)
    if not reached.size:
        return None
    after = int(reached[0])
    before = accuracies[after - 1] if after else 0.0
    return float(after + (target - before) / (accuracies[after] - before))


def best_points(tuned: Sequence[Run], target: float) -> dict[str, Point]:
    """Return, per optimizer, what was varied in the runs that reached the target first, in the mean
    over the seeds of tuning: of those of which the fewest miss it. Where all do, what gave the
    highest last accuracy.
    """

    def judged(runs: Sequence[Run]) -> tuple[int, float]:
        found = [epochs for run in runs if (epochs := run.epochs_to(target)) is not None]
        last = [float(run.accuracies[-1]) for run in runs if run.accuracies.size]
        return len(runs) - len(found), float(np.mean(found)) if found else -sum(last)

    tried: dict[str, dict[str, list[Run]]] = {}
    for run in tuned:
        of_optimizer = tried.setdefault(run.labels["optimizer"], {})
        of_optimizer.setdefault(run.labels["searched"], []).append(run)
    return {name: min(points.values(), key=judged)[0].changes for name, points in tried.items()}


def tuning_rows(tuned: Sequence[Run], best: dict[str, Point], target: float) -> Rows:
    """Return every setting that was tried, what it gave, and which was chosen."""
    return [
        {
            "optimizer": run.labels["optimizer"],
            "searched": run.labels["searched"],
            "seed": run.labels["seed"],
            "epochs_to_target": run.epochs_to(target),
            "last_accuracy": float(run.accuracies[-1]) if run.accuracies.size else None,
            "failed": run.record["diverged"] is not None,
            "chosen": best[run.labels["optimizer"]] == run.changes,
        }
        for run in tuned
    ]


def target_rows(runs: Sequence[Run], targets: Sequence[float]) -> Rows:
    """Return the epochs that every optimizer and circuit takes to every target: median, lowest and
    highest of the seeds, None where it is one that misses the target; and the mean of the last
    accuracies, of those that ended an epoch.
    """
    rows: Rows = []
    for group, own in _groups(runs).items():
        last = [float(run.accuracies[-1]) for run in own if run.accuracies.size]
        for target in targets:
            epochs = [run.epochs_to(target) for run in own]
            found = [value for value in epochs if value is not None]
            rows.append(
                {
                    "optimizer": group[0],
                    "circuit": group[1],
                    "target": target,
                    "epochs": median_epochs(own, target),
                    "lowest": min(found, default=None),
                    "highest": max(found) if len(found) == len(epochs) else None,
                    "seeds_at_target": len(found),
                    "seeds": len(epochs),
                    "last_accuracy": float(np.mean(last)) if last else None,
                }
            )
    return rows


def saving_rows(study: DemonstrationStudy, runs: Sequence[Run]) -> Rows:
    """Return, per circuit, rival and target, the share of the rival's epochs that is saved.

    ``saving`` is of median epochs, ``lowest`` and ``highest`` of epochs with the same seed, of the
    seeds with which both reach the target; None where there is none. ``published`` stands beside
    the study's circuit and target.
    """
    groups = _groups(runs)
    rows: Rows = []
    for (name, circuit), own in groups.items():
        if name != study.optimizer:
            continue
        for figure in study.published:
            rivals = next(of for group, of in groups.items() if group[0] == figure.rival)
            for target in (study.target, *study.other_targets):
                beside = circuit == study.circuit and target == study.target
                rows.append(
                    {
                        "optimizer": name,
                        "circuit": circuit,
                        "rival": figure.rival,
                        "target": target,
                        **_saving(own, rivals, target),
                        "published": figure.value if beside else None,
                    }
                )
    return rows


def curve_rows(runs: Sequence[Run]) -> Rows:
    """Return loss and accuracy after every epoch of every optimizer and circuit, over the seeds."""
    rows: Rows = []
    for (optimizer, circuit), own in _groups(runs).items():
        of_seeds = [run.record["epochs"] for run in own]
        for number in range(min(map(len, of_seeds))):
            accuracy = [epochs[number]["test_accuracy"] for epochs in of_seeds]
            loss = [epochs[number]["train_loss"] for epochs in of_seeds]
            rows.append(
                {
                    "optimizer": optimizer,
                    "circuit": circuit,
                    "trained": optimizer if circuit == "none" else f"{optimizer}, {circuit}",
                    "epoch": number + 1,
                    "test_accuracy": float(np.mean(accuracy)),
                    "lowest": min(accuracy),
                    "highest": max(accuracy),
                    "train_loss": float(np.mean(loss)),
                }
            )
    return rows


def _groups(runs: Sequence[Run]) -> dict[tuple[str, str], list[Run]]:
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault(run.group, []).append(run)
    return groups


def median_epochs(runs: Sequence[Run], target: float) -> float | None:
    """Return the median of the epochs to a target over the seeds, of which those that miss it count
    as the slowest; None where it is one that misses.
    """
    epochs = [run.epochs_to(target) for run in runs]
    found = float(np.median([np.inf if value is None else value for value in epochs]))
    return found if np.isfinite(found) else None


def median_saving(own: Sequence[Run], rivals: Sequence[Run], target: float) -> float | None:
    """Return one minus the ratio of median epochs to a target; None where there is no median."""
    ours, theirs = median_epochs(own, target), median_epochs(rivals, target)
    return None if ours is None or theirs is None else 1.0 - ours / theirs


def _saving(own: Sequence[Run], rivals: Sequence[Run], target: float) -> Row:
    each = [median_saving([run], [rival], target) for run, rival in zip(own, rivals, strict=True)]
    found = [value for value in each if value is not None]
    return {
        "saving": median_saving(own, rivals, target),
        "lowest": min(found, default=None),
        "highest": max(found, default=None),
        "seeds_of_both": len(found),
    }

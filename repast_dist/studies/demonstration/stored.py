"""Curves of a run of the study: what it leaves, and those that are shipped.

``curves.json`` of a run directory becomes the shipped ``shipped_curves.json``, by which
``study=validate`` puts the published savings beside ours without training again.
"""

import dataclasses
import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from repast_dist.ground.errors import SettingsError
from repast_dist.studies.demonstration.tables import Run, median_saving
from repast_dist.studies.kinds.demonstration import DemonstrationStudy

CURVES = "curves.json"
SHIPPED = "shipped_curves.json"


@dataclasses.dataclass(frozen=True)
class StoredCurves:
    """What a run of the study left.

    Attributes
    ----------
    data : str
        What was trained on, and where it comes from.
    optimizer, circuit : str
        What is put beside the demonstration.
    target : float
        Share of the test set that is to be told right.
    runs : tuple of Run
        The reported ones.
    """

    data: str
    optimizer: str
    circuit: str
    target: float
    runs: tuple[Run, ...]

    @property
    def data_name(self) -> str:
        """What was trained on, in a word or two."""
        return data_name(self.data)

    def saving(self, rival: str) -> float:
        """Return the share of a rival's median epochs to the target that is saved.

        Raises
        ------
        SettingsError
            The rival was not trained, or most seeds miss the target.
        """
        own = [run for run in self.runs if run.group == (self.optimizer, self.circuit)]
        others = [run for run in self.runs if run.group[0] == rival]
        names = dict.fromkeys(run.group[0] for run in self.runs if run.group[0] != self.optimizer)
        if not others or rival == self.optimizer:
            raise SettingsError(f"no epochs of '{rival}' are stored; valid: {', '.join(names)}")
        found = median_saving(own, others, self.target)
        if found is None:
            raise SettingsError(f"most stored runs of {self.optimizer} or {rival} miss the target")
        return found


def data_name(source: str) -> str:
    """Return the name at the beginning of what a data set says of its source."""
    return source.partition(":")[0].partition(" (")[0]


def curves(study: DemonstrationStudy, source: str, reported: Sequence[Run]) -> dict[str, Any]:
    """Return what a run leaves, as JSON data.

    Parameters
    ----------
    study : DemonstrationStudy
        What was compared.
    source : str
        Where the data come from.
    reported : sequence of Run
        The reported runs.
    """
    return {
        "data": source,
        "optimizer": study.optimizer,
        "circuit": study.circuit,
        "target": study.target,
        "runs": [
            {
                **run.labels,
                "changes": run.changes,
                "train_loss": [epoch["train_loss"] for epoch in run.record["epochs"]],
                "test_accuracy": [epoch["test_accuracy"] for epoch in run.record["epochs"]],
            }
            for run in reported
        ],
    }


def shipped() -> StoredCurves:
    """Return the curves that are shipped."""
    text = (files("repast_dist.studies.demonstration") / SHIPPED).read_text(encoding="utf-8")
    return stored(json.loads(text))


def stored(data: dict[str, Any]) -> StoredCurves:
    """Return curves as `curves` left them."""
    runs = []
    for item in data["runs"]:
        labels = {name: item[name] for name in ("optimizer", "circuit", "seed", "searched")}
        epochs = [
            {"epoch": number, "train_loss": loss, "test_accuracy": accuracy}
            for number, (loss, accuracy) in enumerate(
                zip(item["train_loss"], item["test_accuracy"], strict=True), 1
            )
        ]
        runs.append(Run(labels, item["changes"], {"epochs": epochs, "diverged": None}))
    return StoredCurves(
        data=data["data"],
        optimizer=data["optimizer"],
        circuit=data["circuit"],
        target=data["target"],
        runs=tuple(runs),
    )

"""The section on training: losses and accuracies over steps and epochs."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from repast_dist.report import figures
from repast_dist.report.axes import Axis
from repast_dist.report.page import Column, Figure, Frame, Part, Table
from repast_dist.report.run_data import RunData
from repast_dist.report.units import number, percent

_SMOOTHED_POINTS = 40


def training(run: RunData) -> list[Part]:
    """Return the curves of loss and accuracy, and a table of epochs."""
    parts: list[Part] = []
    for quantity in (Axis("loss", log=True), Axis("accuracy", "fraction")):
        curves = _curves(run, quantity.title)
        if curves:
            parts.append(_progress(curves, quantity))
    if run.result.get("epochs"):
        parts.append(_epoch_table(run.result["epochs"]))
    return parts


def _curves(run: RunData, key: str) -> list[figures.Curve]:
    curves = []
    known = [step for step in run.result.get("steps", []) if step.get(key) is not None]
    if known:
        steps, values = [step["step"] for step in known], [step[key] for step in known]
        name = "training, smoothed over steps"
        curves.append(figures.Curve(name, steps, _smoothed(values), faint=values))
    tested = [e for e in run.result.get("epochs", []) if e.get(f"test_{key}") is not None]
    if tested:
        after, values = [e["step"] for e in tested], [e[f"test_{key}"] for e in tested]
        curves.append(figures.Curve("test, per epoch", after, values))
    return curves


def _progress(curves: Sequence[figures.Curve], quantity: Axis) -> Figure:
    positive = all(value > 0 for curve in curves for value in curve.y)
    caption = "Thin line: each step's batch. Dashed: the test set after each epoch."
    return figures.line(
        f"{quantity.title.capitalize()} over steps",
        curves,
        Axis("training step"),
        dataclasses.replace(quantity, log=quantity.log and positive),
        Frame(caption),
    )


def _smoothed(values: Sequence[float]) -> list[float]:
    """Return the exponential average, corrected for its start."""
    keep = 1 - min(1.0, _SMOOTHED_POINTS / len(values))
    average, weight, smooth = 0.0, 0.0, []
    for value in values:
        average = keep * average + (1 - keep) * value
        weight = keep * weight + (1 - keep)
        smooth.append(average / weight)
    return smooth


def _epoch_table(epochs: Sequence[Mapping[str, Any]]) -> Table:
    columns = [Column("epoch", number, True), Column("step", number, True)]
    keys = ["epoch", "step"]
    for key, show in (
        ("train_loss", functools.partial(number, digits=4)),
        ("train_accuracy", functools.partial(percent, digits=2)),
        ("test_loss", functools.partial(number, digits=4)),
        ("test_accuracy", functools.partial(percent, digits=2)),
        ("test_squared_error", functools.partial(number, digits=4)),
    ):
        if any(epoch.get(key) is not None for epoch in epochs):
            columns.append(Column(key.replace("_", " "), show, True))
            keys.append(key)
    rows = [[epoch.get(key) for key in keys] for epoch in epochs]
    return Table("Epochs", columns, rows, folded=len(epochs) > 12)

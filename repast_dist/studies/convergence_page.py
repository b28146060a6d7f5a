"""Writes the page of ``study=convergence``: a verdict on each claim, then the figures.

A run's *final loss* is its last epoch's training loss. A run that ended early, or that is no
better at the end than before training, counts with the loss of its first batch, so that one
such run does not hide the others of its setting. A setting *matches* float64 if its mean is not
above the worst seed of float64, or less than one percent above float64's mean. Every verdict is
computed from the records.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from repast_dist.report.page import KeyFigure, Note
from repast_dist.report.study_page import Chart, StudyPage, StudySection
from repast_dist.report.units import si
from repast_dist.studies.costing import table
from repast_dist.studies.settings import RunSettings

_UNITS = {
    "time_s": "s",
    "energy_j": "J",
    "time_to_target_s": "s",
    "energy_to_target_j": "J",
    "accuracy": "fraction",
    "test_accuracy": "fraction",
    "diverged": "fraction",
    "missed": "fraction",
}
_SAME = 1.01
"""Final losses within a percent are the same."""

_EPOCH_MEANS = ("train_loss", "test_loss", "test_accuracy", "time_s", "energy_j")
_SHOWN_OF_TARGETS = (
    "task", "optimizer", "rate", "damping", "seeds", "final_loss", "low", "high", "accuracy",
    "time_s", "energy_j",
)  # fmt: skip
_COMPOSED = ("taylor", "refine", "fcg")
_FIRST_ORDER = ("sgd", "adam")

Rows = list[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Run:
    """One trained point.

    Attributes
    ----------
    labels : dict
        What it is shown as: ``part`` of the study, ``seed``, and what was varied.
    record : dict
        Of `repast_dist.studies.convergence.convergence_point`.
    """

    labels: dict[str, Any]
    record: dict[str, Any]

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
    """Return, per task and optimizer, the cost of reaching the better first-order final loss."""
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
            {name: row[name] for name in _SHOWN_OF_TARGETS}
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
    """Return the better of the mean final losses of SGD and Adam on a task."""
    first_order = [
        run
        for run in runs
        if run.labels["task"] == task and run.labels["optimizer"] in _FIRST_ORDER
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


def claim_rows(damping: Rows, targets: Rows, epochs: int) -> Rows:
    """Return every claim with the verdict that the records support.

    Parameters
    ----------
    damping : list of dict
        `summary_rows` of plain damping, all methods and noises.
    targets : list of dict
        `target_rows`.
    epochs : int
        Epochs of a run.
    """
    best = _best_exact(damping)
    at_best = [row for row in damping if row["damping"] == best["damping"]]
    claims = []
    for row in at_best:
        if row["method"] == "float64":
            continue
        matches = _matches(row, best)
        fails = row["method"] not in _COMPOSED and _few_bits(row["method"])
        what = "is worse than" if fails else "matches"
        claims.append(
            _claim(
                f"{_named(row)} {what} float64 at float64's best damping",
                matches != fails,
                f"final loss {_band(row)}, {row['final_loss'] / best['final_loss']:.2f} times "
                f"float64's {_band(best)} at damping {best['damping']:g}"
                + (f"; {row['diverged']:.0%} of runs fail" if row["diverged"] else "")
                + (f"; {row['missed']:.0%} of solves miss their target" if row["missed"] else ""),
            )
        )
    for method, noise in dict.fromkeys((row["method"], row["noise"]) for row in damping):
        if method == "float64" or not _few_bits(method):
            continue
        own = [r for r in damping if (r["method"], r["noise"]) == (method, noise)]
        tuned = min(own, key=lambda row: row["final_loss"])
        claims.append(
            _claim(
                f"{_named(tuned)} retuned is worse than float64",
                not _matches(tuned, best),
                f"final loss {_band(tuned)} at damping {tuned['damping']:g}, "
                f"{tuned['final_loss'] / best['final_loss']:.2f} times float64's "
                f"{_band(best)} at {best['damping']:g}",
            )
        )
    for row in targets:
        if row["optimizer"] in _FIRST_ORDER:
            continue
        taken = row["epochs_to_target"]
        claims.append(
            _claim(
                f"{row['task']}: {row['optimizer']} reaches the better first-order final loss in "
                "half the epochs",
                taken is not None and taken <= epochs / 2,
                f"loss {row['target']:.4g} "
                + (
                    f"after {taken} of {epochs} epochs"
                    if taken is not None
                    else f"not reached in {epochs} epochs"
                ),
            )
        )
    return claims + _cost_claims(targets)


def _cost_claims(targets: Rows) -> Rows:
    """Compare seconds and joules to target with the better first-order optimizer."""
    claims = []
    for row in targets:
        if row["optimizer"] in _FIRST_ORDER or row["optimizer"] == "kfac, float64":
            continue
        rivals = [
            other
            for other in targets
            if other["task"] == row["task"]
            and other["optimizer"] in _FIRST_ORDER
            and other["time_to_target_s"] is not None
        ]
        for name, column, unit in (
            ("less simulated time", "time_to_target_s", "s"),
            ("less simulated energy", "energy_to_target_j", "J"),
        ):
            rival = min(rivals, key=lambda other: other[column], default=None)
            ours, theirs = row[column], rival[column] if rival else None
            shown = [f"{row['optimizer']}: {si(ours, unit) if ours else 'target not reached'}"]
            if rival:
                shown.append(f"{rival['optimizer']}: {si(theirs, unit)}")
            if ours and theirs:
                shown.append(f"ratio {ours / theirs:.2f}")
            claims.append(
                _claim(
                    f"{row['task']}: {row['optimizer']} takes {name} to the target than the "
                    "better first-order optimizer",
                    ours is not None and (theirs is None or ours < theirs),
                    "; ".join(shown),
                )
            )
    return claims


def convergence_page(runs: Sequence[Run], settings: RunSettings) -> StudyPage:
    """Make the study's page of all runs."""
    study: Any = settings.study

    def part(name: str) -> list[Run]:
        return [run for run in runs if run.labels["part"] == name]

    damping = _beside_digital(summary_rows(part("damping")))
    form = _beside_digital(summary_rows(part("damping form")))
    noise, blocks = summary_rows(part("noise")), summary_rows(part("blocks"))
    targets, searched = target_rows(part("optimizers")), summary_rows(part("search"))
    claims = claim_rows(_once(damping), targets, study.train.epochs)
    best = _best_exact(damping)
    reference = {f"float64's best, damping {best['damping']:g}": best["final_loss"]}
    tables = {
        "claims": claims,
        "targets": targets,
        "damping": damping,
        "damping_form": form,
        "noise": noise,
        "blocks": blocks,
        "trade_off": trade_off_rows(blocks),
        "search": searched,
        "curves": curve_rows(part("optimizers")),
    }
    budget = len(study.sgd_rates)
    return StudyPage(
        study="convergence",
        title="Does training converge on these chips?",
        answer=_answer(_once(damping), targets, study.train.epochs),
        tables={name: table(_plain(rows), _UNITS) for name, rows in tables.items() if rows},
        captions={
            "claims": "Computed from the runs. A method matches float64 if its mean final loss is "
            "not above float64's worst seed, or less than one percent above its mean.",
            "targets": "Target: the better of the mean final training losses of SGD and Adam; "
            "all from means over seeds, empty where it is missed. Costs of 'kfac, float64' are "
            "those of solving in the chips' digital units.",
            "search": f"Every optimizer was given {budget} settings and one seed, not among the "
            "reported ones.",
            "trade_off": "Relative to the largest block; below 1 is better.",
        },
        key_figures=_key_figures(targets, study.train.epochs),
        sections=[
            StudySection("Claims", tables=["claims"]),
            StudySection(
                "Final loss over damping",
                charts=[
                    _over_damping("damping", f"{level:.1%} programming noise", level, reference)
                    for level in study.noise
                ]
                + [
                    Chart(
                        "line", "damping", f"Residuals, {level:.1%} programming noise",
                        x="damping", y="median_residual", series="method",
                        where={"noise": level, "arithmetic": "analog"}, log_x=True, log_y=True,
                        caption="Median over all solves of a run of the worst right-hand side.",
                    )
                    for level in study.noise
                ],
                tables=["damping"],
                intro=f"Plain damping, {settings.model.name} on {settings.dataset.name}, factors "
                f"in blocks of up to {study.soi.block_size}. Bands span the seeds; lower is "
                "better; a run that fails counts with the loss before training.",
            ),
            StudySection(
                "The other form of damping",
                charts=[
                    _over_damping("damping_form", f"pi, {level:.1%} programming noise", level, {})
                    for level in dict.fromkeys(row["noise"] for row in form)
                ],
                tables=["damping_form"],
                intro="Damping split between a layer's factors by their traces.",
            ),
            StudySection(
                "Programming noise",
                charts=[
                    Chart(
                        "line", "noise", f"Damping {best['damping']:g}", x="noise", y="final_loss",
                        series="method", band=("low", "high"), log_y=True, references=reference,
                        where={"arithmetic": "analog"},
                        caption="Standard deviation of a cell, relative to the conductance range.",
                    )
                ],
                tables=["noise"],
            ),
            StudySection(
                "Block size",
                charts=[
                    Chart(
                        "line", "trade_off", f"Convergence and cost of blocks, {method}",
                        x="block_size", y="relative", series="quantity", where={"method": method},
                        log_x=True, log_y=True,
                        caption="Relative to the largest block.",
                    )
                    for method in dict.fromkeys(row["method"] for row in blocks)
                ],
                tables=["blocks"],
            ),
            StudySection(
                "Optimizers",
                charts=[
                    Chart(
                        "line", "curves", f"{task}, over {words}", x=column, y="loss",
                        series="optimizer", band=("low", "high"), where={"task": task},
                        log_x=column != "epoch", log_y=_wide_range(targets, task),
                        references={"target": target_loss(part("optimizers"), task)},
                    )
                    for task in dict.fromkeys(row["task"] for row in targets)
                    for words, column in (
                        ("epochs", "epoch"), ("simulated time", "time_s"),
                        ("simulated energy", "energy_j"),
                    )
                ],
                tables=["targets", "search", "curves"],
                intro=f"K-FAC with {study.kfac.damping_form} damping; chips with "
                f"{study.chip_noise:.1%} programming noise. Search budget: {budget} settings each.",
            ),
        ],
        notes=[
            Note(
                f"Inversions are what varies; forward products run in {settings.engine.forward}, "
                f"factors in {settings.engine.factor}. Answers that miss their target are used as "
                "they are."
            )
        ],
    )  # fmt: skip


def _wide_range(targets: Rows, task: str) -> bool:
    losses = [row["final_loss"] for row in targets if row["task"] == task]
    return max(losses) > 3 * min(losses)


def _over_damping(
    name: str, title: str, noise: float, reference: dict[str, float]
) -> Chart:  # fmt: skip
    return Chart(
        "line", name, title, x="damping", y="final_loss", series="method", band=("low", "high"),
        where={"noise": noise}, log_x=True, log_y=True, references=reference, wide=True,
    )  # fmt: skip


def _beside_digital(rows: Rows) -> Rows:
    """Repeat digital arithmetic, which no noise touches, beside every noise."""
    digital = [row for row in rows if _is_digital(row["method"])]
    analog = [row for row in rows if not _is_digital(row["method"])]
    levels = dict.fromkeys(row["noise"] for row in analog or digital)
    return [
        item
        for level in levels
        for item in (
            *({**row, "noise": level} for row in digital),
            *(row for row in analog if row["noise"] == level),
        )
    ]


def _once(rows: Rows) -> Rows:
    """Leave out the repetitions of `_beside_digital`."""
    first = rows[0]["noise"] if rows else 0.0
    return [row for row in rows if not _is_digital(row["method"]) or row["noise"] == first]


def _plain(rows: Rows) -> Rows:
    """Leave out which part of the study a row is of; say which arithmetic inverts."""
    return [
        {key: value for key, value in row.items() if key != "part"}
        | ({"arithmetic": _arithmetic(row["method"])} if "method" in row else {})
        for row in rows
    ]


def _arithmetic(method: str) -> str:
    return "digital" if _is_digital(method) else "analog"


def _is_digital(method: str) -> bool:
    return method == "float64" or method.startswith("fixed")


def _few_bits(method: str) -> bool:
    return method in ("single", "fixed8")


def _named(row: dict[str, Any]) -> str:
    if _is_digital(row["method"]):
        return str(row["method"])
    return f"{row['method']} with {row['noise']:.1%} noise"


def _matches(row: dict[str, Any], exact: dict[str, Any]) -> bool:
    return bool(row["final_loss"] <= max(exact["high"], _SAME * exact["final_loss"]))


def _claim(claim: str, holds: bool, evidence: str) -> dict[str, Any]:
    return {"claim": claim, "verdict": "holds" if holds else "does not hold", "evidence": evidence}


def _band(row: dict[str, Any]) -> str:
    return f"{row['final_loss']:.3g} ({row['low']:.3g} to {row['high']:.3g})"


def _answer(damping: Rows, targets: Rows, epochs: int) -> str:
    best = _best_exact(damping)
    beside = [
        row for row in damping if row["damping"] == best["damping"] and row["method"] != "float64"
    ]
    parts = [
        _matching("digital", [row for row in beside if _is_digital(row["method"])], best),
        *(
            _matching(
                f"with {noise:.1%} noise",
                [r for r in beside if r["noise"] == noise and not _is_digital(r["method"])],
                best,
            )
            for noise in dict.fromkeys(r["noise"] for r in beside if not _is_digital(r["method"]))
        ),
    ]
    reached = [
        f"epoch {row['epochs_to_target']} of {epochs}"
        if row["epochs_to_target"]
        else f"none of {epochs} epochs"
        for row in targets
    ]
    chips = [
        f"{row['task']}, {row['optimizer'].removeprefix('kfac, ')}: {epoch}"
        for row, epoch in zip(targets, reached, strict=True)
        if row["optimizer"] not in _FIRST_ORDER
    ]
    return (
        f"At float64's best plain damping, {best['damping']:g}, which ends at a loss of "
        f"{best['final_loss']:.3g}: {'; '.join(part for part in parts if part)}. K-FAC reaches the "
        f"better final loss of SGD and Adam in: {'; '.join(chips)}."
    )


def _matching(where: str, rows: Rows, best: dict[str, Any]) -> str:
    same = [row["method"] for row in rows if _matches(row, best)]
    other = [
        f"{row['method']} ({row['final_loss']:.3g})" for row in rows if not _matches(row, best)
    ]
    clauses = [f"{', '.join(same)} as good"] if same else []
    clauses += [f"{', '.join(other)} not"] if other else []
    return f"{where} {' and '.join(clauses)}" if rows else ""


def _best_exact(damping: Rows) -> dict[str, Any]:
    exact = [row for row in damping if row["method"] == "float64"]
    return min(exact, key=lambda row: row["final_loss"])


def _key_figures(targets: Rows, epochs: int) -> list[KeyFigure]:
    figures = []
    for row in targets:
        if row["optimizer"] in _FIRST_ORDER or row["epochs_to_target"] is None:
            continue
        figures.append(
            KeyFigure(
                f"epochs: {row['task']}, {row['optimizer']}",
                f"{row['epochs_to_target']} of {epochs}",
                f"to loss {row['target']:.3g}; {si(row['time_to_target_s'], 's')}, "
                f"{si(row['energy_to_target_j'], 'J')}",
                number=row["epochs_to_target"],
            )
        )
    return figures


def _settings(runs: Sequence[Run]) -> Iterator[tuple[dict[str, Any], list[Run]]]:
    """Yield every setting, its labels without the seed, with its runs."""
    groups: dict[tuple[Any, ...], tuple[dict[str, Any], list[Run]]] = {}
    for run in runs:
        setting = {name: value for name, value in run.labels.items() if name != "seed"}
        groups.setdefault(tuple(setting.values()), (setting, []))[1].append(run)
    yield from groups.values()


def _last_of(run: Run, name: str, missing: Any) -> Any:
    return run.epochs[-1][name] if run.epochs else missing


def _mean(values: Any) -> float:
    return float(np.mean(list(values)))


def _mean_or_none(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None

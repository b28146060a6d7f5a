"""``study=convergence``: does training on these chips converge, and what does a target cost?

Every point trains one network with the parts of the farm, all chips in one worker process, and
stores its curves. The points differ in the optimizer, the arithmetic of the inversions, programming
noise, damping and the width of the blocks; the other products of K-FAC runs stay as
``engine`` says. An inversion that misses its target is used as it is, as in hardware that cannot
check its answers: the study asks what that does to training.

Optimizers are compared at equal search budgets: every one gets as many settings, tried with a
seed of its own; the best is trained anew with the seeds that are reported.
"""

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from repast_dist.analog import SCHEMES
from repast_dist.farm.coordinator import Coordinator
from repast_dist.farm.launch import open_farm
from repast_dist.farm.records import EpochRecord, Event, StepRecord
from repast_dist.farm.setup import TrainingJob, beginning, make_setup
from repast_dist.farm.specs import FarmSpec
from repast_dist.ground.errors import DataError, InversionError
from repast_dist.network.model import ModelSpec
from repast_dist.report.console import data_table
from repast_dist.studies.convergence_page import Run, best_settings, convergence_page
from repast_dist.studies.kinds.convergence import ConvergenceStudy
from repast_dist.studies.output import begin, finish
from repast_dist.studies.points import run_points
from repast_dist.studies.settings import RunSettings, training_job
from repast_dist.training.datasets import Dataset
from repast_dist.training.optimizers import Optimizer
from repast_dist.training.solve_report import SolveReport

_NEVER = 1_000_000_000
_LARGEST = 1e9
"""Losses and residuals beyond it say no more; JSON has no infinity."""

CLASSIFIER, AUTOENCODER = "classifier", "autoencoder"
DAMPING, FORM, NOISE, BLOCKS, SEARCH, OPTIMIZERS = (
    "damping", "damping form", "noise", "blocks", "search", "optimizers",
)  # fmt: skip


class _Curves:
    """Collects what the study shows of a run; see `repast_dist.farm.coordinator.Recorder`."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, Any]] = []
        self.first_loss: float | None = None
        self.steps_done = 0
        self._time_s = self._energy_j = 0.0
        self._reports: list[SolveReport] = []

    def steps(
        self,
        records: Sequence[StepRecord],
        rows: Sequence[pa.RecordBatch],
        solves: Sequence[SolveReport],
    ) -> None:
        """Add up some steps."""
        if self.first_loss is None:
            self.first_loss = records[0].loss
        self.steps_done += len(records)
        self._time_s += sum(record.time_s for record in records)
        self._energy_j += sum(pc.sum(batch["energy_j"]).as_py() or 0.0 for batch in rows)
        self._reports += solves

    def epoch(self, record: EpochRecord) -> None:
        """Keep an epoch's losses with the simulated time and energy so far."""
        self.epochs.append(
            {
                "epoch": record.epoch,
                "step": record.step,
                "train_loss": _capped(record.train_loss),
                "test_loss": _capped(record.test_loss),
                "test_accuracy": record.test_accuracy,
                "time_s": self._time_s,
                "energy_j": self._energy_j,
            }
        )

    def event(self, event: Event) -> None:
        """Nothing to note: missed targets are counted from the reports."""

    def cut(self) -> None:
        """Nothing is kept on disk."""

    def drop_from(self, step: int) -> None:
        """Nothing is ever lost in one process."""

    def solves(self) -> dict[str, float]:
        """Return what inversions did over the run; nothing for first-order runs."""
        if not self._reports:
            return {}
        residuals = [_capped(report.residual) for report in self._reports]
        return {
            "median_residual": float(np.median(residuals)),
            "worst_residual": float(max(residuals)),
            "missed": float(np.mean([not report.converged for report in self._reports])),
            "rounds": float(np.mean([report.mean_iterations for report in self._reports])),
        }


def convergence_point(data: Dataset, job: TrainingJob) -> dict[str, Any]:
    """Train one network and return its curves.

    Parameters
    ----------
    data : Dataset
        Named by ``job.dataset``.
    job : TrainingJob
        All that decides the run.

    Returns
    -------
    dict
        ``epochs``: losses, accuracy, simulated time and energy per epoch; ``first_loss``: of the
        first batch; ``diverged``: None, or what ended training; ``solves``: residuals and rounds.
    """
    setup = make_setup(job, data)
    curves = _Curves()
    diverged = None
    with tempfile.TemporaryDirectory() as folder, open_farm(job.farm, setup) as farm:
        try:
            Coordinator(setup, farm, beginning(setup), curves, Path(folder)).run()
        except (DataError, InversionError) as error:
            diverged = str(error)
    return {
        "epochs": curves.epochs,
        "first_loss": curves.first_loss,
        "steps": curves.steps_done,
        "diverged": diverged,
        "solves": curves.solves(),
    }


def _capped(value: float) -> float:
    return float(min(value, _LARGEST)) if np.isfinite(value) else _LARGEST


@dataclasses.dataclass(frozen=True)
class _Case:
    """A point and its labels in tables and figures; several cases may share a point."""

    job: TrainingJob
    labels: dict[str, Any]


class _Jobs:
    """Makes jobs that differ from the settings in what the study varies."""

    def __init__(self, settings: RunSettings) -> None:
        study: Any = settings.study
        self._study = study
        base = training_job(settings)
        farm = FarmSpec(
            backend="inprocess",
            chips=settings.farm.chips,
            chip_overrides=settings.farm.chip_overrides,
            checkpoint_every=_NEVER,
        )
        self._base = dataclasses.replace(
            base,
            farm=farm,
            train=study.train,
            optimizer=study.kfac,
            machine=base.machine.changed(
                soi=study.soi,
                inversion=dataclasses.replace(base.machine.policy.inversion, on_divergence="use"),
            ),
        )

    def kfac(
        self,
        method: str,
        seed: int,
        *,
        damping: float,
        noise: float,
        form: str = "plain",
        block_size: int | None = None,
        rate: float | None = None,
        task: str = CLASSIFIER,
    ) -> TrainingJob:
        """Return K-FAC with one way to invert; what is not named is as in the settings."""
        base = self._base
        optimizer = dataclasses.replace(
            self._study.kfac,
            damping=damping,
            damping_form=form,
            learning_rate=self._study.kfac.learning_rate if rate is None else rate,
        )
        engine, policy = base.engine, base.machine.policy
        inversion, device = policy.inversion, base.machine.hardware.device
        if method == "float64":
            engine = dataclasses.replace(engine, inverse="float64")
        elif method.startswith("fixed"):
            bits = int(method.removeprefix("fixed"))
            engine = dataclasses.replace(engine, inverse="fixed", fixed_inverse_bits=bits)
        else:
            engine = dataclasses.replace(engine, inverse="analog")
            inversion = inversion.as_scheme(SCHEMES.get(method))
            cell = device.inv_cell.with_programming_sigma(noise)
            device = dataclasses.replace(device, inv_cell=cell)
        soi = dataclasses.replace(policy.soi, block_size=block_size or policy.soi.block_size)
        job = self._task(task, seed)
        machine = job.machine.changed(inversion=inversion, device=device, soi=soi)
        return dataclasses.replace(job, optimizer=optimizer, engine=engine, machine=machine)

    def first_order(self, optimizer: Optimizer, task: str, seed: int) -> TrainingJob:
        """Return a run of a first-order optimizer."""
        return dataclasses.replace(self._task(task, seed), optimizer=optimizer)

    def _task(self, task: str, seed: int) -> TrainingJob:
        model: ModelSpec = self._base.model if task == CLASSIFIER else self._study.autoencoder
        return dataclasses.replace(self._base, model=model, seed=seed)


def damping_cases(settings: RunSettings) -> list[_Case]:
    """Return every method at every damping, per programming noise and form, with all seeds."""
    study: Any = settings.study
    jobs = _Jobs(settings)
    cases = []
    for form, part, methods, dampings, noises in (
        ("plain", DAMPING, study.methods, study.damping, study.noise),
        ("pi", FORM, study.pi_methods, study.pi_damping, (study.chip_noise,)),
    ):
        for method in methods:
            for noise in (0.0,) if _digital(method) else noises:
                for damping in dampings:
                    for seed in _seeds(settings, method):
                        job = jobs.kfac(method, seed, damping=damping, noise=noise, form=form)
                        labels = {"method": method, "damping": damping, "noise": noise}
                        cases.append(_Case(job, {"part": part, **labels, "seed": seed}))
    return cases


def axis_cases(settings: RunSettings, damping: float) -> list[_Case]:
    """Return noise and block size, each alone, at a damping."""
    study: Any = settings.study
    jobs = _Jobs(settings)
    cases = []
    for method in study.methods:
        levels = (0.0,) if _digital(method) else study.noise_levels
        for noise in levels:
            for seed in _seeds(settings, method):
                job = jobs.kfac(method, seed, damping=damping, noise=noise)
                labels = {"method": method, "damping": damping, "noise": noise}
                cases.append(_Case(job, {"part": NOISE, **labels, "seed": seed}))
    for method in study.block_methods:
        noise = 0.0 if _digital(method) else study.chip_noise
        for size in study.block_sizes:
            for seed in _seeds(settings, method):
                job = jobs.kfac(method, seed, damping=damping, noise=noise, block_size=size)
                labels = {"method": method, "damping": damping, "noise": noise}
                labels |= {"block_size": size}
                cases.append(_Case(job, {"part": BLOCKS, **labels, "seed": seed}))
    return cases


def search_cases(settings: RunSettings) -> list[_Case]:
    """Return the searched settings of every optimizer on both tasks, with the search's seed."""
    study: Any = settings.study
    jobs = _Jobs(settings)
    seed = settings.seed + study.seeds
    cases = []
    for task in (CLASSIFIER, AUTOENCODER):
        for name, spec, rates in (
            ("sgd", study.sgd, study.sgd_rates),
            ("adam", study.adam, study.adam_rates),
        ):
            for rate in rates:
                optimizer = dataclasses.replace(spec, learning_rate=rate)
                labels = {"task": task, "optimizer": name, "rate": rate, "damping": None}
                job = jobs.first_order(optimizer, task, seed)
                cases.append(_Case(job, {"part": SEARCH, **labels, "seed": seed}))
        for rate in study.kfac_rates:
            for damping in study.kfac_damping:
                labels = {"task": task, "optimizer": "kfac", "rate": rate, "damping": damping}
                job = jobs.kfac(
                    "float64",
                    seed,
                    damping=damping,
                    noise=0.0,
                    form=study.kfac.damping_form,
                    rate=rate,
                    task=task,
                )
                cases.append(_Case(job, {"part": SEARCH, **labels, "seed": seed}))
    return cases


def optimizer_cases(settings: RunSettings, best: Sequence[dict[str, Any]]) -> list[_Case]:
    """Return the best settings of every optimizer with the reported seeds; K-FAC on chips too.

    Parameters
    ----------
    best : sequence of dict
        Labels of the best searched case per task and optimizer.
    """
    study: Any = settings.study
    jobs = _Jobs(settings)
    first_order = {"sgd": study.sgd, "adam": study.adam}
    cases = []
    for found in best:
        name, task = found["optimizer"], found["task"]
        common = {"part": OPTIMIZERS, "task": task, "rate": found["rate"]}
        common["damping"] = found["damping"]
        for seed in _seeds(settings):
            if name in first_order:
                optimizer = dataclasses.replace(first_order[name], learning_rate=found["rate"])
                job = jobs.first_order(optimizer, task, seed)
                cases.append(_Case(job, {**common, "optimizer": name, "seed": seed}))
                continue
            for method in ("float64", *study.chip_methods):
                job = jobs.kfac(
                    method,
                    seed,
                    damping=found["damping"],
                    noise=study.chip_noise,
                    form=study.kfac.damping_form,
                    rate=found["rate"],
                    task=task,
                )
                labels = {"optimizer": f"kfac, {method}", "seed": seed}
                cases.append(_Case(job, {**common, **labels}))
    return cases


def _seeds(settings: RunSettings, method: str = "") -> range:
    study: Any = settings.study
    count = 1 if method in study.one_seed else study.seeds
    return range(settings.seed, settings.seed + count)


def _digital(method: str) -> bool:
    return method == "float64" or method.startswith("fixed")


def run(
    study: ConvergenceStudy, settings: RunSettings, run_dir: Path | None, console: Console
) -> Path:
    """Search, train every point, and write the page."""
    folder = begin(settings, run_dir)
    data = settings.dataset.load()

    def train(title: str, cases: Sequence[_Case]) -> list[Run]:
        records = run_points(
            convergence_point,
            [case.job for case in cases],
            shared=data,
            run_dir=folder,
            farm=settings.farm,
            console=console,
            title=title,
            reuse=study.reuse,
        )
        return [Run(case.labels, record) for case, record in zip(cases, records, strict=True)]

    searched = train("searching settings", search_cases(settings))
    best = best_settings(searched, ("task", "optimizer"))
    compared = train("comparing optimizers", optimizer_cases(settings, best))
    over_damping = train("training over damping", damping_cases(settings))
    exact = [
        item
        for item in over_damping
        if (item.labels["part"], item.labels["method"]) == (DAMPING, "float64")
    ]
    (reference,) = best_settings(exact, ("method",))
    axes = train("training over noise and blocks", axis_cases(settings, reference["damping"]))
    page = convergence_page([*searched, *compared, *over_damping, *axes], settings)
    console.print(data_table("Claims", page.tables["claims"]))
    return finish(page, settings, console, folder)

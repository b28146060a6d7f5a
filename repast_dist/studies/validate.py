"""``study=validate``: published, calculated, difference, for every figure that can be checked."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from repast_dist.hardware.interconnect import InterconnectSpec
from repast_dist.hardware.topologies.ring import Ring
from repast_dist.hardware.topologies.switch import Switch
from repast_dist.planning.baselines import EpochsSpec, pipelayer_step
from repast_dist.planning.blocks import soi_blocks
from repast_dist.planning.collectives import all_reduce
from repast_dist.planning.gpu import gpu_step
from repast_dist.planning.machine import Machine
from repast_dist.planning.owners import balance, block_owners
from repast_dist.report.console import print_table
from repast_dist.report.page import KeyFigure
from repast_dist.report.study_page import StudyPage, StudySection
from repast_dist.studies.costing import table
from repast_dist.studies.demonstration.stored import shipped
from repast_dist.studies.gpu_figures import GpuFigures, figure_network
from repast_dist.studies.headline.inputs import HeadlineInputs
from repast_dist.studies.headline.ratios import geometric_mean, one_chip_means
from repast_dist.studies.kinds.validate import Anchor, ValidateStudy
from repast_dist.studies.output import finish
from repast_dist.studies.published import PublishedFigure
from repast_dist.studies.settings import RunSettings

_PIPELAYER_NETWORKS = ("vgg13", "vgg16", "vgg19")


def validate(study: ValidateStudy, machine: Machine, epochs: EpochsSpec) -> StudyPage:
    """Return the table of all anchors.

    Parameters
    ----------
    study : ValidateStudy
        Anchors and the machines they are of.
    machine : Machine
        The RePAST chip the paper's numbers are compared with; ISAAC's parts cost the same.
    epochs : EpochsSpec
        Epochs to target.
    """
    calculator = _Calculator(study, machine)
    rows = [
        _row(anchor.kind, _subject(anchor), anchor, calculator(anchor), anchor.tolerance)
        | {"basis": "fitted" if anchor.fitted else "predicted"}
        for anchor in study.anchors
    ]
    rows += _paper_rows(study, machine, epochs)
    judged = [row for row in rows if row["verdict"] != "shown"]
    agreed = sum(row["verdict"] == "agrees" for row in judged)
    return StudyPage(
        study="validate",
        title="Published figures and ours",
        answer=f"{agreed} of {len(judged)} published figures with a tolerance are met; "
        f"{len(rows) - len(judged)} more are shown without judging them.",
        tables={"anchors": table(rows, {"difference": "fraction", "tolerance": "fraction"})},
        sections=[StudySection("All anchors", tables=["anchors"])],
        key_figures=[KeyFigure("agree", f"{agreed} of {len(judged)}", number=agreed)],
        captions={
            "anchors": "Difference is relative to the published figure. Rows without a tolerance "
            "compare different things on purpose (see source) or rest on assumptions. Fitted: a "
            "figure of ours was chosen to meet this row, as few for many rows as would do; "
            "predicted: ours owes nothing to this row."
        },
    )


class _Calculator:
    """Our figure for an anchor."""

    def __init__(self, study: ValidateStudy, machine: Machine) -> None:
        self._study = study
        self._isaac = machine.changed(chip=study.isaac).hardware
        self._gpus = GpuFigures(study.gpus, study.loops)

    def __call__(self, anchor: Anchor) -> float:
        by_kind: dict[str, Callable[[Anchor], float]] = {
            "parameters": lambda of: float(figure_network(of.subject).parameter_count),
            "macs": lambda of: float(figure_network(of.subject).macs_per_sample),
            "chip power": lambda _: self._isaac.peak_power_w,
            "chip area": lambda _: self._isaac.area_m2,
            "GPU throughput": self._gpus.throughput,
            "GPU inversion": self._gpus.inversion,
            "GPU K-FAC phase": self._gpus.phase,
            "GPU K-FAC over first order": self._gpus.ratio,
            "placement": lambda of: _whole_layer_balance(of.subject),
            "collective": lambda of: _collective(of.subject),
            "epochs saved": epochs_saved,
            "PipeLayer over GTX 1080": self._pipelayer,
        }
        return by_kind[anchor.kind](anchor)

    def _pipelayer(self, anchor: Anchor) -> float:
        ratios = []
        for name in _PIPELAYER_NETWORKS:
            network = figure_network(name)
            gpu = gpu_step(self._gpus.named("gtx1080", anchor), network, anchor.batch, None)
            ours = pipelayer_step(self._study.headline.pipelayer, network, anchor.batch)
            if anchor.subject == "speedup":
                ratios.append(gpu.step_s / ours.step_s)
            else:
                ratios.append(gpu.energy_j / ours.energy_j)
        return geometric_mean(ratios)


def _subject(anchor: Anchor) -> str:
    """Return the subject, with the batch and the interval where they are part of it."""
    if anchor.kind == "epochs saved":
        curves = shipped()
        return f"{curves.optimizer}, {curves.circuit}, over {anchor.subject}, {curves.data_name}"
    words = [anchor.subject]
    if anchor.sequence:
        words.append(f"{anchor.sequence} tokens")
    if anchor.kind.startswith("GPU") and anchor.kind != "GPU inversion":
        words.append(f"batch {anchor.batch}")
    if anchor.kind == "GPU K-FAC over first order":
        words.append(f"every {anchor.interval}")
    return ", ".join(words)


def epochs_saved(anchor: Anchor) -> float:
    """Return the share of a rival's epochs that was saved when ``study=demonstration`` was run.

    Raises
    ------
    SettingsError
        The rival, the anchor's subject, was not trained.
    """
    return shipped().saving(anchor.subject)


def _whole_layer_balance(subject: str) -> float:
    """Place VGG-16's whole factors greedily by n^3."""
    blocks = soi_blocks(figure_network("vgg16"), 10**9)
    work = np.array([float(block.size) ** 3 for block in blocks])
    workers = int(subject.split()[0])
    return balance(work, block_owners(blocks, work, workers, "layer"), workers)


def _collective(subject: str) -> float:
    """Time an all-reduce of 1 MB at 1 us and 1 GB/s: "ring 8", "halving_doubling 16",
    "tree 16", "torus 4x4".
    """
    name, size = subject.split()
    sizes = [int(part) for part in size.split("x")]
    flat = len(sizes) == 1 and name != "ring"
    network = InterconnectSpec(
        source=subject,
        dimensions=tuple(
            (Switch if flat else Ring)(
                chips=chips,
                latency_s=1e-6,
                bandwidth_bytes_per_s=1e9,
            )
            for chips in sizes
        ),
        all_reduce=name if flat else "ring",  # type: ignore[arg-type]
    )
    return all_reduce(network, math.prod(sizes), 1e6).time_s


def _paper_rows(study: ValidateStudy, machine: Machine, epochs: EpochsSpec) -> list[dict[str, Any]]:
    """Return the paper's averages beside ours of one chip; different networks are not judged."""
    means = one_chip_means(HeadlineInputs(study.headline, machine, study.gpus[study.gpu], epochs))
    return [
        _row("paper", f"{name}, one chip, geometric mean", figure, means[name], None)
        | {"basis": "predicted"}
        for name, figure in study.headline.paper.by_name.items()
    ]


def _row(
    kind: str, subject: str, figure: PublishedFigure, calculated: float, tolerance: float | None
) -> dict[str, Any]:
    difference = calculated / figure.value - 1.0
    if tolerance is None:
        verdict = "shown"
    else:
        verdict = "agrees" if abs(difference) <= tolerance + 1e-12 else "differs"
    return {
        "kind": kind,
        "subject": subject,
        "published": figure.value,
        "calculated": calculated,
        "unit": figure.unit,
        "difference": difference,
        "tolerance": math.nan if tolerance is None else tolerance,
        "verdict": verdict,
        "source": figure.source,
    }


def run(
    study: ValidateStudy, settings: RunSettings, run_dir: Path | None, console: Console
) -> Path:
    """Check every anchor of the settings."""
    page = validate(study, settings.machine, settings.epochs)
    shown: Sequence[str] = (
        "kind", "subject", "published", "calculated", "difference", "verdict", "basis",
    )  # fmt: skip
    table = page.tables["anchors"].select(shown)

    def details() -> None:
        print_table("Published and calculated", table, console)

    return finish(page, settings, console, details=details)

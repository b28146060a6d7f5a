"""``study=headline`` compares RePAST with a GPU and PipeLayer on the same networks.

It does so for three numbers of chips: one chip; as many chips as the GPU's board power can supply
at their average power; and the smallest power of two of chips that reaches the paper's speedup
over the GPU. The batch grows with the number of chips, and throughputs are compared at the same
work per sample.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from repast_dist.ground.errors import SettingsError
from repast_dist.hardware import PARTS, Component, Quantity
from repast_dist.hardware.specs import ChipSpec
from repast_dist.mapping.baselines import (
    BaselineStep,
    EpochsSpec,
    GpuSpec,
    PipeLayerSpec,
    gpu_step,
    pipelayer_step,
)
from repast_dist.mapping.machine import Machine
from repast_dist.mapping.summary import StepSummary, summarise
from repast_dist.network.shapes import Workload
from repast_dist.network.workload import WorkloadSpec, build_workload
from repast_dist.report.console import data_table
from repast_dist.report.page import KeyFigure, Note
from repast_dist.report.study_page import Chart, StudyPage, StudySection
from repast_dist.studies.costing import PAPER, PAPER_SOURCE, table, workload_notes
from repast_dist.studies.kinds.headline import HeadlineStudy
from repast_dist.studies.output import finish
from repast_dist.studies.settings import RunSettings

_MOST_CHIPS = 4096
_REFINEMENTS = 4
_UNITS = {
    "time_per_sample_s": "s",
    "energy_per_sample_j": "J",
    "step_s": "s",
    "time_to_target_s": "s",
    "energy_to_target_j": "J",
    "power_w": "W",
    "time_s": "s",
    "energy_j": "J",
    "time_share": "fraction",
    "energy_share": "fraction",
}
_RATIOS = (
    ("speedup over GPU", "gpu", "time_per_sample_s"),
    ("speedup over PipeLayer", "pipelayer", "time_per_sample_s"),
    ("energy saving over GPU", "gpu", "energy_per_sample_j"),
    ("energy saving over PipeLayer", "pipelayer", "energy_per_sample_j"),
    ("speedup over PipeLayer, rebuilt", "pipelayer rebuilt", "time_per_sample_s"),
    ("energy saving over PipeLayer, rebuilt", "pipelayer rebuilt", "energy_per_sample_j"),
)
_REBUILT = ", rebuilt"


@dataclasses.dataclass(frozen=True)
class HeadlineInputs:
    """What the study compares.

    Attributes
    ----------
    machine : Machine
        The RePAST chip and how it is used.
    gpu, pipelayer : GpuSpec, PipeLayerSpec
        The others; PipeLayer by its published peaks.
    pipelayer_chip : ChipSpec
        A first-order chip in PipeLayer's manner, costed as RePAST is, from the same parts.
    epochs : EpochsSpec
        Epochs to target.
    networks : sequence of str
        Names of networks.
    batch, micro_batch : int
        Samples per step of one chip and of the GPU, and per micro-batch.
    sensitive : sequence of str
        Networks over which the sensitivity is averaged.
    """

    machine: Machine
    gpu: GpuSpec
    pipelayer: PipeLayerSpec
    pipelayer_chip: ChipSpec
    epochs: EpochsSpec
    networks: Sequence[str]
    batch: int
    micro_batch: int
    sensitive: Sequence[str]


def headline(inputs: HeadlineInputs) -> StudyPage:
    """Return the comparison: tables per machine, ratios, means, phases and sensitivity."""
    machines, ratios, phases = [], [], []
    for name in inputs.networks:
        found = _network(inputs, name)
        machines += [machine.record(name, inputs.epochs) for machine in found]
        phases += [row for machine in found for row in machine.phase_rows(name)]
        ratios += list(_ratios(name, found, inputs.epochs))
    means = _means(ratios)
    one = {row["ratio"]: row for row in means if row["footing"] == "one chip"}
    fed = {row["ratio"]: row for row in means if row["footing"] == "chips on the GPU's power"}
    sensitivity = _sensitivity(inputs)
    answer = (
        f"On {len(inputs.networks)} networks one {inputs.machine.hardware.chip.name} chip is "
        f"{one['speedup over GPU']['geometric mean']:.3g} times as fast as {inputs.gpu.name} per "
        f"epoch and takes {one['energy saving over GPU']['geometric mean']:.3g} times less energy; "
        f"as many chips as the GPU's power feeds ({fed['speedup over GPU']['mean chips']:.0f}) are "
        f"{fed['speedup over GPU']['geometric mean']:.3g} times as fast and take "
        f"{fed['energy saving over GPU']['geometric mean']:.3g} times less (geometric means; the "
        "paper: 115.8 and 41.9)."
    )
    return StudyPage(
        study="headline",
        title="RePAST beside a GPU and PipeLayer",
        answer=answer,
        tables={
            "machines": table(machines, _UNITS),
            "ratios": table(ratios, {}),
            "means": table(means, {}),
            "phases": table(phases, _UNITS),
            "sensitivity": table(sensitivity, {}),
        },
        sections=_sections(sensitivity, inputs),
        key_figures=[
            KeyFigure(
                name,
                f"{one[name]['geometric mean']:.3g} x",
                f"paper: {paper} x",
                number=one[name]["geometric mean"],
            )
            for name, paper in PAPER.items()
        ],
        notes=[
            *_notes(inputs, machines, phases, one),
            *workload_notes(build_workload(WorkloadSpec(name=name)) for name in inputs.networks),
        ],
        captions={
            "ratios": "Per epoch: the same samples, second order on both RePAST and GPU, first "
            "order on PipeLayer. To target: RePAST with second-order epochs against first-order "
            "epochs on the other machine.",
            "machines": "Power is the board's for the GPU, and that of the average step else.",
        },
        sources=[
            ("paper", PAPER_SOURCE),
            ("epochs to target", inputs.epochs.source),
            ("GPU efficiency", inputs.gpu.product_efficiency.source),
            ("GPU inversion", inputs.gpu.inverse_efficiency.source),
            ("PipeLayer", inputs.pipelayer.operations_per_s_per_m2.source),
        ],
    )


def one_chip_means(inputs: HeadlineInputs) -> dict[str, float]:
    """Return the geometric means of one chip's ratios per epoch, by the paper's names."""
    ratios: list[dict[str, Any]] = []
    for name in inputs.networks:
        workload = build_workload(WorkloadSpec(name=name))
        machines = [
            _repast("one chip", 1, _coster(inputs, name)(1)),
            _other(
                "gpu", True, gpu_step(inputs.gpu, workload, inputs.batch, inputs.machine.policy.soi)
            ),
            _other("gpu", False, gpu_step(inputs.gpu, workload, inputs.batch, None)),
            _other("pipelayer", False, pipelayer_step(inputs.pipelayer, workload, inputs.batch)),
            _rebuilt(inputs, workload),
        ]
        ratios += list(_ratios(name, machines, inputs.epochs))
    return {row["ratio"]: row["geometric mean"] for row in _means(ratios)}


@dataclasses.dataclass(frozen=True)
class _Machine:
    """A machine's step on one network."""

    kind: str
    footing: str
    chips: int
    second_order: bool
    samples: int
    step_s: float
    energy_j: float
    phase_s: dict[str, float]
    phase_j: dict[str, float]

    def record(self, network: str, epochs: EpochsSpec) -> dict[str, Any]:
        per_sample = self.step_s / self.samples
        count = epochs.second_order if self.second_order else epochs.first_order
        seen = build_workload(WorkloadSpec(name=network)).samples_per_epoch
        total = float("nan") if seen is None else count * seen
        return {
            "network": network,
            "machine": self.kind,
            "footing": self.footing,
            "chips": self.chips,
            "order": "second" if self.second_order else "first",
            "samples_per_step": self.samples,
            "step_s": self.step_s,
            "time_per_sample_s": per_sample,
            "energy_per_sample_j": self.energy_j / self.samples,
            "power_w": self.energy_j / self.step_s,
            "epochs_to_target": count,
            "time_to_target_s": per_sample * total,
            "energy_to_target_j": self.energy_j / self.samples * total,
        }

    def phase_rows(self, network: str) -> Iterator[dict[str, Any]]:
        time, energy = sum(self.phase_s.values()), sum(self.phase_j.values())
        # Time is known by segments of a step, energy by phases; some share a name.
        for phase in dict.fromkeys([*self.phase_s, *self.phase_j]):
            seconds, joules = self.phase_s.get(phase, 0.0), self.phase_j.get(phase, 0.0)
            yield {
                "network": network,
                "machine": self.kind,
                "footing": self.footing,
                "phase": phase,
                "time_s": seconds,
                "time_share": seconds / time,
                "energy_j": joules,
                "energy_share": joules / energy,
            }


def _network(inputs: HeadlineInputs, name: str) -> list[_Machine]:
    workload = build_workload(WorkloadSpec(name=name))
    gpu_second = gpu_step(inputs.gpu, workload, inputs.batch, inputs.machine.policy.soi)
    gpu_first = gpu_step(inputs.gpu, workload, inputs.batch, None)
    pipelayer = pipelayer_step(inputs.pipelayer, workload, inputs.batch)
    cost = _coster(inputs, name)
    fed = _chips_fed(cost, gpu_second.energy_j / gpu_second.step_s)
    reached = _chips_to_reach(cost, gpu_second.samples_per_s * PAPER["speedup over GPU"])
    machines = [
        _repast("one chip", 1, cost(1)),
        _repast("chips on the GPU's power", fed, cost(fed)),
    ]
    if reached is not None:
        machines.append(_repast("chips for the paper's speedup", reached, cost(reached)))
    return [
        *machines,
        _other("gpu", True, gpu_second),
        _other("gpu", False, gpu_first),
        _other("pipelayer", False, pipelayer),
        _rebuilt(inputs, workload),
    ]


def _rebuilt(inputs: HeadlineInputs, workload: Workload) -> _Machine:
    """Return the cost of a first-order step on PipeLayer's chip with our parts and mapping."""
    machine = inputs.machine.changed(chip=inputs.pipelayer_chip)
    plan = machine.plan(workload, 1, inputs.batch, inputs.micro_batch, sides=())
    costed = _repast("one machine", 1, summarise(plan))
    return dataclasses.replace(costed, kind="pipelayer rebuilt", second_order=False)


def _coster(inputs: HeadlineInputs, name: str) -> Callable[[int], StepSummary]:
    workload = build_workload(WorkloadSpec(name=name))
    found: dict[int, StepSummary] = {}

    def cost(chips: int) -> StepSummary:
        if chips not in found:
            batch = inputs.batch * chips
            found[chips] = summarise(
                inputs.machine.plan(workload, chips, batch, inputs.micro_batch)
            )
        return found[chips]

    return cost


def _chips_fed(cost: Callable[[int], StepSummary], power_w: float) -> int:
    """Return how many chips a power feeds at what they draw in an average step; their draw
    depends a little on how many share the SOI blocks, so the answer is refined a few times.
    """
    chips = 1
    for _ in range(_REFINEMENTS):
        step = cost(chips)
        each = step.energy_j / step.step_s / chips
        chips = min(_MOST_CHIPS, max(1, int(power_w / each)))
    return chips


def _chips_to_reach(cost: Callable[[int], StepSummary], wanted: float) -> int | None:
    """Return the smallest power of two of chips with that throughput; None: not up to 4,096."""
    chips = 1
    while chips <= _MOST_CHIPS:
        if cost(chips).samples_per_s >= wanted:
            return chips
        chips *= 2
    return None


def _repast(footing: str, chips: int, step: StepSummary) -> _Machine:
    return _Machine(
        "repast",
        footing,
        chips,
        True,
        step.samples,
        step.step_s,
        step.energy_j,
        step.segment_s,
        step.phase_energy_j,
    )


def _other(kind: str, second_order: bool, step: BaselineStep) -> _Machine:
    energy = {phase: step.energy_j * s / step.step_s for phase, s in step.phase_s.items()}
    return _Machine(
        kind,
        "one machine",
        1,
        second_order,
        step.samples,
        step.step_s,
        step.energy_j,
        step.phase_s,
        energy,
    )


def _ratios(
    network: str, machines: Sequence[_Machine], epochs: EpochsSpec
) -> Iterator[dict[str, Any]]:
    """Return RePAST's ratios per footing: per epoch, and to target."""
    records = [machine.record(network, epochs) for machine in machines]
    first = {r["machine"]: r for r in records if r["order"] == "first"}
    same = first | {r["machine"]: r for r in records if r["machine"] == "gpu"}
    same["gpu"] = next(r for r in records if r["machine"] == "gpu" and r["order"] == "second")
    shorter = epochs.first_order / epochs.second_order
    for record in records:
        if record["machine"] != "repast":
            continue
        for name, other, column in _RATIOS:
            yield {
                "network": network,
                "footing": record["footing"],
                "chips": record["chips"],
                "ratio": name,
                "per epoch": same[other][column] / record[column],
                "to target": first[other][column] / record[column] * shorter,
            }


def _means(ratios: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    footings = list(dict.fromkeys(row["footing"] for row in ratios))
    means = []
    for footing in footings:
        for name, *_ in _RATIOS:
            mine = [r for r in ratios if r["footing"] == footing and r["ratio"] == name]
            values = np.array([row["per epoch"] for row in mine])
            targets = np.array([row["to target"] for row in mine])
            means.append(
                {
                    "footing": footing,
                    "ratio": name,
                    "paper": PAPER[name.removesuffix(_REBUILT)],
                    "arithmetic mean": float(values.mean()),
                    "geometric mean": float(np.exp(np.log(values).mean())),
                    "to target, geometric mean": float(np.exp(np.log(targets).mean())),
                    "networks": len(mine),
                    "mean chips": float(np.mean([row["chips"] for row in mine])),
                }
            )
    return means


def _sensitivity(inputs: HeadlineInputs) -> list[dict[str, Any]]:
    """Halve and double every assumed constant; return the geometric mean speedup and saving of
    one chip over the GPU.
    """
    names = list(inputs.sensitive)

    def outcome(changed: HeadlineInputs) -> tuple[float, float]:
        speed, saving = [], []
        for name in names:
            step = _coster(changed, name)(1)
            gpu = gpu_step(
                changed.gpu,
                build_workload(WorkloadSpec(name=name)),
                changed.batch,
                changed.machine.policy.soi,
            )
            speed.append(step.samples_per_s / gpu.samples_per_s)
            saving.append(gpu.energy_j / gpu.samples / step.energy_per_sample_j)
        return _geometric(speed), _geometric(saving)

    base = outcome(inputs)
    rows = []
    for name, change in _assumed(inputs):
        half, double = outcome(change(0.5)), outcome(change(2.0))
        rows.append(
            {
                "constant": name,
                "speedup": base[0],
                "speedup, halved": half[0],
                "speedup, doubled": double[0],
                "saving": base[1],
                "saving, halved": half[1],
                "saving, doubled": double[1],
                "swing": max(abs(math.log(v[0] / base[0])) for v in (half, double)),
            }
        )
    return sorted(rows, key=lambda row: -row["swing"])


def _assumed(
    inputs: HeadlineInputs,
) -> Iterator[tuple[str, Callable[[float], HeadlineInputs]]]:
    """Return every constant marked as an assumption, and how to scale it."""
    for component in (part.name for part in PARTS):
        part: Component = getattr(inputs.machine.hardware.components, component)
        for field in dataclasses.fields(Component):
            quantity: Quantity | None = getattr(part, field.name)
            if quantity and quantity.confidence == "C" and field.name != "area_m2":
                yield f"{component}.{field.name}", _scale_part(inputs, component, field.name)
    for name in ("memory_efficiency", "launch_s"):
        yield f"{inputs.gpu.name}.{name}", _scale_gpu(inputs, name)
    yield f"{inputs.gpu.name}.inverse_efficiency", _scale_inverse(inputs)
    yield "soi.assumed_iterations", _scale_iterations(inputs)


def _scale_part(
    inputs: HeadlineInputs, component: str, field: str
) -> Callable[[float], HeadlineInputs]:
    def scaled(factor: float) -> HeadlineInputs:
        components = inputs.machine.hardware.components
        part = getattr(components, component)
        quantity: Quantity = getattr(part, field)
        if quantity.value is None:
            changed = dataclasses.replace(quantity, per=quantity.per / factor)
        else:
            changed = dataclasses.replace(quantity, value=quantity.value * factor)
        new = dataclasses.replace(
            components, **{component: dataclasses.replace(part, **{field: changed})}
        )
        return dataclasses.replace(inputs, machine=inputs.machine.changed(components=new))

    return scaled


def _scale_gpu(inputs: HeadlineInputs, field: str) -> Callable[[float], HeadlineInputs]:
    def scaled(factor: float) -> HeadlineInputs:
        quantity: Quantity = getattr(inputs.gpu, field)
        value = (quantity.value or 0.0) * factor
        if quantity.unit == "1":
            value = min(1.0, value)
        changed: dict[str, Any] = {field: dataclasses.replace(quantity, value=value)}
        gpu = dataclasses.replace(inputs.gpu, **changed)
        return dataclasses.replace(inputs, gpu=gpu)

    return scaled


def _scale_inverse(inputs: HeadlineInputs) -> Callable[[float], HeadlineInputs]:
    def scaled(factor: float) -> HeadlineInputs:
        old = inputs.gpu.inverse_efficiency
        points = tuple((size, min(1.0, share * factor)) for size, share in old.points)
        changed = dataclasses.replace(old, points=points)
        gpu = dataclasses.replace(inputs.gpu, inverse_efficiency=changed)
        return dataclasses.replace(inputs, gpu=gpu)

    return scaled


def _scale_iterations(inputs: HeadlineInputs) -> Callable[[float], HeadlineInputs]:
    def scaled(factor: float) -> HeadlineInputs:
        rounds = max(1, round(inputs.machine.policy.soi.assumed_iterations * factor))
        soi = dataclasses.replace(inputs.machine.policy.soi, assumed_iterations=rounds)
        return dataclasses.replace(inputs, machine=inputs.machine.changed(soi=soi))

    return scaled


def _geometric(values: Sequence[float]) -> float:
    return float(np.exp(np.log(values).mean()))


def _sections(sensitivity: Sequence[dict[str, Any]], inputs: HeadlineInputs) -> list[StudySection]:
    base = sensitivity[0]["speedup"] if sensitivity else 1.0
    saving = sensitivity[0]["saving"] if sensitivity else 1.0
    return [
        StudySection(
            "Ratios",
            charts=[
                Chart(
                    "bars",
                    "ratios",
                    name.capitalize(),
                    x="network",
                    y="per epoch",
                    series="footing",
                    where={"ratio": name},
                    log_y=True,
                    references={"paper's average": PAPER[name.removesuffix(_REBUILT)]},
                    caption="Per epoch.",
                )
                for name, *_ in _RATIOS
            ],
            tables=["means", "ratios"],
            intro="Means over all networks, with the paper's four numbers beside.",
        ),
        StudySection("Time and energy per machine", tables=["machines"]),
        StudySection(
            "Where it goes",
            charts=[
                Chart(
                    "bars",
                    "phases",
                    f"{title} of one chip",
                    x="network",
                    y=column,
                    series="phase",
                    where={"machine": "repast", "footing": "one chip"},
                    stacked=True,
                    wide=True,
                )
                for title, column in (("Time", "time_share"), ("Energy", "energy_share"))
            ],
            tables=["phases"],
            intro="Time is given by segments of a step, energy by phases.",
        ),
        StudySection(
            "What the assumptions decide",
            charts=[
                Chart(
                    "tornado",
                    "sensitivity",
                    f"{title} of one chip over the GPU",
                    x="constant",
                    band=(f"{column}, halved", f"{column}, doubled"),
                    base=middle,
                    axis=f"{title.lower()}, geometric mean of {', '.join(inputs.sensitive)}",
                )
                for title, column, middle in (
                    ("Speedup", "speedup", base),
                    ("Energy saving", "saving", saving),
                )
            ],
            tables=["sensitivity"],
            intro="Every constant marked as an assumption, halved and doubled.",
        ),
    ]


def _notes(
    inputs: HeadlineInputs,
    machines: Sequence[dict[str, Any]],
    phases: Sequence[dict[str, Any]],
    one: dict[str, dict[str, Any]],
) -> list[Note]:
    """Say what differs from the paper, from the breakdown."""
    mine = [r for r in phases if (r["machine"], r["footing"]) == ("repast", "one chip")]
    shares = {
        name: float(np.mean([row["time_share"] for row in mine if row["phase"] == name]))
        for name in dict.fromkeys(row["phase"] for row in mine)
    }
    largest = sorted(shares.items(), key=lambda item: -item[1])[:3]
    reached = [r["chips"] for r in machines if r["footing"] == "chips for the paper's speedup"]
    fed = [r["chips"] for r in machines if r["footing"] == "chips on the GPU's power"]
    peak = inputs.machine.hardware.peak_power_w
    area = inputs.machine.hardware.area_m2 * 1e6
    rebuilt = one["speedup over PipeLayer, rebuilt"]["geometric mean"]
    notes = [
        "No constant is tuned to reach the paper's figures. The chip's counts are our assumption, "
        "since the paper's are not openly available.",
        "Where one chip's time goes, on average: "
        + ", ".join(f"{name} {share:.0%}" for name, share in largest)
        + f". A product takes {inputs.machine.hardware.chip.input_bits - 1} passes at one bit "
        "each, and a solve repeats one inversion and one 32-bit product per round.",
        "PipeLayer is taken at its published peak, which favours it most. Beside a first-order "
        "chip of its kind, built from the same parts and mapped the same way, one RePAST chip "
        f"runs an epoch at {rebuilt:.2g} times the speed, since second order does more work.",
        f"The GPU's power feeds {min(fed)} to {max(fed)} chips at what they draw in an average "
        f"step; a supply for the peak of {peak:.0f} W per chip would feed fewer.",
        f"GPU: {inputs.gpu.product_efficiency.source}. Inversion: "
        f"{inputs.gpu.inverse_efficiency.source}.",
    ]
    if reached:
        notes.insert(
            2,
            f"The paper's speedup over the GPU is reached with {min(reached)} to {max(reached)} "
            f"chips ({min(reached) * area:,.0f} to {max(reached) * area:,.0f} mm2 of silicon), on "
            f"{len(reached)} of {len(inputs.networks)} networks.",
        )
    return [Note(text) for text in notes]


def run(
    study: HeadlineStudy, settings: RunSettings, run_dir: Path | None, console: Console
) -> Path:
    """Compare the chip of the settings with a GPU and PipeLayer.

    Raises
    ------
    SettingsError
        The baseline is no GPU.
    """
    if not isinstance(settings.baseline, GpuSpec):
        raise SettingsError(
            f"baseline: study=headline compares with a GPU, got {settings.baseline.name}; "
            "valid: baseline=gpu_v100, gpu_a100, gpu_h200 or a measured file"
        )
    page = headline(
        HeadlineInputs(
            machine=settings.machine,
            gpu=settings.baseline,
            pipelayer=study.pipelayer,
            pipelayer_chip=study.pipelayer_chip,
            epochs=settings.epochs,
            networks=study.networks,
            batch=study.batch_size,
            micro_batch=study.micro_batch_size,
            sensitive=study.sensitive,
        )
    )
    console.print(data_table("Means over networks", page.tables["means"]))
    return finish(page, settings, console)

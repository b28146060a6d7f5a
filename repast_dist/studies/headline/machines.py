"""The machines of ``study=headline`` and their steps on a network."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from repast_dist.network.shapes import Workload
from repast_dist.network.workload import named_workload
from repast_dist.ops.op import OPS, Segment
from repast_dist.planning.baselines import EpochsSpec, pipelayer_step
from repast_dist.planning.gpu import BaselineStep, gpu_step
from repast_dist.planning.summary import StepSummary, summarise
from repast_dist.studies.headline import footings
from repast_dist.studies.headline.inputs import HeadlineInputs

REPAST, GPU, PIPELAYER, REBUILT = "RePAST", "GPU", "PipeLayer", "PipeLayer, rebuilt"
"""What the machines are called."""


@dataclasses.dataclass(frozen=True)
class MachineStep:
    """A machine's step on one network.

    Attributes
    ----------
    kind : str
        One of `REPAST`, `GPU`, `PIPELAYER` and `REBUILT`.
    footing : str
        What decides how many chips there are.
    chips : int
        That number.
    second_order : bool
        Whether the step inverts.
    samples : int
        Samples per step.
    step_s, energy_j : float
        Time and energy of a step.
    phase_s, phase_j : dict
        Their parts: segment or phase -> seconds, phase -> joules.
    """

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
        """Return the row of the table of machines."""
        per_sample = self.step_s / self.samples
        count = epochs.second_order if self.second_order else epochs.first_order
        seen = named_workload(network).samples_per_epoch
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
        """Yield a row per segment of the step and phase: seconds, joules and their shares."""
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


def machines_on(inputs: HeadlineInputs, name: str) -> list[MachineStep]:
    """Return the steps of all machines on a network, RePAST with every number of chips."""
    workload = named_workload(name)
    others = _others(inputs, workload)
    gpu = others[0]
    cost, paper = coster(inputs, name), inputs.study.paper
    power_w = gpu.energy_j / gpu.step_s
    chips: dict[str, int | None] = {
        footings.IMPLIED: footings.chips_fed(cost, footings.implied_power(paper) * power_w),
        footings.ONE: 1,
        footings.POWER: footings.chips_fed(cost, power_w),
        footings.AREA: footings.chips_on_die(inputs.gpu, inputs.machine.hardware),
        footings.REACHED: footings.chips_to_reach(
            cost, gpu.samples / gpu.step_s * paper.speedup_over_gpu.value
        ),
    }
    machines = [_repast(name, count, cost(count)) for name, count in chips.items() if count]
    return [*machines, *others]


def implied_on(inputs: HeadlineInputs, name: str) -> list[MachineStep]:
    """Return the steps of as many chips as the paper's ratios imply, and of the other machines."""
    workload = named_workload(name)
    others = _others(inputs, workload)
    power_w = footings.implied_power(inputs.study.paper) * others[0].energy_j / others[0].step_s
    cost = coster(inputs, name)
    chips = footings.chips_fed(cost, power_w)
    return [_repast(footings.IMPLIED, chips, cost(chips)), *others]


def one_chip_on(inputs: HeadlineInputs, name: str) -> list[MachineStep]:
    """Return the steps of one chip and of the other machines on a network."""
    workload = named_workload(name)
    return [_repast(footings.ONE, 1, coster(inputs, name)(1)), *_others(inputs, workload)]


def published_on(inputs: HeadlineInputs, workload: Workload) -> tuple[MachineStep, MachineStep]:
    """Return the steps of the GPU with second order, and of PipeLayer as published."""
    study = inputs.study
    gpu = gpu_step(inputs.gpu, workload, study.batch_size, inputs.gpu_kfac)
    pipelayer = pipelayer_step(study.pipelayer, workload, study.batch_size)
    return _other(GPU, True, gpu), _other(PIPELAYER, False, pipelayer)


def _others(inputs: HeadlineInputs, workload: Workload) -> list[MachineStep]:
    """Return the GPU with second and with first order, and PipeLayer as published and rebuilt."""
    gpu, pipelayer = published_on(inputs, workload)
    first = gpu_step(inputs.gpu, workload, inputs.study.batch_size, None)
    return [gpu, _other(GPU, False, first), pipelayer, _rebuilt(inputs, workload)]


def _rebuilt(inputs: HeadlineInputs, workload: Workload) -> MachineStep:
    """Return the cost of a first-order step on PipeLayer's chip with our parts and mapping."""
    machine = inputs.machine.changed(chip=inputs.study.pipelayer_chip)
    plan = machine.plan(
        workload, 1, inputs.study.batch_size, inputs.study.micro_batch_size, sides=()
    )
    costed = _repast("one machine", 1, summarise(plan))
    return dataclasses.replace(costed, kind=REBUILT, second_order=False)


def coster(inputs: HeadlineInputs, name: str) -> Callable[[int], StepSummary]:
    """Return a function from chips to the cost of their step; every count is costed once."""
    workload = named_workload(name)
    found: dict[int, StepSummary] = {}

    def cost(chips: int) -> StepSummary:
        if chips not in found:
            batch = inputs.study.batch_size * chips
            found[chips] = summarise(
                inputs.machine.plan(workload, chips, batch, inputs.study.micro_batch_size)
            )
        return found[chips]

    return cost


def _repast(footing: str, chips: int, step: StepSummary) -> MachineStep:
    return MachineStep(
        REPAST,
        footing,
        chips,
        True,
        step.samples,
        step.step_s,
        step.energy_j,
        _with_parts_of_computing(step),
        step.phase_energy_j,
    )


def _with_parts_of_computing(step: StepSummary) -> dict[str, float]:
    """Return the time per segment, that of the first divided among its operations in proportion to
    how long they keep the chips busy; in it, layers work side by side.
    """
    computing = Segment.COMPUTE.title
    busy = {op.name: step.op_busy_s[op.name] for op in OPS if op.segment is Segment.COMPUTE}
    total = sum(busy.values())
    parts = {
        f"{computing}: {name.replace('_', ' ')}": step.segment_s[computing] * seconds / total
        for name, seconds in busy.items()
        if seconds
    }
    return parts | {name: s for name, s in step.segment_s.items() if name != computing}


_PARTS = ("first quarter", "second quarter", "third quarter", "last quarter")


def layer_rows(inputs: HeadlineInputs, name: str) -> Iterator[dict[str, Any]]:
    """Yield, per quarter of a network's layers with products, its share of the time that layers
    keep one chip busy, and of the multiplications.
    """
    layers = named_workload(name).layers
    busy = coster(inputs, name)(1).layer_busy_s
    macs = np.array([layer.macs_per_sample for layer in layers], float)
    products = np.flatnonzero(macs)
    # What has no product goes with the product before it.
    parts = np.minimum(
        len(_PARTS)
        * np.maximum(np.searchsorted(products, np.arange(len(layers)), "right") - 1, 0)
        // len(products),
        len(_PARTS) - 1,
    )
    for number, part in enumerate(_PARTS):
        mine = np.flatnonzero(parts == number)
        if len(mine):
            yield {
                "network": name,
                "layers": part,
                "from": layers[mine[0]].name,
                "to": layers[mine[-1]].name,
                "time_share": float(busy[mine].sum() / busy.sum()),
                "mac_share": float(macs[mine].sum() / macs.sum()),
            }


def _other(kind: str, second_order: bool, step: BaselineStep) -> MachineStep:
    energy = {phase: step.energy_j * s / step.step_s for phase, s in step.phase_s.items()}
    return MachineStep(
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

"""What the constants and counts that are assumed decide: each of them halved and doubled.

A change costs what it touches: figures of the GPU leave the chips' step as it is, and figures of
energy leave the plan as it is, as long as plans are made for the shortest step.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any, Literal

from repast_dist.ground.errors import SettingsError
from repast_dist.hardware import PARTS, Quantity, quantities
from repast_dist.hardware.specs import ChipSpec
from repast_dist.network.workload import named_workload
from repast_dist.planning.gpu import BaselineStep, gpu_step
from repast_dist.planning.plan import Plan
from repast_dist.planning.summary import StepSummary, summarise
from repast_dist.studies.headline.inputs import HeadlineInputs
from repast_dist.studies.headline.ratios import geometric_mean

_COUNTS = (
    "tiles",
    "banks_per_tile",
    "vmm.rows",
    "vmm.cols",
    "vmm.arrays_per_bank",
    "vmm.adcs_per_array",
    "inv.size",
    "inv.arrays_per_bank",
    "inv.adcs_per_array",
    "residual.arrays_per_bank",
    "dac.bits",
    "written_arrays_per_bank",
    "shift_adds_per_bank",
    "buffer_bytes",
    "bus_bits",
    "digital_lanes",
)
"""Counts of the chip that no publication gives openly. Those that are 1 cannot be halved. Weights
and inputs of 16 bits and inversion of 8 are published.
"""
_RESIDUAL = ("residual.rows", "residual.dac_bits")
"""Rows driven at a time in residual products, and bits of a pass, which all DACs of multiplying
arrays then have; their converters get as many bits as tell all levels apart.
"""
_LEVELS = "adc.bits"
"""A bit more or less of the converters of multiplying arrays: twice or half the levels."""

_ENERGIES = ("energy_j", "power_w")

SHOWN = 16
"""Rows that charts show."""

_Change = Callable[[float], HeadlineInputs]


@dataclasses.dataclass(frozen=True)
class Assumed:
    """Something assumed.

    Attributes
    ----------
    name : str
        Its name in tables.
    change : callable
        From a factor to what is compared with it scaled by that.
    touches : {"gpu", "energy", "plan"}
        Whether only the GPU's step changes, only energies do, or the plan may.
    """

    name: str
    change: _Change
    touches: Literal["gpu", "energy", "plan"] = "plan"


class Outcomes:
    """Geometric means of one chip's speedup and saving over the GPU, with as little anew as
    possible.
    """

    def __init__(self, inputs: HeadlineInputs) -> None:
        self._inputs = inputs
        self._plans = {name: _plan(inputs, name) for name in inputs.study.sensitive}
        self._steps = {name: summarise(plan) for name, plan in self._plans.items()}
        self._gpu = {name: _gpu(inputs, name) for name in inputs.study.sensitive}
        objective = inputs.machine.policy.partition.objective
        self._energy_plans = objective == "energy"

    def __call__(
        self, changed: HeadlineInputs, touches: Literal["gpu", "energy", "plan"] = "plan"
    ) -> tuple[float, float]:
        speed, saving = [], []
        for name in self._inputs.study.sensitive:
            step = self._step(changed, name, touches)
            # The GPU renews as often as the chips.
            same = changed.gpu == self._inputs.gpu and changed.gpu_kfac == self._inputs.gpu_kfac
            gpu = self._gpu[name] if same else _gpu(changed, name)
            speed.append(step.samples_per_s / gpu.samples_per_s)
            saving.append(gpu.energy_j / gpu.samples / step.energy_per_sample_j)
        return geometric_mean(speed), geometric_mean(saving)

    def _step(self, changed: HeadlineInputs, name: str, touches: str) -> StepSummary:
        if touches == "gpu" or changed.machine == self._inputs.machine:
            return self._steps[name]
        if touches == "energy" and not self._energy_plans:
            hardware = changed.machine.hardware
            return summarise(dataclasses.replace(self._plans[name], hardware=hardware))
        return summarise(_plan(changed, name))


def _plan(inputs: HeadlineInputs, name: str) -> Plan:
    study = inputs.study
    return inputs.machine.plan(named_workload(name), 1, study.batch_size, study.micro_batch_size)


def _gpu(inputs: HeadlineInputs, name: str) -> BaselineStep:
    return gpu_step(inputs.gpu, named_workload(name), inputs.study.batch_size, inputs.gpu_kfac)


def sensitivity_rows(inputs: HeadlineInputs) -> list[dict[str, Any]]:
    """Halve and double everything that is assumed; return the geometric mean speedup and saving of
    one chip over the GPU, NaN where the chip would not be one.
    """
    outcome = Outcomes(inputs)
    base = outcome(inputs)
    rows: list[dict[str, Any]] = []
    for assumed in assumptions(inputs):
        half, double = (_possible(outcome, assumed, factor) for factor in (0.5, 2.0))
        rows.append(
            {
                "constant": assumed.name,
                "speedup": base[0],
                "speedup, halved": half[0],
                "speedup, doubled": double[0],
                "saving": base[1],
                "saving, halved": half[1],
                "saving, doubled": double[1],
                "swing": _swing(base, half, double),
            }
        )
    rows.sort(key=lambda row: -row["swing"])
    for number, row in enumerate(rows):
        whole = math.isfinite(row["speedup, halved"] + row["speedup, doubled"])
        row["charted"] = "yes" if whole and number < SHOWN else "no"
    return rows


def _possible(outcome: Outcomes, assumed: Assumed, factor: float) -> tuple[float, float]:
    """Return what the change leads to; NaN: there is no such chip."""
    try:
        return outcome(assumed.change(factor), assumed.touches)
    except (ValueError, SettingsError):
        return math.nan, math.nan


def _swing(base: tuple[float, float], *ends: tuple[float, float]) -> float:
    """Return the largest change of both ratios, as a logarithm."""
    changes = [
        abs(math.log(value / middle))
        for end in ends
        for value, middle in zip(end, base, strict=True)
        if math.isfinite(value)
    ]
    return max(changes, default=0.0)


def assumptions(inputs: HeadlineInputs) -> Iterator[Assumed]:
    """Return every constant marked as an assumption and every assumed count, and how to scale
    it.
    """
    for component in (part.name for part in PARTS):
        part = getattr(inputs.machine.hardware.components, component)
        for name, quantity in quantities(part).items():
            # No area moves the ratios of one chip.
            if quantity.confidence == "C" and name != "area_m2":
                yield Assumed(
                    f"{component}.{name}",
                    _scale_part(inputs, component, name),
                    "energy" if name in _ENERGIES or component == "amplifier" else "plan",
                )
    for name in ("memory_efficiency", "launch_s"):
        yield Assumed(f"{inputs.gpu.name}.{name}", _scale_gpu(inputs, name), "gpu")
    name = "inversion.column_s"
    yield Assumed(f"{inputs.gpu.name}.{name}", _scale_column(inputs), "gpu")
    for name in ("assumed_iterations", "block_size", "interval", "factor_interval"):
        yield Assumed(f"soi.{name}", _scale_soi(inputs, name))
    for path in (*_COUNTS, *_RESIDUAL, _LEVELS):
        yield Assumed(f"chip.{path}", _scale_count(inputs, path))
    for name in ("settled_cycles", "gbw_hz"):
        yield Assumed(f"device.opamp.{name}", _scale_amplifiers(inputs, name))


def _scale_part(inputs: HeadlineInputs, component: str, field: str) -> _Change:
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


def _scale_gpu(inputs: HeadlineInputs, field: str) -> _Change:
    def scaled(factor: float) -> HeadlineInputs:
        changed: dict[str, Any] = {field: _times(getattr(inputs.gpu, field), factor)}
        return dataclasses.replace(inputs, gpu=dataclasses.replace(inputs.gpu, **changed))

    return scaled


def _scale_column(inputs: HeadlineInputs) -> _Change:
    def scaled(factor: float) -> HeadlineInputs:
        old = inputs.gpu.inversion
        inversion = dataclasses.replace(old, column_s=_times(old.column_s, factor))
        gpu = dataclasses.replace(inputs.gpu, inversion=inversion)
        return dataclasses.replace(inputs, gpu=gpu)

    return scaled


def _times(quantity: Quantity, factor: float) -> Quantity:
    """Return a multiple of a figure; a share stays below 1."""
    value = (quantity.value or 0.0) * factor
    return dataclasses.replace(quantity, value=min(1.0, value) if quantity.unit == "1" else value)


def _scale_soi(inputs: HeadlineInputs, field: str) -> _Change:
    def scaled(factor: float) -> HeadlineInputs:
        policy = inputs.machine.policy
        soi = policy.soi
        value = getattr(soi, field)
        if field == "assumed_iterations":
            value = policy.assumed_rounds
        changed: dict[str, Any] = {field: max(1, round(value * factor))}
        if field.endswith("interval"):
            # Inversions come with an update of the factors.
            updates = changed.get("factor_interval", soi.factor_interval)
            every = changed.get("interval", soi.interval)
            changed["interval"] = max(1, round(every / updates)) * updates
        soi = dataclasses.replace(soi, **changed)
        return dataclasses.replace(inputs, machine=inputs.machine.changed(soi=soi))

    return scaled


def _scale_count(inputs: HeadlineInputs, path: str) -> _Change:
    def scaled(factor: float) -> HeadlineInputs:
        chip = inputs.machine.hardware.chip
        if path == _LEVELS:
            bits = chip.adc.bits + round(math.log2(factor))
            chip = dataclasses.replace(chip, adc=dataclasses.replace(chip.adc, bits=bits))
        elif path in _RESIDUAL:
            levels = inputs.machine.hardware.device.cell.levels
            chip = _with_residual(chip, path.removeprefix("residual."), factor, levels)
        else:
            chip = _with_count(chip, path, factor)
        return dataclasses.replace(inputs, machine=inputs.machine.changed(chip=chip))

    return scaled


def _with_count(chip: Any, path: str, factor: float) -> Any:
    *part, field = path.split(".")
    whole = getattr(chip, part[0]) if part else chip
    changed: dict[str, Any] = {field: max(1, round(getattr(whole, field) * factor))}
    if part:
        changed = {part[0]: dataclasses.replace(whole, **changed)}
    return dataclasses.replace(chip, **changed)


def _with_residual(chip: ChipSpec, field: str, factor: float, levels: int) -> ChipSpec:
    """Return the chip with a count of its residual products scaled; `levels` of a cell."""
    old = chip.residual
    changed: dict[str, Any] = {field: max(1, round(getattr(old, field) * factor))}
    new = dataclasses.replace(old, **changed)
    if old.adc is not None:
        before, after = (
            (own.rows * (levels - 1) * (2**own.dac_bits - 1)).bit_length() for own in (old, new)
        )
        adc = dataclasses.replace(old.adc, bits=old.adc.bits + after - before)
        new = dataclasses.replace(new, adc=adc)
    dac = dataclasses.replace(chip.dac, bits=max(chip.dac.bits, new.dac_bits))
    return dataclasses.replace(chip, residual=new, dac=dac)


def _scale_amplifiers(inputs: HeadlineInputs, field: str) -> _Change:
    def scaled(factor: float) -> HeadlineInputs:
        device = inputs.machine.hardware.device
        changed: dict[str, Any] = {field: getattr(device.opamp, field) * factor}
        opamp = dataclasses.replace(device.opamp, **changed)
        device = dataclasses.replace(device, opamp=opamp)
        return dataclasses.replace(inputs, machine=inputs.machine.changed(device=device))

    return scaled

"""What the constants and counts that are assumed decide: each of them halved and doubled."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

from repast_dist.hardware import PARTS, Quantity, quantities
from repast_dist.network.workload import named_workload
from repast_dist.planning.gpu import gpu_step
from repast_dist.studies.headline.inputs import HeadlineInputs
from repast_dist.studies.headline.machines import coster
from repast_dist.studies.headline.ratios import geometric_mean

_COUNTS = (
    "tiles",
    "vmm.arrays_per_bank",
    "vmm.adcs_per_array",
    "inv.arrays_per_bank",
    "residual.arrays_per_bank",
    "dac.bits",
    "digital_lanes",
)
"""Counts of the chip that no publication gives openly. Those that are 1 cannot be halved."""


def sensitivity_rows(inputs: HeadlineInputs) -> list[dict[str, Any]]:
    """Halve and double everything that is assumed; return the geometric mean speedup and saving of
    one chip over the GPU.
    """
    names = list(inputs.study.sensitive)

    def outcome(changed: HeadlineInputs) -> tuple[float, float]:
        speed, saving = [], []
        for name in names:
            step = coster(changed, name)(1)
            gpu = gpu_step(
                changed.gpu,
                named_workload(name),
                changed.study.batch_size,
                changed.gpu_kfac,
            )
            speed.append(step.samples_per_s / gpu.samples_per_s)
            saving.append(gpu.energy_j / gpu.samples / step.energy_per_sample_j)
        return geometric_mean(speed), geometric_mean(saving)

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
    """Return every constant marked as an assumption and every assumed count, and how to scale
    it.
    """
    for component in (part.name for part in PARTS):
        figures = quantities(getattr(inputs.machine.hardware.components, component))
        for name, quantity in figures.items():
            if quantity.confidence == "C" and name != "area_m2":
                yield f"{component}.{name}", _scale_part(inputs, component, name)
    for name in ("memory_efficiency", "launch_s"):
        yield f"{inputs.gpu.name}.{name}", _scale_gpu(inputs, name)
    yield f"{inputs.gpu.name}.inversion.column_s", _scale_inversion(inputs, "column_s")
    for name in ("assumed_iterations", "block_size", "interval"):
        yield f"soi.{name}", _scale_soi(inputs, name)
    for path in _COUNTS:
        yield f"chip.{path}", _scale_count(inputs, path)
    for name in ("settled_cycles", "gbw_hz"):
        yield f"device.opamp.{name}", _scale_amplifiers(inputs, name)


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


def _scale_inversion(inputs: HeadlineInputs, field: str) -> Callable[[float], HeadlineInputs]:
    def scaled(factor: float) -> HeadlineInputs:
        old = inputs.gpu.inversion
        quantity: Quantity = getattr(old, field)
        value = (quantity.value or 0.0) * factor
        changed: dict[str, Any] = {field: dataclasses.replace(quantity, value=value)}
        inversion = dataclasses.replace(old, **changed)
        return dataclasses.replace(inputs, gpu=dataclasses.replace(inputs.gpu, inversion=inversion))

    return scaled


def _scale_soi(inputs: HeadlineInputs, field: str) -> Callable[[float], HeadlineInputs]:
    def scaled(factor: float) -> HeadlineInputs:
        soi = inputs.machine.policy.soi
        changed: dict[str, Any] = {field: max(1, round(getattr(soi, field) * factor))}
        soi = dataclasses.replace(soi, **changed)
        return dataclasses.replace(inputs, machine=inputs.machine.changed(soi=soi))

    return scaled


def _scale_count(inputs: HeadlineInputs, path: str) -> Callable[[float], HeadlineInputs]:
    def scaled(factor: float) -> HeadlineInputs:
        chip = inputs.machine.hardware.chip
        *part, field = path.split(".")
        whole = getattr(chip, part[0]) if part else chip
        count = max(1, round(getattr(whole, field) * factor))
        changed: dict[str, Any] = {field: count}
        if part:
            changed = {part[0]: dataclasses.replace(whole, **changed)}
        chip = dataclasses.replace(chip, **changed)
        return dataclasses.replace(inputs, machine=inputs.machine.changed(chip=chip))

    return scaled


def _scale_amplifiers(inputs: HeadlineInputs, field: str) -> Callable[[float], HeadlineInputs]:
    def scaled(factor: float) -> HeadlineInputs:
        device = inputs.machine.hardware.device
        changed: dict[str, Any] = {field: getattr(device.opamp, field) * factor}
        opamp = dataclasses.replace(device.opamp, **changed)
        device = dataclasses.replace(device, opamp=opamp)
        return dataclasses.replace(inputs, machine=inputs.machine.changed(device=device))

    return scaled

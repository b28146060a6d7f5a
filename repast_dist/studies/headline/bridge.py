"""Factors that lead from one chip's ratios to the paper's, which multiply up to them exactly."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from repast_dist.planning.gpu import GpuScheduleSpec
from repast_dist.studies.headline import footings
from repast_dist.studies.headline.inputs import HeadlineInputs
from repast_dist.studies.headline.ratios import implied_means, one_chip_means, published_ratio

_EPOCH, _TARGET = "geometric mean", "to target, geometric mean"

ONE_CHIP, PLACEMENT = "one chip", "placement: layers are copied"
WHOLE, OWN = "the GPU renews whole factors", "the GPU's own schedule"
CHIPS, FIRST = "more chips, larger batch", "the GPU trains first order"
EPOCHS, REST = "fewer epochs", "not explained"


def bridge_rows(
    inputs: HeadlineInputs, means: Mapping[tuple[str, str], Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return one row per ratio and factor, in order: the factor, the products before and after,
    and what it means.

    In the first row the chip holds the weights of every layer at most once, and a GPU renews the
    same blocks as often as the chips do.

    Parameters
    ----------
    inputs : HeadlineInputs
        What is compared; `bridge` holds the machines with the changes.
    means : mapping
        (footing, ratio) -> the means over networks.
    """
    changed = {
        name: implied_means(dataclasses.replace(inputs, machine=machine))
        for name, machine in inputs.bridge.items()
    }
    policy = inputs.machine.policy
    same = GpuScheduleSpec(block_size=policy.soi.block_size)
    alike = dataclasses.replace(
        inputs, study=dataclasses.replace(inputs.study, gpu_schedule=same), bridge={}
    )
    placed, once = one_chip_means(alike), None
    if policy.partition.replicate_layers:
        single = dataclasses.replace(policy.partition, replicate_layers=False)
        machine = inputs.machine.changed(partition=single)
        once = one_chip_means(dataclasses.replace(alike, machine=machine))
    fewer = inputs.epochs.first_order / inputs.epochs.second_order
    meanings = _meanings(inputs)
    rows = []
    for ratio in inputs.study.paper.by_name:
        implied = means[footings.IMPLIED, ratio]
        values = {ONE_CHIP: placed[ratio]}
        if once:
            values = {ONE_CHIP: once[ratio], PLACEMENT: placed[ratio]}
        if ratio.endswith("GPU"):
            values[schedule_name(inputs)] = means[footings.ONE, ratio][_EPOCH]
        values[CHIPS] = implied[_EPOCH]
        for name, found in changed.items():
            values[name] = found[ratio][_EPOCH]
            implied = found[ratio]
        if ratio.endswith("GPU"):
            values[FIRST] = implied[_TARGET] / fewer
        values[EPOCHS] = implied[_TARGET]
        values[REST] = published_ratio(inputs.study.paper, ratio)
        before = 1.0
        for name, value in values.items():
            rows.append(
                {
                    "ratio": ratio,
                    "what": name,
                    "factor": value / before,
                    "before": before,
                    "after": value,
                    "meaning": meanings[name],
                }
            )
            before = value
    return rows


def schedule_name(inputs: HeadlineInputs) -> str:
    """Return what the factor is called by which the GPU's schedule differs from the chips'."""
    return WHOLE if inputs.study.gpu_schedule == GpuScheduleSpec() else OWN


def _meanings(inputs: HeadlineInputs) -> dict[str, str]:
    """Return what every factor means."""
    epochs, copied = inputs.epochs, inputs.machine.policy.partition.replicate_layers
    changes = {
        name: "a change that the paper may have made: "
        + ", ".join(f"{path}={value}" for path, value in inputs.study.bridge.get(name, {}).items())
        for name in inputs.bridge
    }
    return changes | {
        ONE_CHIP: "one chip beside the other machine, over the same samples; a GPU renews the same "
        "blocks of the factors as often"
        + ("; the weights of a layer are held once, and arrays beyond that are idle" * copied),
        PLACEMENT: "weights of layers that many vectors pass are held several times, as the search "
        "finds best (partition.replicate_layers)",
        OWN: "as study.gpu_schedule says, instead of the chips' blocks and intervals",
        WHOLE: "as K-FAC codes on GPUs do, instead of diagonal blocks",
        CHIPS: "as many chips as the power feeds that the paper's ratios imply, with as many "
        "samples each as one chip had; the other machine keeps its batch",
        FIRST: "it runs plain gradient steps, which take less time than K-FAC's",
        EPOCHS: f"{epochs.second_order:g} of second order against {epochs.first_order:g} of first",
        REST: "what is left to the paper's figure",
    }

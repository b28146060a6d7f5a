"""Factors that lead from one chip's ratios to the paper's, which multiply up to them exactly."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from repast_dist.planning.gpu import GpuScheduleSpec
from repast_dist.studies.headline import footings
from repast_dist.studies.headline.inputs import HeadlineInputs
from repast_dist.studies.headline.ratios import implied_means, one_chip_means, published_ratio

_EPOCH, _TARGET = "geometric mean", "to target, geometric mean"

ONE_CHIP, WHOLE = "one chip, per epoch", "the GPU renews whole factors"
EPOCHS, REST = "fewer epochs", "not explained"


def bridge_rows(
    inputs: HeadlineInputs, means: Mapping[tuple[str, str], Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return one row per ratio and factor, in order: the factor, and the products before and after.

    The first row of a ratio over the GPU has it renew the same blocks as often as the chips do.

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
    soi = inputs.machine.policy.soi
    same = GpuScheduleSpec(block_size=soi.block_size)
    alike = one_chip_means(
        dataclasses.replace(inputs, study=dataclasses.replace(inputs.study, gpu_schedule=same))
    )
    rows = []
    for ratio in inputs.study.paper.by_name:
        implied = means[footings.IMPLIED, ratio]
        values = {ONE_CHIP: alike[ratio]}
        if ratio.endswith("GPU"):
            values[WHOLE] = means[footings.ONE, ratio][_EPOCH]
        values[f"chips on the {footings.IMPLIED}"] = implied[_EPOCH]
        for name, found in changed.items():
            values[name] = found[ratio][_EPOCH]
            implied = found[ratio]
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
                }
            )
            before = value
    return rows

"""Ratios of the other machines' time and energy to RePAST's, and their means over networks."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from repast_dist.planning.baselines import EpochsSpec
from repast_dist.studies.headline.inputs import HeadlineInputs
from repast_dist.studies.headline.machines import (
    GPU,
    PIPELAYER,
    REBUILT,
    REPAST,
    MachineStep,
    implied_on,
    one_chip_on,
)
from repast_dist.studies.published import PublishedRatios

_REBUILT = ", rebuilt"
RATIOS = (
    ("speedup over GPU", GPU, "time_per_sample_s"),
    ("speedup over PipeLayer", PIPELAYER, "time_per_sample_s"),
    ("energy saving over GPU", GPU, "energy_per_sample_j"),
    ("energy saving over PipeLayer", PIPELAYER, "energy_per_sample_j"),
    (f"speedup over PipeLayer{_REBUILT}", REBUILT, "time_per_sample_s"),
    (f"energy saving over PipeLayer{_REBUILT}", REBUILT, "energy_per_sample_j"),
)
"""Name, the other machine, and the column of its record that is compared."""


def ratio_rows(
    network: str, machines: Sequence[MachineStep], epochs: EpochsSpec
) -> Iterator[dict[str, Any]]:
    """Yield RePAST's ratios on a network per footing: per epoch, and to target."""
    records = [machine.record(network, epochs) for machine in machines]
    first = {r["machine"]: r for r in records if r["order"] == "first"}
    same = first | {r["machine"]: r for r in records if r["machine"] == GPU}
    same[GPU] = next(r for r in records if r["machine"] == GPU and r["order"] == "second")
    shorter = epochs.first_order / epochs.second_order
    for record in records:
        if record["machine"] != REPAST:
            continue
        for name, other, column in RATIOS:
            yield {
                "network": network,
                "footing": record["footing"],
                "chips": record["chips"],
                "ratio": name,
                "per epoch": same[other][column] / record[column],
                "to target": first[other][column] / record[column] * shorter,
            }


def mean_rows(ratios: Sequence[dict[str, Any]], paper: PublishedRatios) -> list[dict[str, Any]]:
    """Return the means of `ratio_rows` of all networks per footing, beside what was published."""
    footings = list(dict.fromkeys(row["footing"] for row in ratios))
    means = []
    for footing in footings:
        for name, *_ in RATIOS:
            mine = [r for r in ratios if r["footing"] == footing and r["ratio"] == name]
            values = np.array([row["per epoch"] for row in mine])
            targets = np.array([row["to target"] for row in mine])
            means.append(
                {
                    "footing": footing,
                    "ratio": name,
                    "paper": published_ratio(paper, name),
                    "arithmetic mean": float(values.mean()),
                    "geometric mean": geometric_mean(values),
                    "to target, geometric mean": geometric_mean(targets),
                    "networks": len(mine),
                    "mean chips": float(np.mean([row["chips"] for row in mine])),
                }
            )
    return means


def implied_means(inputs: HeadlineInputs) -> dict[str, dict[str, Any]]:
    """Return `mean_rows` of as many chips as the paper's ratios imply, by ratio."""
    ratios = [
        row
        for name in inputs.study.networks
        for row in ratio_rows(name, implied_on(inputs, name), inputs.epochs)
    ]
    return {row["ratio"]: row for row in mean_rows(ratios, inputs.study.paper)}


def one_chip_means(inputs: HeadlineInputs) -> dict[str, float]:
    """Return the geometric means of one chip's ratios per epoch, by the paper's names."""
    ratios = [
        row
        for name in inputs.study.networks
        for row in ratio_rows(name, one_chip_on(inputs, name), inputs.epochs)
    ]
    means = mean_rows(ratios, inputs.study.paper)
    return {row["ratio"]: row["geometric mean"] for row in means}


def published_ratio(paper: PublishedRatios, name: str) -> float:
    """Return the published figure beside a ratio; that of PipeLayer beside PipeLayer rebuilt."""
    return paper.by_name[name.removesuffix(_REBUILT)].value


def geometric_mean(values: Sequence[float] | np.ndarray) -> float:
    """Return the geometric mean of positive numbers."""
    return float(np.exp(np.log(values).mean()))

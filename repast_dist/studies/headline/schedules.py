"""What the GPU renews, and how often: its choice moves every ratio over it."""

from collections.abc import Sequence
from typing import Any

from repast_dist.network.workload import named_workload
from repast_dist.planning.gpu import GpuKfac, gpu_step
from repast_dist.studies.headline import footings
from repast_dist.studies.headline.inputs import HeadlineInputs
from repast_dist.studies.headline.machines import REPAST
from repast_dist.studies.headline.ratios import geometric_mean

WHOLE = "whole factors"


def schedule_rows(
    inputs: HeadlineInputs, machines: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return the ratios over the GPU for several of its schedules; the chips keep theirs.

    Parameters
    ----------
    inputs : HeadlineInputs
        What is compared.
    machines : sequence of dict
        The records of all machines on all networks.
    """
    soi, study = inputs.machine.policy.soi, inputs.study
    chosen = inputs.gpu_kfac
    schedules: dict[GpuKfac | None, None] = dict.fromkeys(
        [
            GpuKfac(soi.block_size, soi.interval, soi.factor_interval),
            chosen,
            *(GpuKfac(chosen.block_size, every, every) for every in study.gpu_intervals),
            None,
        ]
    )
    rows = []
    for kfac in schedules:
        steps = {
            name: gpu_step(inputs.gpu, named_workload(name), study.batch_size, kfac)
            for name in study.networks
        }
        row: dict[str, Any] = {
            "GPU inverts": _blocks(kfac),
            "in use": "yes" if kfac == chosen else "",
            "factors every": float("nan") if kfac is None else kfac.factor_interval,
            "inverses every": float("nan") if kfac is None else kfac.interval,
        }
        for footing in (footings.IMPLIED, footings.ONE):
            ours = [r for r in machines if r["machine"] == REPAST and r["footing"] == footing]
            for title, column in (("speedup", "time"), ("energy saving", "energy")):
                row[f"{title}, {footing}"] = geometric_mean(
                    [_per_sample(steps[r["network"]], column) / r[_COLUMNS[column]] for r in ours]
                )
        rows.append(row)
    return rows


_COLUMNS = {"time": "time_per_sample_s", "energy": "energy_per_sample_j"}


def _per_sample(step: Any, column: str) -> float:
    return (step.step_s if column == "time" else step.energy_j) / step.samples


def _blocks(kfac: GpuKfac | None) -> str:
    if kfac is None:
        return "nothing (first order)"
    return WHOLE if kfac.block_size is None else f"blocks of {kfac.block_size}"

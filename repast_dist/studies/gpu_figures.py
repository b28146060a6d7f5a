"""Our figures beside published timings of GPUs, for ``study=validate``."""

from collections.abc import Mapping

import numpy as np

from repast_dist.ground.errors import SettingsError
from repast_dist.network.shapes import Workload
from repast_dist.network.workload import WorkloadSpec, build_workload
from repast_dist.planning.gpu import SGD_PASSES, GpuKfac, GpuSpec, GpuTimes, gpu_step
from repast_dist.studies.kinds.validate import Anchor
from repast_dist.trace.schema import Phase

TRAINING = "forward+backward"
"""Both passes together, beside the names of phases."""


def figure_network(name: str, sequence: int | None = None) -> Workload:
    """Return the network that an anchor names."""
    return build_workload(WorkloadSpec(name=name, sequence=sequence))


class GpuFigures:
    """Calculates what anchors of GPUs give.

    Parameters
    ----------
    gpus : mapping
        Name in the subject of an anchor -> the GPU.
    """

    def __init__(self, gpus: Mapping[str, GpuSpec]) -> None:
        self._gpus = gpus

    def throughput(self, anchor: Anchor) -> float:
        """Return the samples per second of first-order training: "v100 bert_large"."""
        gpu, (network,) = self._subject(anchor, "network")
        workload = figure_network(network, anchor.sequence)
        passes = SGD_PASSES if anchor.update_passes is None else anchor.update_passes
        return gpu_step(gpu, workload, anchor.batch, None, passes).samples_per_s

    def inversion(self, anchor: Anchor) -> float:
        """Return the seconds that inverting a matrix takes: "gv100 1000"."""
        gpu, (width,) = self._subject(anchor, "width")
        return float(GpuTimes(gpu).inverses(np.array([int(width)]))[0])

    def phase(self, anchor: Anchor) -> float:
        """Return the seconds of a phase of a K-FAC step: "rtx2080ti resnet50 inversion"."""
        gpu, (network, name) = self._subject(anchor, "network", "phase")
        phase_s = gpu_step(gpu, figure_network(network), anchor.batch, _kfac(anchor)).phase_s
        if name == TRAINING:
            return phase_s[Phase.FORWARD.value] + phase_s[Phase.BACKWARD.value]
        if name not in phase_s:
            raise SettingsError(
                f"study.anchors: '{anchor.subject}': no phase '{name}'; valid: {TRAINING}, "
                f"{', '.join(phase_s)}"
            )
        return phase_s[name]

    def ratio(self, anchor: Anchor) -> float:
        """Return how many times a first-order step a K-FAC step takes: "a100 resnet18_cifar"."""
        gpu, (name,) = self._subject(anchor, "network")
        network = figure_network(name)
        first = gpu_step(gpu, network, anchor.batch, None)
        return gpu_step(gpu, network, anchor.batch, _kfac(anchor)).step_s / first.step_s

    def named(self, name: str, anchor: Anchor) -> GpuSpec:
        """Return the GPU that an anchor asks for.

        Raises
        ------
        SettingsError
            There is none of that name.
        """
        if name not in self._gpus:
            raise SettingsError(
                f"study.anchors: '{anchor.subject}': no GPU '{name}'; valid: "
                f"{', '.join(self._gpus)}"
            )
        return self._gpus[name]

    def _subject(self, anchor: Anchor, *words: str) -> tuple[GpuSpec, list[str]]:
        name, *rest = anchor.subject.split()
        if len(rest) != len(words):
            raise SettingsError(
                f"study.anchors: '{anchor.subject}'; valid for {anchor.kind}: GPU {' '.join(words)}"
            )
        return self.named(name, anchor), rest


def _kfac(anchor: Anchor) -> GpuKfac:
    """Return whole factors, renewed together."""
    return GpuKfac(
        interval=anchor.interval,
        factor_interval=anchor.interval,
        fisher_passes=anchor.fisher_passes,
    )

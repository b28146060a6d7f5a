"""Our figures beside published timings of GPUs, for ``study=validate``."""

from collections.abc import Mapping

import numpy as np

from repast_dist.ground.errors import SettingsError
from repast_dist.network.shapes import Workload
from repast_dist.network.workload import WorkloadSpec, build_workload
from repast_dist.planning.gpu import SGD_PASSES, GpuKfac, GpuSpec, GpuTimes, gpu_step
from repast_dist.studies.kinds.validate import Anchor, TrainingLoop
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
    loops : mapping
        Name that an anchor gives -> the training loop that was timed.
    """

    def __init__(
        self, gpus: Mapping[str, GpuSpec], loops: Mapping[str, TrainingLoop] | None = None
    ) -> None:
        self._gpus = gpus
        self._loops = loops or {}

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
        first_s = gpu_step(gpu, network, anchor.batch, None).step_s
        every = GpuKfac(fisher_passes=anchor.fisher_passes)
        step = gpu_step(gpu, network, anchor.batch, every)
        renewed_s = step.phase_s[Phase.SOI.value] + step.phase_s[Phase.INVERSION.value]
        due, between = (
            self._timed(anchor, gpu_s) for gpu_s in (step.step_s, step.step_s - renewed_s)
        )
        kfac_s = between + (due - between) / anchor.interval
        return kfac_s / self._timed(anchor, first_s)

    def _timed(self, anchor: Anchor, gpu_s: float) -> float:
        """Return how long a step takes in the loop that was timed."""
        if anchor.loop is None:
            return gpu_s
        return self._loops[anchor.loop].step_s(gpu_s, anchor.batch)

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

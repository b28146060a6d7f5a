"""What ``study=headline`` compares, with the settings of the study."""

import dataclasses
from collections.abc import Mapping

from repast_dist.planning.baselines import EpochsSpec
from repast_dist.planning.gpu import GpuKfac, GpuSpec
from repast_dist.planning.idle import refuse_idle_chips
from repast_dist.planning.machine import Machine
from repast_dist.studies.kinds.headline import HeadlineStudy


@dataclasses.dataclass(frozen=True)
class HeadlineInputs:
    """What the study compares.

    Attributes
    ----------
    study : HeadlineStudy
        Networks, batches, PipeLayer and what was published.
    machine : Machine
        The RePAST chip and how it is used.
    gpu : GpuSpec
        The machine it is compared with.
    epochs : EpochsSpec
        Epochs to target.
    bridge : mapping
        What a change is called -> the machine with it and those before it.
    """

    study: HeadlineStudy
    machine: Machine
    gpu: GpuSpec
    epochs: EpochsSpec
    bridge: Mapping[str, Machine] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        why = "machines of equal power and area are compared, whose chips all work"
        refuse_idle_chips(self.machine.policy.partition, why)

    @property
    def gpu_kfac(self) -> GpuKfac:
        """What the GPU's second-order step renews."""
        return self.study.gpu_schedule.beside(self.machine.policy.soi)

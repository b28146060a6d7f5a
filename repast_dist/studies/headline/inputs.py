"""What ``study=headline`` compares, with the settings of the study."""

import dataclasses

from repast_dist.planning.baselines import EpochsSpec, GpuSpec
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
    """

    study: HeadlineStudy
    machine: Machine
    gpu: GpuSpec
    epochs: EpochsSpec

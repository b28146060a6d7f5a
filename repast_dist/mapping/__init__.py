"""Plans a training step: which chip holds, computes and exchanges what, and when."""

from repast_dist.mapping.blocks import SoiBlock, soi_blocks
from repast_dist.mapping.ops import step_ops
from repast_dist.mapping.plan import Plan, make_plan
from repast_dist.mapping.specs import PartitionSpec, Policy, SoiSpec, StepWork
from repast_dist.mapping.timeline import Placement, place

__all__ = [
    "PartitionSpec",
    "Placement",
    "Plan",
    "Policy",
    "SoiBlock",
    "SoiSpec",
    "StepWork",
    "make_plan",
    "place",
    "soi_blocks",
    "step_ops",
]

"""Plans a training step: which chip holds, computes and exchanges what, and when."""

from repast_dist.planning.blocks import SoiBlock, soi_blocks
from repast_dist.planning.ops import step_ops
from repast_dist.planning.plan import Plan, make_plan
from repast_dist.planning.specs import PartitionSpec, Policy, SoiSpec, StepWork
from repast_dist.planning.timeline import Placement, place

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

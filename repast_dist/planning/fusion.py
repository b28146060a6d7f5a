"""Decides which SOI blocks are fused: inverted from activations, without forming their product."""

import dataclasses

import numpy as np

from repast_dist.ground.numbers import ceil_div
from repast_dist.hardware.hardware import Hardware
from repast_dist.ops.pricing import time_per_count
from repast_dist.planning.block_costs import average_ops, block_costs
from repast_dist.planning.solves import BlockShapes, can_fuse, fuse
from repast_dist.planning.specs import Policy, StepWork


@dataclasses.dataclass(frozen=True, eq=False)
class Fusion:
    """Modelled time of each block per step with and without fusion, and what was chosen.

    Attributes
    ----------
    apart_s, fused_s : ndarray
        Modelled time per block and step on one copy, without and with fusion; `fused_s` is infinite
        if the activations do not fit an inverting array.
    chosen : ndarray of bool
        Whether the block is fused.
    """

    apart_s: np.ndarray
    fused_s: np.ndarray
    chosen: np.ndarray


def choose_fusion(
    shapes: BlockShapes, hardware: Hardware, policy: Policy, work: StepWork
) -> Fusion:
    """Choose the blocks to fuse by ``soi.fusion``: none, all that fit, or those that get faster.

    Parameters
    ----------
    shapes : BlockShapes
        The blocks, none of them fused.
    hardware : Hardware
        The chip they are solved on.
    policy : Policy
        How they are solved, and how often they are renewed.
    work : StepWork
        Whether factors are products of rows.
    """
    apart_s = _apart_seconds(shapes, hardware, policy)
    fused_s = _fused_seconds(shapes, hardware, policy)
    if not (work.fusible and policy.inversion.fusible):
        fused_s = np.full(len(shapes), np.inf)
    fits, faster = np.isfinite(fused_s), fused_s < apart_s
    chosen = {"off": np.zeros(len(shapes), bool), "on": fits, "auto": faster}[policy.soi.fusion]
    return Fusion(apart_s, fused_s, chosen)


def _apart_seconds(shapes: BlockShapes, hardware: Hardware, policy: Policy) -> np.ndarray:
    """Return the time per step of blocks that are not fused: the factor product of a micro-batch,
    the running average, programming and solving.
    """
    weights = time_per_count(hardware.costs)
    passes = shapes.size * hardware.geometry.passes
    lanes = max(1, hardware.chip.digital_lanes)
    average = ceil_div(average_ops(shapes.size), lanes)
    formed = passes * weights["serial_passes"] + average * weights["serial_digital_ops"]
    solved = block_costs(shapes, hardware, policy).per_step_s
    seconds: np.ndarray = formed / policy.soi.factor_interval + solved
    return seconds


def _fused_seconds(shapes: BlockShapes, hardware: Hardware, policy: Policy) -> np.ndarray:
    """Return the time per step of fused blocks; infinite where they do not fit."""
    possible = can_fuse(shapes, hardware.chip)
    seconds = block_costs(fuse(shapes, possible, hardware), hardware, policy).per_step_s
    return np.where(possible, seconds, np.inf)

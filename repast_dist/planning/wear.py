"""Counts how often a step writes a cell, by what the cell holds, and how long cells last.

Assumptions: the arrays of one purpose are written in turn, so all cells of them wear alike; arrays
of different purposes, and those of different layers where layers have arrays of their own, do not
change places. What counts is the chip, and the layer, whose cells are written most.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from repast_dist.planning.fills import input_fills, weight_fills
from repast_dist.planning.matrix_ops import free_arrays, inverting_arrays, matrix_arrays
from repast_dist.planning.plan import Plan, once_per_plan
from repast_dist.planning.timeline import samples_of_replicas
from repast_dist.training.optimizers.matrix_unit import Due


@dataclasses.dataclass(frozen=True)
class CellWrites:
    """Writes per step of one cell, averaged over steps, by what the cell holds; 0 where no cell
    holds that.

    Attributes
    ----------
    weights : float
        A cell of the weights' arrays: one write per step, or as many as micro-batches ask for where
        layers take turns in arrays or attention operands are loaded.
    activations : float
        A cell of the arrays that hold the inputs of layers and the rows of factors: every
        micro-batch fills them, several times if they are too few; and operands of matrices that are
        updated as wholes follow, which all arrays without weights take in turn.
    inverses : float
        A cell of the inverting arrays: one write per renewal of its SOI block, or more where blocks
        take turns.
    products : float
        A multiplying cell that holds an SOI block for residual products: as `inverses`.
    """

    weights: float
    activations: float
    inverses: float
    products: float

    @property
    def most(self) -> float:
        """Writes of the cells that are written most."""
        return max(dataclasses.astuple(self))


@dataclasses.dataclass(frozen=True)
class Wear:
    """What a schedule of training steps does to the cells.

    Attributes
    ----------
    writes : CellWrites
        Writes per cell and step.
    endurance : float
        Writes that a cell survives.
    step_s : float
        Time of the average step.
    """

    writes: CellWrites
    endurance: float
    step_s: float

    @property
    def lifetime_steps(self) -> dict[str, float]:
        """Steps until cells reach their endurance, by what they hold; infinite if never written."""
        return {
            name: self.endurance / writes if writes else float("inf")
            for name, writes in dataclasses.asdict(self.writes).items()
        }

    @property
    def first(self) -> str:
        """What the cells hold that wear out first."""
        steps = self.lifetime_steps
        return min(steps, key=lambda name: steps[name])

    @property
    def lifetime_s(self) -> float:
        """Time until the first cells reach their endurance."""
        return self.lifetime_steps[self.first] * self.step_s

    def record(self, steps: int, steps_per_epoch: int) -> dict[str, Any]:
        """Return what result.json says of a run of so many steps: ``first``, ``lifetime_s`` and
        ``lifetime_epochs`` of the cells that wear out first (None: no cell is written),
        ``endurance``, and per kind of cell ``writes_per_step``, ``writes``, ``worn`` (the share of
        its endurance that the run takes) and ``lifetime_epochs``.
        """
        cells = {
            name: {
                "writes_per_step": writes,
                "writes": writes * steps,
                "worn": writes * steps / self.endurance,
                "lifetime_epochs": self.endurance / writes / steps_per_epoch,
            }
            for name, writes in dataclasses.asdict(self.writes).items()
            if writes
        }
        return {
            "first": self.first if cells else None,
            "lifetime_s": self.lifetime_s if cells else None,
            "lifetime_epochs": cells[self.first]["lifetime_epochs"] if cells else None,
            "endurance": self.endurance,
            "cells": cells,
        }


@once_per_plan
def cell_writes(plan: Plan) -> CellWrites:
    """Return the writes per cell and step of a plan."""
    a = plan.allocation
    micro_batches = int(samples_of_replicas(plan).max()) // plan.work.micro_batch_size
    inverses, products = _of_blocks(plan)
    share = plan.policy.soi.factor_share(plan.work.micro_batches)
    inputs = input_fills(plan.layer_work, a, share)
    # Operands and layers that take turns are written again where samples are repeated.
    passes = 1.0 + (1.0 / plan.work.damping_every if plan.work.damping_every else 0.0)
    return CellWrites(
        weights=max(
            1.0 if (plan.layers.weighted & a.resident).any() else 0.0,
            passes * micro_batches * float(weight_fills(plan.layer_work, a).max(initial=0.0)),
        ),
        activations=micro_batches * float(inputs.max(initial=0.0)) + _of_matrices(plan),
        inverses=inverses + _of_roots(plan),
        products=products,
    )


def _of_matrices(plan: Plan) -> float:
    """Return the writes per step of cells that hold operands of matrices, of the chip that has most
    of them.
    """
    if plan.work.matrices is None:
        return 0.0
    stages = plan.allocation.stages
    room = np.array([free_arrays(plan, stage) for stage in range(stages)])
    arrays = _per_step(plan, matrix_arrays)
    return float((arrays / room[np.arange(plan.work.chips) % stages]).max())


def _of_roots(plan: Plan) -> float:
    """Return the writes per step of inverting cells that hold matrices of which roots are taken."""
    if plan.work.matrices is None:
        return 0.0
    arrays = _per_step(plan, inverting_arrays)
    return float(arrays.max() / max(1, plan.hardware.chip.inv_arrays))


def _per_step(plan: Plan, arrays: Callable[[Plan, Due], np.ndarray]) -> np.ndarray:
    """Return how many arrays matrices are written into in the average step, (chips,)."""
    soi = plan.policy.soi
    if not plan.work.renews:
        return arrays(plan, Due(False, False))
    renewing, averaging, neither = (
        arrays(plan, Due(*due)) for due in ((True, True), (True, False), (False, False))
    )
    often, rarely = 1 / soi.factor_interval, 1 / soi.interval
    return rarely * renewing + (often - rarely) * averaging + (1 - often) * neither


def _of_blocks(plan: Plan) -> tuple[float, float]:
    """Return the writes per step of inverting cells, and of those of residual products."""
    if not plan.blocks:
        return 0.0, 0.0
    scheme, shapes, soi = plan.policy.inversion, plan.held_shapes, plan.policy.soi
    inverting = shapes.inv_arrays * scheme.uses_array
    rooms = (plan.hardware.chip.inv_arrays, plan.allocation.budget.solvers)
    both = []
    stays, copies = plan.places.stays, plan.places.copies
    for arrays, room in zip((inverting, shapes.product_arrays), rooms, strict=True):
        moving, kept = (
            np.bincount(plan.holdings.chip, np.where(mask, arrays * copies, 0), plan.work.chips)
            for mask in (~stays, stays)
        )
        left = np.maximum(room - soi.array_sets * kept, 1)
        in_turn = np.where(moving > 0, np.maximum(moving / left, 1.0), 0.0)
        # Where new inverses are prepared beside the old ones, two sets are written in turn.
        renewed = 1.0 / (soi.interval * soi.array_sets) if (arrays[stays] > 0).any() else 0
        both.append(float(max(in_turn.max(), renewed)))
    return both[0], both[1]

"""Builds the rows of the op table that belong to SOI blocks: averaging, programming, solving."""

import numpy as np

from repast_dist.hardware.geometry import Counts
from repast_dist.ops import op
from repast_dist.ops.op import Op
from repast_dist.ops.table import OpTable, concatenate, op_rows
from repast_dist.planning.block_costs import Solves, program_counts
from repast_dist.planning.plan import Chips, Plan, once_per_plan


def block_rows(
    plan: Plan,
    chips: Chips,
    factors_due: bool,
    *,
    inverses_due: bool,
    measured: Counts | None = None,
) -> OpTable:
    """Return the rows of the SOI blocks: averaging, programming and solving; the step is 0.

    Parameters
    ----------
    plan : Plan
        The plan of the step.
    chips : int, sequence of int or None
        The chips; None: all.
    factors_due, inverses_due : bool
        Whether the step updates the running averages, and whether it programs the blocks.
    measured : dict, optional
        Column of `SolveCounts` -> (holdings,) what was measured in this step, programming and
        solving together; None: the modelled counts are taken.
    """
    mine = plan.chip_mask(chips)[plan.holdings.chip]
    if not mine.any():
        return concatenate([])
    shapes, copies = plan.held_shapes, plan.places.copies
    work = plan.held_work
    if measured is None:
        solves = work.renewing if inverses_due else work.solving
        cells = work.preparing.columns["program_cells"]
    else:
        counts = _measured_columns(plan, measured, inverses_due)
        solves, cells = Solves(shapes, counts, plan.hardware), counts["program_cells"]
    solving = solves.counts(copies, work.banks)
    rows = []
    if factors_due:
        rows.append(_rows(plan, op.AVERAGE_FACTOR, work.averaging, mine & ~shapes.fused))
        rows.append(_rows(plan, op.KEEP_ROWS, work.averaging, mine & shapes.fused))
    programmed = mine & (~plan.places.stays | inverses_due) & (cells > 0)
    if programmed.any():
        programming = (
            _programming(plan)
            if measured is None
            else program_counts(shapes, solves.columns, copies, plan.hardware)
        )
        rows.append(_rows(plan, op.PROGRAM_BLOCK, programming, programmed))
    rows.append(_rows(plan, op.SOLVE_G, solving, mine & plan.holds_g))
    rows.append(_rows(plan, op.SOLVE_A, solving, mine & ~plan.holds_g))
    return concatenate(rows)


def _rows(plan: Plan, what: Op, counts: Counts, holdings: np.ndarray) -> OpTable:
    """Make a row of one operation for each of these holdings."""
    place = np.flatnonzero(holdings)
    if not len(place):
        return concatenate([])
    columns = _identity(plan) | counts
    return op_rows(what, **{name: values[place] for name, values in columns.items()})


@once_per_plan
def _identity(plan: Plan) -> Counts:
    """Return the identity columns of every holding."""
    block = plan.holdings.block
    return {
        "chip": plan.holdings.chip,
        "bank": plan.places.first_bank,
        "block": block,
        "layer": plan.block_columns.layer[block],
    }


@once_per_plan
def _programming(plan: Plan) -> Counts:
    preparing = plan.held_work.preparing.columns
    return program_counts(plan.held_shapes, preparing, plan.places.copies, plan.hardware)


def _measured_columns(plan: Plan, measured: Counts, inverses_due: bool) -> Counts:
    """Return measured `SolveCounts` as columns, with one entry per holding.

    Blocks that take turns lie in cells that held others, and write the same cells again in steps
    that do not prepare them anew.
    """
    again = ~plan.places.stays & (measured["program_cells"] == 0) | (not inverses_due)
    cells = plan.held_work.preparing.columns["program_cells"]
    return {
        **measured,
        "kept_cells": np.where(plan.places.stays, measured["kept_cells"], 0),
        "program_cells": np.where(again, cells, measured["program_cells"]),
    }

"""Builds the op table of a training step from a plan, for numeric and for cost-only runs."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from repast_dist.analog.solution import SolveCounts
from repast_dist.ground.numbers import ceil_div
from repast_dist.ops import op
from repast_dist.ops.op import Op
from repast_dist.ops.table import OpTable, concatenate, op_rows
from repast_dist.planning.block_ops import block_rows
from repast_dist.planning.collectives import send
from repast_dist.planning.exchanges import exchanges
from repast_dist.planning.layer_ops import (
    LayerOp,
    PlacedLayers,
    measuring_op,
    soi_ops,
    training_ops,
    weight_writes,
)
from repast_dist.planning.matrix_ops import matrix_layers, matrix_rows
from repast_dist.planning.plan import Chips, Plan, once_per_plan
from repast_dist.planning.solves import counted
from repast_dist.training.optimizers.matrix_unit import STEP_OPERATIONS, Due

_MODEL_OPS = 4
"""Digital operations per parameter of what the damping is adapted by: the image of the momentum
and its scaling, and two inner products.
"""

_CLIP_OPS = 3
"""Digital operations per number of the KL clip: product, sum, scaling."""


def step_ops(
    plan: Plan,
    chips: Chips,
    step: int,
    *,
    factors_due: bool,
    inverses_due: bool,
    solves: Mapping[int, SolveCounts] | None = None,
    every_block: bool = False,
) -> OpTable:
    """Return what chips do in one step.

    Parameters
    ----------
    plan : Plan
        The plan of the step.
    chips : int, sequence of int or None
        The chips; None: all.
    step : int
        Number of the step, which all rows get.
    factors_due, inverses_due : bool
        Whether the step updates the running averages, and whether it programs the blocks.
    solves : mapping, optional
        Block -> measured counts of this step, programming and solving together; None: the modelled
        counts are taken.
    every_block : bool
        Whether the SOI blocks and matrices of all other chips are included, too.

    Returns
    -------
    OpTable
        Rows in order of execution per chip.
    """
    due = factors_due and plan.work.second_order
    before, after = outer_rows(plan, chips, due, repeats=plan.work.repeats_samples(step))
    measured = None
    if solves is not None:
        columns = counted(dict(solves), len(plan.blocks))
        measured = {name: values[plan.holdings.block] for name, values in columns.items()}
    blocks = block_rows(
        plan, None if every_block else chips, due, inverses_due=inverses_due, measured=measured
    )
    matrices = matrix_rows(plan, None if every_block else chips, Due(factors_due, inverses_due))
    table = concatenate([before, blocks, matrices, after])
    table.columns["step"][:] = step
    return table


def outer_rows(
    plan: Plan,
    chips: Chips,
    factors_due: bool,
    *,
    one_each: bool = False,
    repeats: bool = False,
) -> tuple[OpTable, OpTable]:
    """Return the rows before and after those of the SOI blocks, which are the same in all steps.

    Parameters are those of `step_ops`; the step is 0. With `one_each`, micro-batches are left out
    but the first of every chip that forms factors, and the first that does not: others do the same
    as one of them. A step that `repeats` passes as many samples forward once more.
    """
    wanted = plan.chip_mask(chips)
    runs = _Runs.of(plan, wanted, one_each)
    before = [
        *(_per_micro_batch(plan, runs, item) for item in _forward_ops(plan) if repeats),
        *(_per_micro_batch(plan, runs, item) for item in _layer_ops(plan)),
        *(_per_micro_batch(plan, runs, item) for item in _measuring_ops(plan)),
        *(_per_micro_batch(plan, runs.forming, item) for item in _soi_ops(plan) if factors_due),
        *_stage_sends(plan, runs, factors_due),
        *_exchange_rows(plan, wanted, factors_due),
    ]
    return concatenate(before), concatenate(_update_rows(plan, wanted))


# Micro-batches --------------------------------------------------------------------------------


@once_per_plan
def _placed(plan: Plan) -> PlacedLayers:
    return PlacedLayers(plan.layer_work, plan.allocation)


@once_per_plan
def _layer_ops(plan: Plan) -> list[LayerOp]:
    return training_ops(_placed(plan))


_FORWARD = (
    op.RELOAD_WEIGHTS,
    op.WRITE_OPERAND,
    op.VMM_FORWARD,
    op.ELEMENTWISE_FORWARD,
    op.LOSS,
)


def _forward_ops(plan: Plan) -> list[LayerOp]:
    """Return the operations of a forward pass alone."""
    return [item for item in _layer_ops(plan) if item.what in _FORWARD]


@once_per_plan
def _measuring_ops(plan: Plan) -> list[LayerOp]:
    measured = np.zeros(len(plan.layers), bool)
    measured[list(plan.measured_layers)] = True
    return [measuring_op(_placed(plan), measured)] if measured.any() else []


@once_per_plan
def _soi_ops(plan: Plan) -> list[LayerOp]:
    return soi_ops(_placed(plan))


@dataclasses.dataclass(frozen=True)
class _Runs:
    """Micro-batches, and chips that are looked at.

    Attributes
    ----------
    wanted : ndarray
        (chips,) bool.
    micro_batch, owner : ndarray
        Numbers of micro-batches, and the first chip of the replica that runs each.
    forms : ndarray
        Whether each forms factors when they are due.
    """

    wanted: np.ndarray
    micro_batch: np.ndarray
    owner: np.ndarray
    forms: np.ndarray

    @classmethod
    def of(cls, plan: Plan, wanted: np.ndarray, one_each: bool) -> "_Runs":
        owner, forms = np.asarray(plan.micro_batch_owner), plan.forms_factors
        micro_batch = np.arange(len(owner))
        if one_each:
            _, micro_batch = np.unique(2 * owner + forms, return_index=True)
        return cls(wanted, micro_batch, owner[micro_batch], forms[micro_batch])

    @property
    def forming(self) -> "_Runs":
        """The micro-batches that form factors."""
        return _Runs(
            self.wanted,
            self.micro_batch[self.forms],
            self.owner[self.forms],
            self.forms[self.forms],
        )

    def places(self, plan: Plan, layers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return chip, micro-batch and place in `layers` of everything that the chips run."""
        chip = np.add.outer(self.owner, plan.allocation.stage[layers])
        number, place = np.nonzero(self.wanted[chip])
        return chip[number, place], self.micro_batch[number], place


def _per_micro_batch(plan: Plan, runs: _Runs, item: LayerOp) -> OpTable:
    """Make a row per micro-batch and layer that does the operation."""
    layers = np.flatnonzero(item.layers)
    chip, micro_batch, place = runs.places(plan, layers)
    if not len(place):
        return concatenate([])
    layer = layers[place]
    columns = {name: values[layer] for name, values in item.counts.items()}
    bank = plan.allocation.first_bank[layer]
    return op_rows(item.what, chip=chip, bank=bank, layer=layer, micro_batch=micro_batch, **columns)


def _stage_sends(plan: Plan, runs: _Runs, factors_due: bool) -> list[OpTable]:
    """Return the messages between the chips of a pipeline of layers. Errors go back in every pass,
    those of the Fisher matrix together with those of the loss where a micro-batch forms factors.
    """
    last = np.flatnonzero(np.diff(plan.allocation.stage) > 0)
    passes = 1 + plan.work.fisher_passes * (plan.forms_factors & factors_due)
    return [
        *_sends(plan, runs, op.SEND_ACTIVATIONS, last, last, np.ones_like(passes)),
        *_sends(plan, runs, op.SEND_ERRORS, last + 1, last, passes),
    ]


def _sends(
    plan: Plan,
    runs: _Runs,
    what: Op,
    senders: np.ndarray,
    made_by: np.ndarray,
    times: np.ndarray,
) -> list[OpTable]:
    """Return the messages that layers send; those of a micro-batch are so many times as large as
    the output of a layer `made_by`.
    """
    chip, micro_batch, place = runs.places(plan, senders)
    if not len(place):
        return []
    samples, value_bytes = plan.work.micro_batch_size, plan.hardware.geometry.value_bytes
    size = times[micro_batch] * samples * plan.layers.outputs[made_by][place] * value_bytes
    network, chips = plan.hardware.interconnect, plan.work.chips
    different, which = np.unique(size, return_inverse=True)
    costs = [send(network, chips, float(one)) for one in different]
    row = op_rows(
        what,
        chip=chip,
        layer=senders[place],
        micro_batch=micro_batch,
        link_bytes=size,
        link_s=np.array([cost.time_s for cost in costs])[which],
        link_j=np.array([cost.energy_j for cost in costs])[which],
    )
    return [row]


# Exchanges and update -------------------------------------------------------------------------


def _exchange_rows(plan: Plan, wanted: np.ndarray, factors_due: bool) -> list[OpTable]:
    """Make a row per collective and chip; every chip takes part for its whole duration."""
    return [
        op_rows(
            what,
            chip=np.flatnonzero(wanted),
            link_bytes=round(cost.sent_bytes),
            link_s=cost.time_s,
            link_j=cost.energy_j / plan.work.chips,
        )
        for what, cost in exchanges(plan, factors_due).items()
    ]


def _update_rows(plan: Plan, wanted: np.ndarray) -> list[OpTable]:
    """Return the rows that clip, update and write weights; every chip updates what it holds."""
    layers, chips = plan.layers, np.flatnonzero(wanted)
    rows = []
    clipped = int(layers.parameters.sum()) if plan.work.clipped else 0
    # Squares of the mean gradient, added up.
    measured = int(layers.parameters[list(plan.measured_layers)].sum())
    if clipped or measured:
        of_clip, of_squares = (ceil_div(count, plan.work.chips) for count in (clipped, measured))
        share = np.full(len(chips), _CLIP_OPS * of_clip + of_squares)
        rows.append(_digital_row(plan, op.CLIP, chips, share))
    rows.append(_digital_row(plan, op.UPDATE, chips, _update_operations(plan)[chips]))
    return [*rows, *_nulling_rows(plan, chips), _weight_rows(plan, chips)]


def _update_operations(plan: Plan) -> np.ndarray:
    """Return the digital operations of updating what each chip holds, (chips,) int64."""
    layers, stage = plan.layers, plan.allocation.stage
    more = _MODEL_OPS if plan.work.damping_every else 0
    operations = layers.parameters * (plan.work.update_operations + more)
    for layer in matrix_layers(plan):
        spared = plan.work.update_operations - STEP_OPERATIONS
        operations[layer] -= spared * plan.workload.layers[layer].weight_count
    per_stage = np.bincount(stage, operations, plan.allocation.stages).astype(np.int64)
    return per_stage[np.arange(plan.work.chips) % plan.allocation.stages]


def _nulling_rows(plan: Plan, chips: np.ndarray) -> list[OpTable]:
    """Return the rows in which all converters of multiplying arrays measure their offsets: no row
    of an array is driven, all columns are converted.
    """
    chip = plan.hardware.chip
    own = chip.residual.adc
    passes, residual = chip.adc.nulling_passes, 0 if own is None else own.nulling_passes
    if not passes + residual:
        return []
    residual_arrays = 0 if own is None else chip.residual_arrays
    reads = (chip.vmm_arrays - residual_arrays) * passes
    residual_reads = residual_arrays * residual
    row = op_rows(
        op.NULL_OFFSETS,
        chip=chips,
        crossbar_reads=reads + residual_reads,
        adc_conversions=reads * chip.vmm.weight_columns,
        residual_adc_conversions=residual_reads * chip.vmm.pairs,
        serial_passes=passes,
        serial_residual_passes=residual,
    )
    return [row]


def _digital_row(plan: Plan, what: Op, chips: np.ndarray, operations: np.ndarray) -> OpTable:
    lanes = max(1, plan.hardware.chip.tiles * plan.hardware.chip.digital_lanes)
    return op_rows(
        what,
        chip=chips,
        digital_ops=operations,
        buffer_bytes=operations * plan.hardware.interconnect.element_bytes,
        serial_digital_ops=ceil_div(operations, lanes),
    )


def _weight_rows(plan: Plan, chips: np.ndarray) -> OpTable:
    """Return the rows that write the weights, with all copies, of each chip's resident layers."""
    arrays = plan.allocation
    kept = np.flatnonzero(plan.layers.weighted & plan.layers.trained & arrays.resident)
    which, place = np.nonzero(np.equal.outer(chips % arrays.stages, arrays.stage[kept]))
    if not len(place):
        return concatenate([])
    layer = kept[place]
    counts = weight_writes(plan.layer_work, arrays)
    columns = {name: values[layer] for name, values in counts.items()}
    bank = arrays.first_bank[layer]
    return op_rows(op.WRITE_WEIGHTS, chip=chips[which], bank=bank, layer=layer, **columns)

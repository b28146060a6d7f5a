"""Rows of the op table that belong to matrices which an optimizer updates as wholes, and who does.

Products on arrays write their operands into the arrays that hold no weights: those of the inputs,
which gradients have been formed from, and those that are not used. An operand that takes more of
them than there are is written part by part. Several copies of an operand share its input vectors:
for ``partition.objective=time`` as many as make the product of time and energy least, for
``energy`` the energy, and for ``lifetime`` one. A matrix that is inverted lies in inverting arrays,
its residual products in those without weights, and its copies, as many, share the columns of the
identity; matrices are inverted one after the other. In the digital unit all tiles share a product.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from repast_dist.analog.schemes.base import added
from repast_dist.ground.errors import CapacityError
from repast_dist.ground.numbers import ceil_div
from repast_dist.hardware.geometry import (
    Counts,
    array_count,
    bus_words,
    product_counts,
    with_buffers,
    write_counts,
)
from repast_dist.hardware.hardware import Hardware
from repast_dist.ops import op
from repast_dist.ops.op import Op
from repast_dist.ops.pricing import price
from repast_dist.ops.table import OpTable, concatenate, op_rows
from repast_dist.planning.block_costs import RANGING_DRIVES, program_counts, solve_counts
from repast_dist.planning.blocks import whole_layers
from repast_dist.planning.cholesky import LaneWork, factorisation, product, triangular_solves
from repast_dist.planning.plan import Chips, Plan, once_per_plan
from repast_dist.planning.solve_costs import one_block
from repast_dist.planning.solves import (
    BlockShapes,
    counted,
    modelled_preparations,
    modelled_solves,
)
from repast_dist.training.optimizers.matrix_unit import (
    Due,
    Inversion,
    MatrixWork,
    modelled_work,
)


@once_per_plan
def matrix_layers(plan: Plan) -> tuple[int, ...]:
    """Return the numbers of the layers whose weights are updated as whole matrices."""
    return whole_layers(plan.workload, plan.work.matrices)


@once_per_plan
def matrix_owners(plan: Plan) -> tuple[int, ...]:
    """Return the chip of each of these layers: the longest first, each to the chip that has least
    to do so far, of those that hold the layer.
    """
    stages, chips = plan.allocation.stages, np.arange(plan.work.chips)
    layers = matrix_layers(plan)
    seconds = np.array([_seconds(plan, layer) for layer in layers])
    owner, busy = [0] * len(layers), np.zeros(plan.work.chips)
    for place in np.argsort(-seconds, kind="stable").tolist():
        mine = chips[chips % stages == plan.allocation.stage[layers[place]]]
        chosen = int(mine[busy[mine].argmin()])
        owner[place] = chosen
        busy[chosen] += seconds[place]
    return tuple(owner)


def matrix_rows(
    plan: Plan,
    chips: Chips,
    due: Due,
    works: Mapping[str, MatrixWork] | None = None,
    *,
    ranging: bool = False,
) -> OpTable:
    """Return the rows of the matrices that chips own; the step is 0.

    Parameters
    ----------
    plan : Plan
        The plan of the step.
    chips : int, sequence of int or None
        The chips; None: all.
    due : Due
        What the step renews.
    works : mapping, optional
        Layer -> what was done; None: what its shape says.
    ranging : bool
        Whether converters have no ranges yet, which some vectors of every product then set.
    """
    wanted = plan.chip_mask(chips)
    rows = []
    for layer, owner in zip(matrix_layers(plan), matrix_owners(plan), strict=True):
        if wanted[owner]:
            if works is None:
                rows.append(_modelled(plan, layer, due, ranging=ranging).on(owner))
            else:
                work = works[plan.workload.layers[layer].name]
                rows.append(_rows(plan, layer, work, ranging=ranging).on(owner))
    return concatenate(rows)


def matrix_arrays(plan: Plan, due: Due) -> np.ndarray:
    """Return how many arrays each chip's matrices are written into in a step, (chips,)."""
    arrays = np.zeros(plan.work.chips)
    for layer, owner in zip(matrix_layers(plan), matrix_owners(plan), strict=True):
        work = _work(plan, layer, due)
        if work.operands:
            rows, columns, _ = np.array(work.operands, np.int64).T
            held = array_count(plan.hardware.geometry, rows, columns)
            arrays[owner] += int(held.sum()) * _copies(plan, layer, work)
        for one in work.inversions:
            shapes, copies = _inverted(plan, layer, one.size)
            arrays[owner] += int(shapes.product_arrays[0]) * copies
    return arrays


def inverting_arrays(plan: Plan, due: Due) -> np.ndarray:
    """Return how many inverting arrays the matrices of each chip are written into in a step,
    (chips,).
    """
    arrays = np.zeros(plan.work.chips)
    for layer, owner in zip(matrix_layers(plan), matrix_owners(plan), strict=True):
        for one in _work(plan, layer, due).inversions:
            shapes, copies = _inverted(plan, layer, one.size)
            arrays[owner] += int(shapes.inv_arrays[0]) * copies
    return arrays


def free_arrays(plan: Plan, stage: int) -> int:
    """Return the multiplying arrays of a stage's chips that hold no weights."""
    held = plan.allocation.written[plan.allocation.stage == stage].sum()
    return max(1, plan.allocation.budget.layers - int(held))


def kept_ranges(plan: Plan) -> int:
    """Return how many kinds of products converters keep ranges of, one per operand."""
    return sum(len(_work(plan, layer, Due()).operands) for layer in matrix_layers(plan))


def matrix_numbers(plan: Plan) -> np.ndarray:
    """Return how many numbers the matrices of each chip have, (chips,)."""
    numbers = np.zeros(plan.work.chips)
    for layer, owner in zip(matrix_layers(plan), matrix_owners(plan), strict=True):
        numbers[owner] += plan.workload.layers[layer].weight_count
    return numbers


@once_per_plan
def _work(plan: Plan, layer: int, due: Due) -> MatrixWork:
    assert plan.work.matrices is not None
    shape = plan.workload.layers[layer]
    return modelled_work(plan.work.matrices, shape.in_features, shape.out_features, due)


@dataclasses.dataclass(frozen=True)
class _OneMatrix:
    """The rows of one matrix, whoever owns it."""

    table: OpTable

    def on(self, chip: int) -> OpTable:
        columns = dict(self.table.columns)
        columns["chip"] = np.full(len(self.table), chip, np.int32)
        return OpTable(columns)


def _seconds(plan: Plan, layer: int) -> float:
    table = _modelled(plan, layer, Due()).table
    return float(price(table, plan.hardware.costs).duration_s.sum())


@once_per_plan
def _modelled(plan: Plan, layer: int, due: Due, *, ranging: bool = False) -> _OneMatrix:
    return _rows(plan, layer, _work(plan, layer, due), ranging=ranging)


def _rows(plan: Plan, layer: int, work: MatrixWork, *, ranging: bool) -> _OneMatrix:
    """Return the rows of one matrix: what its operands, products and sums take."""
    found: list[tuple[Op, Counts]] = []
    if work.operands:
        copies, room = _copies(plan, layer, work), _room(plan, layer)
        found += _on_arrays(plan.hardware, work, room, copies, ranging=ranging)
    if work.inversions:
        found += _inversions(plan, layer, work.inversions)
    if work.products or work.factored:
        found.append((op.MULTIPLY_MATRIX, _digital_products(plan.hardware, work)))
    if work.digital_ops:
        found.append((op.COMBINE_MATRIX, _combinations(plan.hardware, work)))
    parts = [op_rows(what, chip=0, layer=layer, **counts) for what, counts in found]
    return _OneMatrix(concatenate(parts))


def _room(plan: Plan, layer: int) -> int:
    return free_arrays(plan, int(plan.allocation.stage[layer]))


@once_per_plan
def _copies(plan: Plan, layer: int, work: MatrixWork) -> int:
    """Return how many copies of its operands a matrix has."""
    partition, hardware = plan.policy.partition, plan.hardware
    if not partition.replicate_layers or partition.objective == "lifetime":
        return 1
    room = _room(plan, layer)
    rows, columns, _ = np.array(work.operands, np.int64).T
    most = room // int(array_count(hardware.geometry, rows, columns).max())
    best, least = 1, np.inf
    for copies in (2**power for power in range(max(1, most).bit_length())):
        parts = _on_arrays(hardware, work, room, copies, ranging=False)
        table = concatenate([op_rows(what, chip=0, **counts) for what, counts in parts])
        value = _goal(plan, table)
        if value < least:
            best, least = copies, value
    return best


def _on_arrays(
    hardware: Hardware, work: MatrixWork, room: int, copies: int, *, ranging: bool
) -> list[tuple[Op, Counts]]:
    """Return the counts of writing operands and of multiplying by them, one after the other."""
    chip, g = hardware.chip, hardware.geometry
    rows, columns, vectors = np.array(work.operands, np.int64).T
    at_once = chip.banks * chip.written_arrays_per_bank
    writes = write_counts(g, rows, columns, 1, at_once, copies)
    if ranging:
        vectors = vectors + RANGING_DRIVES * np.minimum(vectors, g.counted_vectors)
    driven = product_counts(g, vectors, rows, columns, copies=copies)
    fillings = ceil_div(array_count(g, rows, columns), room)
    driven["serial_passes"] = driven["serial_passes"] * fillings
    products = with_buffers(driven, chip, chip.banks)
    return [(op.WRITE_MATRIX, _summed(writes)), (op.VMM_MATRIX, _summed(products))]


@once_per_plan
def _inverted(plan: Plan, layer: int, size: int) -> tuple[BlockShapes, int]:
    """Return the shapes of a matrix that is inverted, and its copies.

    Raises
    ------
    CapacityError
        There is no room for one.
    """
    hardware, room = plan.hardware, _room(plan, layer)
    chip = hardware.chip
    shapes = one_block(size, size, plan.hardware, plan.policy.inversion)
    per_bank = min(chip.residual.arrays_per_bank, room // chip.banks)
    shapes = dataclasses.replace(shapes, products_per_bank=max(1, per_bank))
    inverting, multiplying = int(shapes.inv_arrays[0]), int(shapes.product_arrays[0])
    most = [size]
    if inverting:
        most.append(chip.inv_arrays // inverting)
    if multiplying:
        most.append(room // multiplying)
    if not min(most):
        raise CapacityError(
            f"a root of {size} rows takes {multiplying:,} arrays for residual products and chip "
            f"'{chip.name}' has {room:,} without weights; valid: optimizer.roots=newton, or fewer "
            "inversion.product_bits"
        )
    partition = plan.policy.partition
    if not partition.replicate_layers or partition.objective == "lifetime":
        return shapes, 1
    counts = _expected(plan, shapes)

    def value(copies: int) -> float:
        number = np.array([copies])
        parts = [
            op_rows(op.PROGRAM_ROOT, chip=0, **program_counts(shapes, counts, number, hardware)),
            op_rows(op.SOLVE_ROOT, chip=0, **solve_counts(shapes, counts, number, hardware)),
        ]
        return _goal(plan, concatenate(parts))

    return shapes, min((2**power for power in range(min(most).bit_length())), key=value)


def _goal(plan: Plan, table: OpTable) -> float:
    """Return what copies are to make least: the energy of rows that follow each other, or its
    product with their time.
    """
    costs = price(table, plan.hardware.costs)
    seconds, joules = float(costs.duration_s.sum()), float(costs.energy_j.sum())
    energy = joules + float(plan.hardware.costs.static_w) * seconds
    return energy * seconds if plan.policy.partition.objective == "time" else energy


def _inversions(plan: Plan, layer: int, inversions: Sequence[Inversion]) -> list[tuple[Op, Counts]]:
    """Return the counts of writing matrices and of solving with them, one after the other."""
    programming, solving = [], []
    for one in inversions:
        shapes, number = _inverted(plan, layer, one.size)
        copies = np.array([number])
        counts = _expected(plan, shapes) if one.counts is None else counted({0: one.counts}, 1)
        programming.append(program_counts(shapes, counts, copies, plan.hardware))
        solving.append(solve_counts(shapes, counts, copies, plan.hardware))
    return [(op.PROGRAM_ROOT, _added(programming)), (op.SOLVE_ROOT, _added(solving))]


def _expected(plan: Plan, shapes: BlockShapes) -> Counts:
    scheme, hardware, rounds = plan.policy.inversion, plan.hardware, plan.policy.assumed_rounds
    return added(
        modelled_solves(shapes, scheme, hardware, rounds),
        modelled_preparations(shapes, scheme, hardware, rounds),
    )


def _added(counts: Sequence[Counts]) -> Counts:
    whole = [{name: np.broadcast_to(held, 1) for name, held in one.items()} for one in counts]
    return added(*whole)


def _summed(counts: Counts) -> Counts:
    return {name: np.sum(values, keepdims=True).reshape(-1) for name, values in counts.items()}


def _digital_products(hardware: Hardware, work: MatrixWork) -> Counts:
    chip = hardware.chip
    lanes = max(1, chip.digital_lanes)
    done = [product(*shape, lanes, chip.tiles) for shape in work.products]
    for size in work.factored:
        done.append(factorisation(size, lanes, chip.tiles))
        done.append(triangular_solves(size, size, lanes, chip.tiles))
    total = sum(done[1:], start=done[0])
    return _lane_counts(hardware, total)


def _combinations(hardware: Hardware, work: MatrixWork) -> Counts:
    chip = hardware.chip
    lanes = max(1, chip.digital_lanes * chip.tiles)
    clocks = ceil_div(work.digital_ops, lanes)
    return _lane_counts(hardware, LaneWork(work.digital_ops, clocks, work.moved))


def _lane_counts(hardware: Hardware, work: LaneWork) -> Counts:
    chip = hardware.chip
    moved = work.words * hardware.geometry.value_bytes
    values: Sequence[tuple[str, int]] = (
        ("digital_ops", work.operations),
        ("buffer_bytes", moved),
        ("serial_digital_ops", work.clocks),
        ("serial_buffer_words", bus_words(moved, chip.tiles * chip.bus_bits)),
    )
    return {name: np.array([value], np.int64) for name, value in values}

"""Computes the average cost of a training step without a trace: time, energy, and their parts.

Chips that do the same work are priced once. There are few kinds of replicas of a network, with and
without one more micro-batch, and one more that forms factors, so a summary of thousands of chips
prices the rows of these replicas and the SOI rows of all chips. The steps of an interval differ
only in whether factors and inverses are due, so three kinds of steps and their frequencies stand
for a run of any length.
"""

import dataclasses

import numpy as np

from repast_dist.ops.op import OP_NAMES, OPS, Segment
from repast_dist.ops.pricing import Costs
from repast_dist.ops.table import OpTable, concatenate
from repast_dist.planning.block_ops import block_rows
from repast_dist.planning.matrix_ops import matrix_rows
from repast_dist.planning.ops import outer_rows
from repast_dist.planning.plan import Plan, once_per_plan
from repast_dist.planning.specs import StepKind, step_kinds
from repast_dist.planning.timeline import Placement, place
from repast_dist.planning.wear import Wear, cell_writes
from repast_dist.trace.schema import PHASES
from repast_dist.training.optimizers.matrix_unit import Due

_TITLES = [segment.title for segment in Segment]
_COMPUTES = np.array([op.segment is Segment.COMPUTE for op in OPS])
_OF_BLOCKS = np.array([segment.of_blocks for segment in Segment])
_IS_OF_BLOCKS = np.array([op.segment.of_blocks for op in OPS])
_COMMON = {op.segment for op in OPS if not op.collective and not op.segment.of_blocks}
_IS_COMMON = np.array([segment in _COMMON for segment in Segment])
"""Segments in which chips work by themselves, on the same as all of their kind."""


@dataclasses.dataclass(frozen=True)
class StepSummary:
    """Averages over the steps of one SOI interval.

    Attributes
    ----------
    step_s, energy_j : float
        Time of a step, and energy of all chips together.
    samples : int
        Samples per step.
    segment_s : dict
        Title of a segment -> time it adds to a step.
    phase_energy_j : dict
        Phase -> energy; static energy is divided in proportion to the dynamic energy of the phases.
    phase_busy_s : dict
        Phase -> time of its rows, summed over chips; rows may overlap.
    op_busy_s : dict
        Operation -> time of its rows, summed over chips.
    layer_busy_s : ndarray
        (layers,) time of each layer's rows in the segment in which layers work side by side,
        summed over chips.
    static_energy_j : float
        Part of `energy_j` that does not depend on what the chips do.
    chip_busy_s : ndarray
        (chips,) time per step that a chip works, without exchanging and waiting for others.
    soi_work_s : ndarray
        (chips,) modelled time of the work on SOI blocks per step.
    link_bytes : float
        Bytes that the busiest chip sends per step.
    cell_writes : float
        Cells written per step, all chips together.
    wear : Wear
        Writes per cell and step, and what they leave of the cells' life.
    peak_power_w : float
        Peak power of all chips.
    rows : int
        Rows of op tables that were priced.
    """

    step_s: float
    energy_j: float
    samples: int
    segment_s: dict[str, float]
    phase_energy_j: dict[str, float]
    phase_busy_s: dict[str, float]
    op_busy_s: dict[str, float]
    layer_busy_s: np.ndarray
    static_energy_j: float
    chip_busy_s: np.ndarray
    soi_work_s: np.ndarray
    link_bytes: float
    cell_writes: float
    wear: Wear
    peak_power_w: float
    rows: int

    @property
    def samples_per_s(self) -> float:
        """Samples per second."""
        return self.samples / self.step_s

    @property
    def energy_per_sample_j(self) -> float:
        """Energy per sample."""
        return self.energy_j / self.samples

    @property
    def utilisation(self) -> float:
        """Mean share of a step in which a chip works, as pages of runs have it."""
        return float(self.chip_busy_s.mean() / self.step_s)

    @property
    def limiting_segment(self) -> str:
        """Title of the segment that takes longest."""
        return max(self.segment_s, key=lambda name: self.segment_s[name])


def summarise(plan: Plan) -> StepSummary:
    """Return the cost of the average step of a plan.

    Parameters
    ----------
    plan : Plan
        The plan.
    """
    kinds = step_kinds(plan.work, plan.policy.soi)
    shares = np.array([kind.share for kind in kinds])
    chips, weights = _representatives(plan)
    costed = [_cost(plan, chips, weights, kind) for kind in kinds]
    segments = shares @ np.array([item.segment_s for item in costed])
    step_s = float(segments.sum())
    dynamic = shares @ np.array([item.phase_energy_j for item in costed])
    static = plan.hardware.costs.static_w * plan.work.chips * step_s
    phase_energy = dynamic * (1.0 + static / max(float(dynamic.sum()), 1e-300))
    return StepSummary(
        step_s=step_s,
        energy_j=float(dynamic.sum()) + static,
        samples=plan.work.batch_size,
        segment_s=dict(zip(_TITLES, segments.tolist(), strict=True)),
        phase_energy_j=dict(zip(PHASES, phase_energy.tolist(), strict=True)),
        phase_busy_s=dict(
            zip(PHASES, (shares @ [c.phase_busy_s for c in costed]).tolist(), strict=True)
        ),
        op_busy_s=dict(
            zip(OP_NAMES, (shares @ [c.op_busy_s for c in costed]).tolist(), strict=True)
        ),
        layer_busy_s=shares @ np.array([item.layer_busy_s for item in costed]),
        static_energy_j=static,
        chip_busy_s=shares @ np.array([item.chip_busy_s for item in costed]),
        soi_work_s=np.bincount(plan.holdings.chip, plan.held_costs.per_step_s, plan.work.chips)
        / plan.chip_speeds
        if plan.blocks
        else np.zeros(plan.work.chips),
        link_bytes=float(shares @ [item.link_bytes for item in costed]),
        cell_writes=float(shares @ [item.cell_writes for item in costed]),
        wear=Wear(cell_writes(plan), plan.hardware.costs.endurance, step_s),
        peak_power_w=plan.work.chips * plan.hardware.peak_power_w,
        rows=sum(item.rows for item in costed),
    )


def _representatives(plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """Return chips that represent all others, except in SOI work, and how many each represents."""
    first, kind = _kinds_of_replicas(plan)
    stages = plan.allocation.stages
    chips = (first[:, None] * stages + np.arange(stages)).ravel()
    return chips, np.repeat(np.bincount(kind), stages)


@once_per_plan
def _kinds_of_replicas(plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """Return the first replica of each kind, which have as many micro-batches as each other and
    chips of the same speeds, and the kind of every replica.
    """
    speeds = plan.chip_speeds[: plan.replicas * plan.allocation.stages]
    alike = np.column_stack([_micro_batches_of_replicas(plan), speeds.reshape(plan.replicas, -1)])
    _, first, kind = np.unique(alike, axis=0, return_index=True, return_inverse=True)
    return first, kind.reshape(-1)


@dataclasses.dataclass(frozen=True)
class _StepCost:
    """The cost of one step of a kind. Energies, times of phases and writes are of all chips."""

    segment_s: np.ndarray
    phase_energy_j: np.ndarray
    phase_busy_s: np.ndarray
    op_busy_s: np.ndarray
    layer_busy_s: np.ndarray
    chip_busy_s: np.ndarray
    link_bytes: float
    cell_writes: float
    rows: int


def _cost(plan: Plan, chips: np.ndarray, weights: np.ndarray, kind: StepKind) -> _StepCost:
    """Return the cost of a step, from the rows of chips that each stand for so many others."""
    before, after = _outer_rows(
        plan, tuple(chips.tolist()), factors_due=kind.factors_due, repeats=kind.repeats
    )
    blocks = block_rows(plan, None, kind.factors_due, inverses_due=kind.inverses_due)
    matrices = matrix_rows(plan, None, Due(kind.factors_due, kind.inverses_due))
    table, costs = _joined(before, _priced(plan, blocks), _priced(plan, matrices), after)
    times = _micro_batches(plan, table)
    placed = place(plan, table, costs.duration_s, stands_for=times)
    counted = _row_weights(plan, table, chips, weights) * times
    phase = table["phase"]
    return _StepCost(
        segment_s=placed.segment_seconds,
        phase_energy_j=np.bincount(phase, costs.energy_j * counted, len(PHASES)),
        phase_busy_s=np.bincount(phase, costs.duration_s * counted, len(PHASES)),
        op_busy_s=np.bincount(table["op"], costs.duration_s * counted, len(OPS)),
        layer_busy_s=_of_layers(plan, table, costs.duration_s * counted),
        chip_busy_s=_busy(plan, placed),
        link_bytes=float(
            np.bincount(table["chip"], table["link_bytes"] * times, plan.work.chips).max(
                initial=0.0
            )
        ),
        cell_writes=float(table["cell_writes"] @ counted),
        rows=len(table),
    )


type _Priced = tuple[OpTable, Costs]
"""Rows, of which only the columns are kept that a summary still reads, and what they cost."""

_READ = (
    "chip",
    "bank",
    "phase",
    "op",
    "layer",
    "block",
    "micro_batch",
    "link_bytes",
    "cell_writes",
)


def _priced(plan: Plan, table: OpTable) -> _Priced:
    columns = {name: table.columns[name] for name in _READ if name in table.columns}
    return OpTable(columns), plan.price(table)


def _joined(*parts: _Priced) -> _Priced:
    """Return the rows of several tables, in order."""
    tables, costs = zip(*parts, strict=True)
    return concatenate(tables), Costs(
        np.concatenate([part.duration_s for part in costs]),
        np.concatenate([part.energy_j for part in costs]),
    )


def _of_layers(plan: Plan, table: OpTable, busy_s: np.ndarray) -> np.ndarray:
    """Return the time of each layer's rows in the first segment, (layers,)."""
    mine = _COMPUTES[table["op"]] & (table["layer"] >= 0)
    layers = len(plan.workload.layers)
    return np.bincount(table["layer"][mine].astype(np.int64), busy_s[mine], layers)


@once_per_plan
def _outer_rows(
    plan: Plan, chips: tuple[int, ...], *, factors_due: bool, repeats: bool
) -> tuple[_Priced, _Priced]:
    """Return the rows before and after those of blocks, of one micro-batch of every chip that forms
    factors and one that does not.
    """
    due = factors_due and plan.work.second_order
    before, after = outer_rows(plan, chips, due, one_each=True, repeats=repeats)
    return _priced(plan, before), _priced(plan, after)


def _micro_batches(plan: Plan, table: OpTable) -> np.ndarray:
    """Return how many micro-batches each row stands for, (rows,): those of its chip that form
    factors as its own does, or do not as its own does not; or one.
    """
    replica = table["chip"].astype(np.int64) // plan.allocation.stages
    forms = plan.forms_factors[table["micro_batch"]].astype(np.int64)
    counted = _micro_batches_of_replicas(plan)[replica, forms]
    return np.where(table["micro_batch"] >= 0, counted, 1)


@once_per_plan
def _micro_batches_of_replicas(plan: Plan) -> np.ndarray:
    """Return how many micro-batches of each replica form no factors, and how many do,
    (replicas, 2).
    """
    replica = np.asarray(plan.micro_batch_owner, np.int64) // plan.allocation.stages
    counts = np.bincount(2 * replica + plan.forms_factors, minlength=2 * plan.replicas)
    return counts.reshape(-1, 2)


def _row_weights(plan: Plan, table: OpTable, chips: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return how many chips each row stands for; 1 for SOI blocks and matrices, whose rows are all
    there.
    """
    stands_for = np.zeros(plan.work.chips)
    stands_for[chips] = weights
    return np.where(_IS_OF_BLOCKS[table["op"]], 1.0, stands_for[table["chip"]])


def _busy(plan: Plan, placed: Placement) -> np.ndarray:
    """Return the busy time per chip; every chip has that of its representative, except for SOI
    blocks.
    """
    first, kind = _kinds_of_replicas(plan)
    stages = plan.allocation.stages
    source = (first[kind][:, None] * stages + np.arange(stages)).ravel()
    common: np.ndarray = placed.chip_seconds[source][:, _IS_COMMON].sum(axis=1)
    busy: np.ndarray = common + placed.chip_seconds[:, _OF_BLOCKS].sum(axis=1)
    # A chip that does several steps at once is busy once.
    return np.minimum(busy, placed.step_s) if plan.delays.any() else busy

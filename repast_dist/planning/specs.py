"""Holds the settings of a plan: SOI blocks, the division of work among chips, and the step."""

import dataclasses
import math
from collections import Counter
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt

from repast_dist.analog.schemes.base import Scheme
from repast_dist.ground.numbers import Count, PositiveInt, ceil_div, some_of
from repast_dist.ground.spec import spec
from repast_dist.training.optimizers import Side
from repast_dist.training.optimizers.matrix_unit import MatrixMethod


@spec
class FactorWidth:
    """The widest block of one factor.

    Attributes
    ----------
    layer : str
        Name of the layer.
    factor : {"A", "G"}
        A: of the layer's inputs. G: of the gradients of its outputs.
    block_size : int
        Widest diagonal block.
    """

    layer: str
    factor: Side
    block_size: PositiveInt


@spec
class SoiSpec:
    """How Kronecker factors are cut into SOI blocks, and how often those are renewed.

    Attributes
    ----------
    block_size : int
        Widest diagonal block of a factor; wider factors are split into nearly equal blocks.
    widths : tuple of FactorWidth
        Factors whose widest block is another, such as ``study=blocks`` finds them.
    interval : int
        Steps between inversions.
    factor_interval : int
        Steps between updates of the running averages.
    factor_micro_batches : float
        Share of a step's micro-batches that form factors, rounded up; the others have no passes for
        the Fisher matrix either. They are spread evenly over the step, micro-batch 0 among them.
    factor_positions : float
        Share of the input vectors of a micro-batch, and of the errors that belong to them, that
        form the factors of a layer with several vectors per sample (``expand``), rounded up per
        sample. They are drawn anew in every step, and written into the arrays of inputs before the
        others. Vectors that are combined before they form factors all count.
    factor_bits : int or None
        Bits, sign included, of the inputs that drive arrays when factors are formed, by analog or
        fixed-point products, which take as many passes as these have; None: as of all others.
    fusion : {"off", "auto", "on"}
        Whether the inverting arrays of a block hold its activations (or errors) instead of their
        product (the factor); ``auto`` chooses the faster way for every block, ``on`` fuses all that
        fit.
    fused_left_out : float
        Weight in the running average, at most, of batches that a fused block no longer holds. It
        holds the rows of as many of the last batches as that takes; with the running average's
        decay d, of k batches it leaves out d^k.
    fused_rest : {"scaled", "identity"}
        What stands in a fused block for batches that it no longer holds. ``scaled``: the rows of
        those it holds, scaled up. ``identity``: a multiple of the identity of the same trace.
    stale : int
        Steps that still use the old inverses while new ones are prepared beside them, in arrays of
        their own; at most `interval`. 0: steps wait for them, as the first step does in any case.
    renewal_change : float
        When inversions are due, a block is programmed anew only if it has changed by so much since
        it was: the Frobenius norm of the difference over that of the old block, both with rows and
        columns over the roots of the old diagonal. Measuring it takes four digital operations per
        entry. 0: every block. Fused blocks are always renewed, and those that take turns in arrays
        are written in every step.
    keep_levels : bool
        Whether cells of residual products that hold their level already get no pulse when a block
        is written anew. The digital unit compares old and new values. Inverting cells, whose
        errors change with what deflation leaves, are always written.
    residual_to_noise : float
        Largest residual of a solve, as a share of the noise of its layer's gradient: when a block
        is written, its target is as many bits as that takes, from 2 to ``inversion.target_bits``.
        Noise is measured from what the gradients of micro-batches and of batches are long
        (`training.gradient_noise`). Plans count all bits. 0: ``inversion.target_bits`` for all.
    right_sides_at_once : int
        Most right-hand sides of a block that are solved together; further ones are solved after
        them, or on other chips (``partition.grad_worker_fraction``).
    assumed_iterations : int or None
        Rounds of the inversion scheme that a cost-only run counts per right-hand side. None: one
        for every two bits of the target, which is what ``fcg`` needs with 1 % programming noise in
        8-bit cells: 7 to 8 rounds to 16 bits for 256-wide blocks of a trained network at any
        damping (``study=precision``, docs/inversion.md).
    """

    block_size: PositiveInt = 256
    widths: tuple[FactorWidth, ...] = ()
    interval: PositiveInt = 1
    factor_interval: PositiveInt = 1
    factor_micro_batches: Annotated[float, Gt(0), Le(1)] = 1.0
    factor_positions: Annotated[float, Gt(0), Le(1)] = 1.0
    factor_bits: Annotated[int, Ge(2), Le(32)] | None = None
    fusion: Literal["off", "auto", "on"] = "off"
    fused_left_out: Annotated[float, Gt(0), Lt(1)] = 0.05
    fused_rest: Literal["scaled", "identity"] = "scaled"
    stale: Count = 0
    renewal_change: Annotated[float, Ge(0)] = 0.0
    keep_levels: bool = False
    residual_to_noise: Annotated[float, Ge(0)] = 0.0
    right_sides_at_once: PositiveInt = 256
    assumed_iterations: PositiveInt | None = None

    def __post_init__(self) -> None:
        twice = Counter((width.layer, width.factor) for width in self.widths)
        for (layer, factor), count in twice.items():
            if count > 1:
                raise ValueError(
                    f"widths names factor {factor} of layer '{layer}' {count} times; valid: once"
                )
        if self.interval % self.factor_interval:
            raise ValueError(
                f"interval={self.interval} is no multiple of "
                f"factor_interval={self.factor_interval}; valid: a multiple, so that inversions "
                "see fresh factors"
            )
        if self.stale > self.interval:
            raise ValueError(
                f"stale={self.stale} exceeds interval={self.interval}; valid: at most that, so "
                "that inverses are used before the next ones come"
            )

        if self.keep_levels and self.stale:
            raise ValueError(
                f"keep_levels=True with stale={self.stale}: new inverses are written into arrays "
                "that hold those before the last; valid: stale=0, or keep_levels=False"
            )

    def factors_due(self, step: int) -> bool:
        """Whether a step updates the running averages."""
        return step % self.factor_interval == 0

    def forming(self, micro_batches: int) -> int:
        """Return how many of so many micro-batches form factors."""
        return some_of(self.factor_micro_batches, micro_batches)

    def forms_factors(self, number: int, micro_batches: int) -> bool:
        """Return whether one of so many micro-batches forms factors when they are due."""
        forming = self.forming(micro_batches)
        return number * forming % micro_batches < forming

    def factor_share(self, micro_batches: int) -> float:
        """Return the share of the micro-batches of all steps that form factors, given those of a
        step.
        """
        return self.forming(micro_batches) / micro_batches / self.factor_interval

    @property
    def array_sets(self) -> int:
        """Sets of arrays per block: new inverses are prepared beside the old ones in a second."""
        return 2 if self.stale else 1

    def inverses_due(self, step: int) -> bool:
        """Whether a step programs the blocks again."""
        return step % self.interval == 0

    def held_batches(self, decay: float) -> int:
        """Return the batches whose rows a fused block holds.

        Parameters
        ----------
        decay : float
            Weight of the old average in later updates.
        """
        if decay <= 0:
            return 1
        if decay >= 1:
            return _MOST_BATCHES
        batches = math.log(self.fused_left_out) / math.log(decay)
        return max(1, min(math.ceil(batches - _ROUNDING), _MOST_BATCHES))


_ROUNDING = 1e-9
_MOST_BATCHES = 10**6
"""Of an average that forgets nothing: more than any array holds."""


@spec
class PartitionSpec:
    """How the work and the arrays are divided among chips.

    Attributes
    ----------
    blocks : {"lpt", "capacity", "round_robin", "layer", "owner"}
        How SOI blocks get their owners. ``lpt``: longest processing time first, by modelled cost.
        ``capacity``: the most demanding block first, each to a chip whose arrays still hold it.
        ``round_robin``: to the chips in turn. ``layer``: all blocks of a factor to one chip, by
        cost n^3, as K-FAC libraries place whole layers. ``owner``: all blocks to chip 0.
    grad_worker_fraction : float
        Fraction of the chips that hold the solver of a block and divide its right-hand sides among
        them; 0: only its owner, 1: all chips. With more chips, solves are faster, but more is
        programmed, stored and exchanged.
    micro_batches : {"contiguous", "round_robin"}
        How micro-batches get their owners: consecutive ones to the same chip, or to the chips in
        turn.
    layers : {"replicate", "pipeline", "auto"}
        ``replicate``: every chip holds all layers. ``pipeline``: layers are spread over chips.
        ``auto``: they are spread over as few chips as can hold the network.
    overflow : {"reload", "error"}
        What happens if a chip cannot hold its layers: those that do not fit are written again for
        every micro-batch, or the plan is refused.
    replicate_layers : bool
        Whether layers with many vectors per sample are copied into arrays that would be idle.
    objective : {"time", "energy", "lifetime"}
        What the arrays of a chip are divided for among its layers: the shortest step, the least
        energy, or the most steps until the first cells reach their endurance, and the shortest step
        of those plans. It decides which weights stay, how often they are copied, and how many
        arrays hold activations; all share what SOI blocks leave, which keep at most
        ``chip.residual.arrays_per_bank`` for residual products. A first-order plan keeps none.
    pipelining : bool
        Whether samples follow each other through the layers; otherwise one layer works at a time.
    overlap_exchange : bool
        Whether gradients and factors are exchanged as soon as the backward pass has finished a
        layer. The part of the exchange that overlaps adds no time to a step; that of the first
        layer, which comes last, never overlaps.
    stages_in_flight : int
        Stages of layers through which micro-batches pass without a break between steps, whichever
        chips hold them. Stage s of S (0 to S - 1) computes a step of M micro-batches with weights
        that are ceil(2 (S - 1 - s) / M) steps older than the newest. 1: what is under way is
        completed at the end of every step, so that all weights are the newest.
    update_delay : int
        Steps that all layers go on with older weights while an update is made: gradients
        exchanged, solved with and applied. 0: the next step waits for them.
    idle_chips : {"none", "auto"}
        Chips that are switched off for the whole run: they do nothing, take no power, exchange
        nothing with the others and keep their area. ``none``: all chips work. ``auto``: the first
        ones work, as many as are best by `objective` of at most ten numbers that are planned
        (`planning.idle`); what chips exchange may cost more than further ones save.
    """

    blocks: Literal["lpt", "capacity", "round_robin", "layer", "owner"] = "lpt"
    grad_worker_fraction: Annotated[float, Ge(0), Le(1)] = 0.0
    micro_batches: Literal["contiguous", "round_robin"] = "contiguous"
    layers: Literal["replicate", "pipeline", "auto"] = "replicate"
    overflow: Literal["reload", "error"] = "reload"
    replicate_layers: bool = True
    objective: Literal["time", "energy", "lifetime"] = "time"
    pipelining: bool = True
    overlap_exchange: bool = False
    stages_in_flight: PositiveInt = 1
    update_delay: Count = 0
    idle_chips: Literal["none", "auto"] = "none"

    def __post_init__(self) -> None:
        if self.stages_in_flight > 1 and not self.pipelining:
            raise ValueError(
                f"stages_in_flight={self.stages_in_flight} with pipelining=False: one layer works "
                "at a time; valid: 1, or pipelining=True"
            )
        if self.idle_chips != "none" and self.layers != "replicate":
            raise ValueError(
                f"idle_chips={self.idle_chips} with layers={self.layers}: how many chips hold the "
                "network follows from what divides their number; valid: idle_chips=none, or "
                "layers=replicate"
            )


@dataclasses.dataclass(frozen=True)
class Policy:
    """How second-order information is kept, spread over chips and solved with.

    Attributes
    ----------
    soi : SoiSpec
        Blocks, and when they are renewed.
    partition : PartitionSpec
        Who does what.
    inversion : Scheme
        Inversion scheme that solves with the blocks.
    """

    soi: SoiSpec
    partition: PartitionSpec
    inversion: Scheme

    @property
    def assumed_rounds(self) -> int:
        """Rounds per right-hand side where nothing is solved."""
        return self.soi.assumed_iterations or ceil_div(self.inversion.target_bits, _BITS_A_ROUND)


_BITS_A_ROUND = 2
"""Bits that a round of ``fcg`` brings with 1 % programming noise."""


@dataclasses.dataclass(frozen=True)
class StepWork:
    """The work of one training step, and the chips at hand.

    Attributes
    ----------
    chips : int
        Chips that work.
    micro_batches, micro_batch_size : int
        Micro-batches per step, and samples in each.
    sides : tuple of str
        Kronecker factors, "A" and "G", that have SOI blocks; empty: a first-order method.
    fisher_passes : int
        Extra backward passes when factors are due: 1 for sampled labels, 0 for the empirical
        Fisher, the number of classes for the exact one.
    decay : float
        Weight of the old running average in later updates; 0: factors are those of one batch.
    fusible : bool
        Whether factors are products of rows that arrays may hold instead.
    speeds : tuple of float
        Relative speed of every chip, for farms of unequal chips; empty: all the same. Not used
        where layers are spread over chips.
    update_operations : int
        Digital operations of an update per parameter.
    clips : bool
        Whether solved gradients are scaled by a norm that all chips agree on.
    damping_every : int
        Steps after which the damping is adapted, for which the samples of a step pass forward once
        more in the next; 0: it stays as it is.
    matrices : MatrixMethod or None
        What updates whole matrices on chips that own them; None: nothing does.
    idle : int
        Further chips of the machine, which are switched off.
    """

    chips: int
    micro_batches: int
    micro_batch_size: int
    sides: tuple[str, ...] = ("A", "G")
    fisher_passes: int = 1
    decay: float = 0.0
    fusible: bool = True
    speeds: tuple[float, ...] = ()
    update_operations: int = 3
    clips: bool = True
    damping_every: int = 0
    matrices: MatrixMethod | None = None
    idle: int = 0

    @property
    def machine_chips(self) -> int:
        """Chips of the machine, at work or not."""
        return self.chips + self.idle

    @property
    def renews(self) -> bool:
        """Whether steps differ in what they renew."""
        return self.second_order or (self.matrices is not None and self.matrices.renews)

    def repeats_samples(self, step: int) -> bool:
        """Return whether a step begins with the samples of the one before, for the damping."""
        return self.damping_every > 0 and step > 0 and (step - 1) % self.damping_every == 0

    @property
    def second_order(self) -> bool:
        """Whether SOI blocks are kept."""
        return bool(self.sides)

    @property
    def clipped(self) -> bool:
        """Whether solved gradients are scaled by a common norm."""
        return self.second_order and self.clips

    @property
    def batch_size(self) -> int:
        """Samples per step."""
        return self.micro_batches * self.micro_batch_size


@dataclasses.dataclass(frozen=True)
class StepKind:
    """Steps in which the same things are due.

    Attributes
    ----------
    factors_due, inverses_due : bool
        Whether they update the running averages, and whether they program the blocks.
    share : float
        Their share of all steps.
    repeats : bool
        Whether they pass the samples of the step before forward once more.
    """

    factors_due: bool
    inverses_due: bool
    share: float
    repeats: bool = False


def step_kinds(work: StepWork, soi: SoiSpec) -> list[StepKind]:
    """Return the kinds of steps that occur, which stand for a run of any length."""
    if not work.renews:
        return [StepKind(False, False, 1.0)]
    every, factors = soi.interval, soi.factor_interval
    kinds = [
        StepKind(True, True, 1 / every),
        StepKind(True, False, 1 / factors - 1 / every),
        StepKind(False, False, 1 - 1 / factors),
    ]
    if work.damping_every:
        return _repeating_kinds(work, soi)
    return [kind for kind in kinds if kind.share > 0]


def _repeating_kinds(work: StepWork, soi: SoiSpec) -> list[StepKind]:
    period = math.lcm(soi.interval, work.damping_every)
    # The very first step has nothing to repeat.
    counts = Counter(
        (soi.factors_due(step), soi.inverses_due(step), work.repeats_samples(step))
        for step in range(period, 2 * period)
    )
    return [
        StepKind(factors, inverses, count / period, repeats)
        for (factors, inverses, repeats), count in counts.items()
    ]

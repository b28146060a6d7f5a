"""Settings of the mapping: SOI blocks, who does what, and the two together with the inversion."""

import dataclasses
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt

from repast_dist.analog.schemes.base import Scheme
from repast_dist.ground.numbers import PositiveInt
from repast_dist.ground.spec import spec

Share = Annotated[float, Gt(0), Lt(1)]


@spec
class SoiSpec:
    """How second-order information is blocked and how often it is renewed.

    Attributes
    ----------
    block_size : int
        Widest diagonal block of a factor; wider factors are split into nearly equal blocks.
    interval : int
        Steps between inversions.
    factor_interval : int
        Steps between updates of the running averages.
    fusion : {"off", "auto", "on"}
        Whether a block's activations sit in the inverting loop instead of its product; ``auto``
        decides per block by cost. Fused blocks keep no running average.
    stale : bool
        New inverses are prepared while the next steps run with the old ones.
    right_sides_at_once : int
        Right-hand sides of a block that are solved together; more are solved one lot after the
        other, or on several chips (``partition.grad_worker_fraction``).
    assumed_iterations : int
        Rounds of the inversion scheme a cost-only run counts per right-hand side. The default is
        what ``fcg`` takes with 1 % programming noise in 8-bit cells: 7 to 8 on 256-wide blocks of
        a trained network at any damping (``study=precision``, docs/inversion.md).
    """

    block_size: PositiveInt = 256
    interval: PositiveInt = 1
    factor_interval: PositiveInt = 1
    fusion: Literal["off", "auto", "on"] = "off"
    stale: bool = False
    right_sides_at_once: PositiveInt = 256
    assumed_iterations: PositiveInt = 8

    def __post_init__(self) -> None:
        if self.interval % self.factor_interval:
            raise ValueError(
                f"interval={self.interval} is no multiple of "
                f"factor_interval={self.factor_interval}; valid: a multiple, so that inversions "
                "see fresh factors"
            )

    def factors_due(self, step: int) -> bool:
        """Whether a step updates the running averages."""
        return step % self.factor_interval == 0

    @property
    def array_sets(self) -> int:
        """Sets of arrays per block: new inverses are prepared beside the old ones in a second."""
        return 2 if self.stale else 1

    def inverses_due(self, step: int) -> bool:
        """Whether a step programs the blocks anew."""
        return step % self.interval == 0


@spec
class PartitionSpec:
    """Who does what.

    Attributes
    ----------
    blocks : {"lpt", "capacity", "round_robin", "layer", "owner"}
        Owners of SOI blocks: longest processing time first by modelled cost; the most demanding
        first to chips whose arrays still hold the block; in turn; all blocks of a factor on one
        chip (as K-FAC libraries place whole layers, by cost n^3); or every block on chip 0.
    grad_worker_fraction : float
        Share of the chips that hold a block's solver and share its right-hand sides; 0: its owner
        alone, 1: all chips. More chips solve faster, and program, store and exchange more.
    micro_batches : {"contiguous", "round_robin"}
        Owners of micro-batches.
    layers : {"replicate", "pipeline", "auto"}
        Every chip holds all layers, or layers are spread over chips; ``auto`` spreads them over
        as few chips as hold the network.
    overflow : {"reload", "error"}
        What happens when a chip cannot hold its layers: the rest is written anew for every
        micro-batch, or the plan is refused.
    replicate_layers : bool
        Copy layers of many vectors per sample into arrays that would be idle.
    activation_share : float
        Share of the multiplying arrays kept for activations (gradients and factors). Weights get
        what this and ``chip.residual.arrays_per_bank`` leave; a first-order plan keeps no arrays
        for residual products.
    pipelining : bool
        Samples flow through the layers one behind the other; otherwise one layer works at a time.
    overlap_exchange : bool
        Exchange gradients while the backward pass drains: what it hides adds no time to a step;
        the first layer's gradient comes last and is always waited for.
    """

    blocks: Literal["lpt", "capacity", "round_robin", "layer", "owner"] = "lpt"
    grad_worker_fraction: Annotated[float, Ge(0), Le(1)] = 0.0
    micro_batches: Literal["contiguous", "round_robin"] = "contiguous"
    layers: Literal["replicate", "pipeline", "auto"] = "replicate"
    overflow: Literal["reload", "error"] = "reload"
    replicate_layers: bool = True
    activation_share: Share = 0.25
    pipelining: bool = True
    overlap_exchange: bool = False


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
        How blocks are solved with.
    """

    soi: SoiSpec
    partition: PartitionSpec
    inversion: Scheme


@dataclasses.dataclass(frozen=True)
class StepWork:
    """The work of one training step, and the chips at hand.

    Attributes
    ----------
    chips : int
        Chips at work.
    micro_batches, micro_batch_size : int
        Per step, and samples in each.
    sides : tuple of str
        Sides of a gradient, "A" and "G", that SOI blocks are kept of; empty: first order.
    fisher_passes : int
        Extra backward passes when factors are due: 1 for sampled labels, 0 for the empirical
        Fisher, the number of classes for the exact one.
    speeds : tuple of float
        Relative speed of every chip, for farms of unequal chips; empty: all the same. Not used
        where layers are spread over chips.
    """

    chips: int
    micro_batches: int
    micro_batch_size: int
    sides: tuple[str, ...] = ("A", "G")
    fisher_passes: int = 1
    speeds: tuple[float, ...] = ()

    @property
    def second_order(self) -> bool:
        """Whether SOI blocks are kept."""
        return bool(self.sides)

    @property
    def batch_size(self) -> int:
        """Samples per step."""
        return self.micro_batches * self.micro_batch_size

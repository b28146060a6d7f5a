"""Declares every operation of a training step once: its phase, its place in a step, what it uses.

A row of the op table stands for one operation; its ``op`` column is the operation's place in
`OPS`. Code that needs a property of operations (the timeline, the average step, the Chakra export)
reads it from here.
"""

import dataclasses
import enum
from functools import cached_property

from repast_dist.trace.schema import PHASES, Phase


class Segment(enum.Enum):
    """A part of a step, in order; it starts when every chip has finished the previous part.

    Attributes
    ----------
    title : str
        Name on pages and in records.
    of_blocks : bool
        Whether it works on SOI blocks or matrices, which differ from chip to chip.
    number : int
        Place in the step.
    """

    COMPUTE = ("compute",)
    REDUCE_GRADIENTS = ("reduce gradients",)
    REDUCE_FACTORS = ("reduce factors",)
    RENEW_AND_SOLVE_G = ("renew and solve G", True)
    EXCHANGE_GRADIENTS = ("exchange gradients",)
    SOLVE_A = ("solve A", True)
    EXCHANGE_SOLVED = ("exchange solved",)
    UPDATE_MATRICES = ("update matrices", True)
    CLIP = ("clip",)
    GATHER_UPDATES = ("gather updates",)
    UPDATE = ("update",)
    WRITE_WEIGHTS = ("write weights",)

    def __init__(self, title: str, of_blocks: bool = False) -> None:
        self.title, self.of_blocks = title, of_blocks
        self.number = len(type(self).__members__)


class Resource(enum.IntEnum):
    """What an operation of the first segment keeps busy while samples pass through the layers."""

    WEIGHT_ARRAYS = 0
    ACTIVATION_ARRAYS = 1
    DIGITAL = 2
    LINKS = 3


class Collective(enum.Enum):
    """A collective that all chips take part in."""

    REDUCE_SCATTER = "reduce-scatter"
    ALL_TO_ALL = "all-to-all"
    ALL_REDUCE = "all-reduce"
    ALL_GATHER = "all-gather"


@dataclasses.dataclass(frozen=True)
class Op:
    """One operation.

    Attributes
    ----------
    name : str
        Name in the trace.
    phase : Phase
        Phase of training that it belongs to.
    segment : Segment
        Part of a step in which it runs.
    resource : Resource
        What it keeps busy in the first segment; operations of other segments wait for their bank.
    backward : bool
        Whether it runs in a layer's backward stage instead of its forward stage.
    collective : Collective or None
        Collective that all chips take part in; None: each chip works alone.
    renewal : bool
        Whether it renews a SOI block, which ``soi.stale`` does while later steps run.
    """

    name: str
    phase: Phase
    segment: Segment
    resource: Resource = Resource.WEIGHT_ARRAYS
    backward: bool = False
    collective: Collective | None = None
    renewal: bool = False

    @cached_property
    def number(self) -> int:
        """Place in `OPS`, which is the operation's code in tables and traces."""
        return OPS.index(self)

    @cached_property
    def phase_number(self) -> int:
        """Place of the operation's phase in `trace.schema.PHASES`."""
        return PHASES.index(self.phase)


# Samples flow through the layers.
RELOAD_WEIGHTS = Op("reload_weights", Phase.PROGRAM, Segment.COMPUTE)
WRITE_OPERAND = Op("write_operand", Phase.PROGRAM, Segment.COMPUTE)
VMM_FORWARD = Op("vmm_forward", Phase.FORWARD, Segment.COMPUTE)
ELEMENTWISE_FORWARD = Op("elementwise_forward", Phase.FORWARD, Segment.COMPUTE, Resource.DIGITAL)
LOSS = Op("loss", Phase.FORWARD, Segment.COMPUTE, Resource.DIGITAL)
WRITE_ACTIVATIONS = Op(
    "write_activations", Phase.PROGRAM, Segment.COMPUTE, Resource.ACTIVATION_ARRAYS
)
SEND_ACTIVATIONS = Op("send_activations", Phase.COMMUNICATE, Segment.COMPUTE, Resource.LINKS)
VMM_BACKWARD = Op("vmm_backward", Phase.BACKWARD, Segment.COMPUTE, backward=True)
ELEMENTWISE_BACKWARD = Op(
    "elementwise_backward", Phase.BACKWARD, Segment.COMPUTE, Resource.DIGITAL, backward=True
)
VMM_GRADIENT = Op(
    "vmm_gradient", Phase.BACKWARD, Segment.COMPUTE, Resource.ACTIVATION_ARRAYS, backward=True
)
MEASURE_GRADIENT = Op(
    "measure_gradient", Phase.INVERSION, Segment.COMPUTE, Resource.DIGITAL, backward=True
)
SEND_ERRORS = Op("send_errors", Phase.COMMUNICATE, Segment.COMPUTE, Resource.LINKS, backward=True)

# Factors are formed from what flows.
LOSS_FISHER = Op("loss_fisher", Phase.SOI, Segment.COMPUTE, Resource.DIGITAL, backward=True)
VMM_FISHER = Op("vmm_fisher", Phase.SOI, Segment.COMPUTE, backward=True)
ELEMENTWISE_FISHER = Op(
    "elementwise_fisher", Phase.SOI, Segment.COMPUTE, Resource.DIGITAL, backward=True
)
OPERAND_FISHER = Op(
    "operand_fisher", Phase.SOI, Segment.COMPUTE, Resource.ACTIVATION_ARRAYS, backward=True
)
WRITE_MEANS = Op(
    "write_means", Phase.PROGRAM, Segment.COMPUTE, Resource.ACTIVATION_ARRAYS, backward=True
)
FACTOR_A = Op("factor_a", Phase.SOI, Segment.COMPUTE, Resource.ACTIVATION_ARRAYS, backward=True)
WRITE_ERRORS = Op(
    "write_errors", Phase.PROGRAM, Segment.COMPUTE, Resource.ACTIVATION_ARRAYS, backward=True
)
FACTOR_G = Op("factor_g", Phase.SOI, Segment.COMPUTE, Resource.ACTIVATION_ARRAYS, backward=True)

# Gradients and factors go to their owners, who solve.
REDUCE_GRADIENTS = Op(
    "reduce_gradients",
    Phase.COMMUNICATE,
    Segment.REDUCE_GRADIENTS,
    collective=Collective.REDUCE_SCATTER,
)
REDUCE_FACTORS = Op(
    "reduce_factors",
    Phase.COMMUNICATE,
    Segment.REDUCE_FACTORS,
    collective=Collective.REDUCE_SCATTER,
)
AVERAGE_FACTOR = Op("average_factor", Phase.SOI, Segment.RENEW_AND_SOLVE_G, renewal=True)
KEEP_ROWS = Op("keep_rows", Phase.SOI, Segment.RENEW_AND_SOLVE_G, renewal=True)
PROGRAM_BLOCK = Op("program_block", Phase.PROGRAM, Segment.RENEW_AND_SOLVE_G, renewal=True)
SOLVE_G = Op("solve_g", Phase.INVERSION, Segment.RENEW_AND_SOLVE_G)
EXCHANGE_GRADIENTS = Op(
    "exchange_gradients",
    Phase.COMMUNICATE,
    Segment.EXCHANGE_GRADIENTS,
    collective=Collective.ALL_TO_ALL,
)
SOLVE_A = Op("solve_a", Phase.INVERSION, Segment.SOLVE_A)

# Owners of whole matrices find their directions, of methods that solve first from what was solved.
EXCHANGE_SOLVED = Op(
    "exchange_solved",
    Phase.COMMUNICATE,
    Segment.EXCHANGE_SOLVED,
    collective=Collective.ALL_TO_ALL,
)
WRITE_MATRIX = Op("write_matrix", Phase.PROGRAM, Segment.UPDATE_MATRICES)
VMM_MATRIX = Op("vmm_matrix", Phase.PRECONDITION, Segment.UPDATE_MATRICES)
PROGRAM_ROOT = Op("program_root", Phase.PROGRAM, Segment.UPDATE_MATRICES)
SOLVE_ROOT = Op("solve_root", Phase.INVERSION, Segment.UPDATE_MATRICES)
MULTIPLY_MATRIX = Op("multiply_matrix", Phase.PRECONDITION, Segment.UPDATE_MATRICES)
COMBINE_MATRIX = Op("combine_matrix", Phase.PRECONDITION, Segment.UPDATE_MATRICES)

# Everybody updates what it holds.
CLIP = Op("clip", Phase.PRECONDITION, Segment.CLIP)
REDUCE_SCALAR = Op(
    "reduce_scalar", Phase.COMMUNICATE, Segment.GATHER_UPDATES, collective=Collective.ALL_REDUCE
)
GATHER_UPDATES = Op(
    "gather_updates", Phase.COMMUNICATE, Segment.GATHER_UPDATES, collective=Collective.ALL_GATHER
)
UPDATE = Op("update", Phase.UPDATE, Segment.UPDATE)
NULL_OFFSETS = Op("null_offsets", Phase.UPDATE, Segment.UPDATE)
WRITE_WEIGHTS = Op("write_weights", Phase.PROGRAM, Segment.WRITE_WEIGHTS)

OPS = tuple(item for item in list(globals().values()) if isinstance(item, Op))
"""All operations declared above; a row's ``op`` is an index into them."""

OP_NAMES = tuple(item.name for item in OPS)
"""Names of all operations, as traces hold them."""

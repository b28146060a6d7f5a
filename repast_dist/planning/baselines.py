"""Models training steps on the machines RePAST is compared with: a GPU, and PipeLayer's peaks."""

from typing import Annotated, Literal

from annotated_types import Gt
from pydantic import Discriminator

from repast_dist.ground.spec import spec
from repast_dist.hardware.components import Quantity
from repast_dist.network.shapes import Workload
from repast_dist.planning.gpu import BaselineStep, GpuSpec, plain_value
from repast_dist.trace.schema import Phase


@spec
class PipeLayerSpec:
    """The published peak figures of PipeLayer, which trains with first-order methods only.

    Attributes
    ----------
    name : str
        Name in tables.
    operations_per_s_per_m2, operations_per_joule : Quantity
        Published peaks; a multiply-accumulate is two operations.
    area_m2 : Quantity
        Area of the chip.
    utilisation : Quantity
        Share of the peak rate that it reaches.
    """

    kind: Literal["pipelayer"] = "pipelayer"
    name: str
    operations_per_s_per_m2: Quantity
    operations_per_joule: Quantity
    area_m2: Quantity
    utilisation: Quantity


BaselineSpec = Annotated[GpuSpec | PipeLayerSpec, Discriminator("kind")]


@spec
class EpochsSpec:
    """Epochs until a network reaches its target, from cited results.

    Attributes
    ----------
    first_order, second_order : float
        Epochs.
    source : str
        Where the numbers come from.
    confidence : {"A", "B", "C"}
        As of `Quantity`.
    """

    first_order: Annotated[float, Gt(0)]
    second_order: Annotated[float, Gt(0)]
    source: str
    confidence: Literal["A", "B", "C"]


def pipelayer_step(machine: PipeLayerSpec, workload: Workload, samples: int) -> BaselineStep:
    """Return a first-order training step on PipeLayer. Its forward pass, errors and gradients take
    equally many operations, at the published rate and energy per operation.
    """
    operations = 2.0 * workload.macs_per_sample * samples
    rate = plain_value(machine.operations_per_s_per_m2) * plain_value(machine.area_m2)
    rate *= plain_value(machine.utilisation)
    phases = {
        Phase.FORWARD.value: operations / rate,
        Phase.BACKWARD.value: 2 * operations / rate,
    }
    return BaselineStep(phases, 3 * operations / plain_value(machine.operations_per_joule), samples)

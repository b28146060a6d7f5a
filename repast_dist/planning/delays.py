"""How old the weights are that layers compute a step with.

With ``partition.stages_in_flight=S``, the layers are S stages, and micro-batches follow each other
through them without a break between steps. Micro-batch k is in stage s (0 to S - 1) forward in slot
k + s and backward in slot k + 2 (S - 1) - s. So the last micro-batch of a step goes back through
stage s 2 (S - 1 - s) - 1 slots after the first of the next step has entered it, and of M
micro-batches per step, stage s goes on with weights d = ceil(2 (S - 1 - s) / M) steps older than
the newest. All micro-batches of a step meet the same weights, forward and backward: weights are
written between the last one of a step and the first one of the next, transposes between these two
on their way back. With ``partition.update_delay``, all layers go on for so many more steps, while
an update is made.

Delays follow from settings alone, not from the number of chips nor from how long anything takes;
what is not there in time is waited for (`planning.timeline`).
"""

from collections.abc import Iterable

import numpy as np

from repast_dist.ground.errors import SettingsError
from repast_dist.ground.numbers import ceil_div
from repast_dist.network.shapes import Workload
from repast_dist.planning.specs import PartitionSpec


def layer_delays(workload: Workload, partition: PartitionSpec, micro_batches: int) -> np.ndarray:
    """Return by how many steps the weights of each layer are older than the newest, (layers,).

    Parameters
    ----------
    workload : Workload
        The network. Its layers with trained weights are divided evenly among the stages; the
        others belong to the one before them.
    partition : PartitionSpec
        Stages, and the delay of all layers.
    micro_batches : int
        Micro-batches of a step.

    Raises
    ------
    SettingsError
        There are more stages than layers with weights.
    """
    stages = partition.stages_in_flight
    weighted = np.array([layer.has_weights and layer.trained for layer in workload.layers])
    layers = int(weighted.sum())
    if stages > max(layers, 1):
        raise SettingsError(
            f"partition.stages_in_flight={stages}: {workload.name} has {layers} layers with "
            f"weights; valid: at most {max(layers, 1)}"
        )
    place = np.maximum(np.cumsum(weighted) - 1, 0)
    stage = place * stages // max(layers, 1)
    behind = 2 * (stages - 1 - stage)
    delays: np.ndarray = partition.update_delay + ceil_div(behind, micro_batches)
    return delays.astype(np.int64)


def parameter_delays(
    names: Iterable[str], workload: Workload, delays: np.ndarray
) -> dict[str, int]:
    """Return name of what is trained -> delay of its layer, in order of use; what is no layer of
    the workload has that of what comes before it, or of the first layer.
    """
    of_layer = {
        layer.name: delay for layer, delay in zip(workload.layers, delays.tolist(), strict=True)
    }
    found: dict[str, int] = {}
    last = int(delays[0])
    for name in names:
        last = found[name] = of_layer.get(name, last)
    return found

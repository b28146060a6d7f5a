"""The damping of every SOI block, worked out alike on every worker.

Only traces of the factors decide how damping is split between a layer's A and G, and traces add up
like the factors do. So every worker gets the traces of all blocks along with the sums it reduces,
and none has to ask another.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from repast_dist.mapping.blocks import SoiBlock
from repast_dist.training.kfac import average_decay, damping_split
from repast_dist.training.specs import OptimizerSpec
from repast_dist.training.step import FactorKey


def block_traces(blocks: Sequence[SoiBlock], factors: Mapping[FactorKey, np.ndarray]) -> np.ndarray:
    """Return the traces of the blocks, (blocks,) float64.

    Parameters
    ----------
    blocks : sequence of SoiBlock
        All blocks of the plan.
    factors : mapping
        (layer, "A" or "G") -> (n, n) float64.
    """
    diagonals = {key: np.ascontiguousarray(factor.diagonal()) for key, factor in factors.items()}
    return np.array(
        [
            diagonals[block.layer_name, block.factor][block.start : block.stop].sum()
            for block in blocks
        ]
    )


class BlockDamping:
    """Running averages of the blocks' traces.

    Parameters
    ----------
    blocks : sequence of SoiBlock
        All blocks of the plan.
    optimizer : OptimizerSpec
        Damping, how it is split, and the limit of the averages' decay.
    """

    def __init__(self, blocks: Sequence[SoiBlock], optimizer: OptimizerSpec) -> None:
        self._blocks, self._optimizer = blocks, optimizer
        self._traces = np.zeros(len(blocks))
        self._updates = 0

    def add(self, traces: np.ndarray) -> None:
        """Take the traces of a batch's factors, (blocks,), into the averages."""
        self._updates += 1
        decay = average_decay(self._updates, self._optimizer.factor_decay)
        self._traces = decay * self._traces + (1.0 - decay) * traces

    def of_blocks(self) -> np.ndarray:
        """Return the damping of every block, (blocks,); pi weighs a layer's whole factors."""
        sums: dict[tuple[int, str], list[float]] = {}
        for block, trace in zip(self._blocks, self._traces.tolist(), strict=True):
            entry = sums.setdefault((block.layer, block.factor), [0.0, 0.0])
            entry[0] += trace
            entry[1] += block.size
        damping = []
        for block in self._blocks:
            (trace_a, size_a), (trace_g, size_g) = (sums[block.layer, f] for f in ("A", "G"))
            for_a, for_g = damping_split(
                self._optimizer.damping_form,
                self._optimizer.damping,
                trace_a,
                int(size_a),
                trace_g,
                int(size_g),
            )
            damping.append(for_a if block.factor == "A" else for_g)
        return np.array(damping)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all that is needed to go on."""
        return {"traces": self._traces, "updates": np.array(self._updates)}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Go on from `arrays`; without them, from the beginning."""
        self._traces = np.array(arrays.get("traces", np.zeros(len(self._blocks))))
        self._updates = int(arrays.get("updates", 0))

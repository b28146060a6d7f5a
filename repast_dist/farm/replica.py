"""Every worker keeps a copy of the weights and of the optimizer's state, and updates both.

All workers apply the same update to the same numbers, so weights never travel during training.
"""

import zlib
from collections.abc import Mapping

import numpy as np

from repast_dist.farm.exchange import Area
from repast_dist.farm.setup import FarmSetup
from repast_dist.ground.errors import DataError
from repast_dist.training.optimizers import Update
from repast_dist.training.second_order import under


class Replica:
    """The copy of the weights and of the optimizer's state on one worker.

    Parameters
    ----------
    setup : FarmSetup
        Settings and model.
    total_steps : int
        Steps of the run, for the learning rate's schedule.

    Attributes
    ----------
    weights : dict
        Layer -> (in[+1], out) float32.
    """

    def __init__(self, setup: FarmSetup, total_steps: int) -> None:
        job, model = setup.job, setup.model
        self._optimizer = job.optimizer
        self._total_steps = total_steps
        self._biased = frozenset(p.name for p in model.parameters if p.bias)
        second = job.optimizer.second_order
        preconditioned = {p.name for p in model.preconditioned} if second else set()
        all_needed = second is not None and second.needs_gradients
        self.needed = frozenset(
            p.name for p in model.parameters if all_needed or p.name not in preconditioned
        )
        self.weights: dict[str, np.ndarray] = {}
        self._state: dict[str, np.ndarray] = {}

    def update(
        self,
        step: int,
        gradients: Mapping[Area, np.ndarray],
        directions: Mapping[Area, np.ndarray],
    ) -> None:
        """Update the weights and the optimizer's state for one step.

        Parameters
        ----------
        step : int
            The training step.
        gradients : mapping
            Area -> mean gradient, for the layers in `needed`.
        directions : mapping
            Area -> preconditioned gradient, for the layers that have SOI blocks.

        Raises
        ------
        DataError
            A layer's weights are no longer finite.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            weights, state = self._optimizer.update(
                Update(
                    self.weights,
                    self._assembled(gradients),
                    self._assembled(directions),
                    self._state,
                    step,
                    self._total_steps,
                    self._biased,
                )
            )
        for name, value in weights.items():
            if not np.isfinite(value).all():
                raise DataError(
                    f"step {step}, layer {name}: the update is not finite, training diverged; a "
                    "smaller optimizer.learning_rate or more optimizer.damping may help"
                )
        self.weights, self._state = weights, state

    def checksum(self) -> int:
        """Return a CRC-32 of all weights."""
        value = 0
        for name in sorted(self.weights):
            value = zlib.crc32(np.ascontiguousarray(self.weights[name]), value)
        return value

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the state to be saved, under the names ``weights/...`` and ``optimizer/...``."""
        weights = {f"weights/{name}": value for name, value in self.weights.items()}
        return weights | {f"optimizer/{name}": value for name, value in self._state.items()}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Load what `arrays` returned; other names are ignored."""
        self.weights = under("weights", arrays)
        self._state = under("optimizer", arrays)

    def _assembled(self, areas: Mapping[Area, np.ndarray]) -> dict[str, np.ndarray]:
        whole: dict[str, np.ndarray] = {}
        for layer, top, bottom, left, right in sorted(areas):
            held = whole.setdefault(layer, np.empty(self.weights[layer].shape))
            held[top:bottom, left:right] = areas[layer, top, bottom, left, right]
        return whole

"""Every worker keeps a copy of the weights and of the optimizer's state, and updates both.

All workers apply the same update to the same numbers, so weights never travel during training.
"""

import zlib
from collections.abc import Mapping

import numpy as np

from repast_dist.farm.exchange import Area, common, within
from repast_dist.farm.setup import FarmSetup
from repast_dist.ground.errors import DataError
from repast_dist.training.optimizers import Update
from repast_dist.training.second_order import under

_DELAYED = "delayed"


class Replica:
    """The copy of the weights and of the optimizer's state on one worker.

    Parameters
    ----------
    setup : FarmSetup
        Settings and network.
    total_steps : int
        Steps of the run, for the learning rate's schedule.

    Attributes
    ----------
    weights : dict
        Layer -> (in[+1], out), float32 as a rule.
    running : dict
        Name -> numbers that training changes otherwise, such as running means.
    squares : dict
        Layer -> squared norm of the last mean gradient, where its noise is measured.
    """

    def __init__(self, setup: FarmSetup, total_steps: int) -> None:
        job, network = setup.job, setup.network
        self._optimizer, self._network = job.optimizer, network
        self._total_steps = total_steps
        self._biased = frozenset(p.name for p in network.parameters if p.bias)
        second = job.optimizer.second_order
        solved = setup.preconditioned | frozenset(setup.matrix_owners)
        self._measured = setup.measured
        all_needed = second is not None and (second.needs_gradients or bool(self._measured))
        self._needed = frozenset(
            p.name for p in network.parameters if all_needed or p.name not in solved
        ) | frozenset(network.running)
        # Biases of whole matrices are updated as everything else is.
        self._biases: dict[str, Area] = {
            p.name: (p.name, p.rows - 1, p.rows, 0, p.columns)
            for p in network.parameters
            if p.bias and p.name in setup.matrix_owners
        }
        self.weights: dict[str, np.ndarray] = {}
        self.running: dict[str, np.ndarray] = {}
        self._state: dict[str, np.ndarray] = {}
        self.squares: dict[str, float] = {}
        self._delays = setup.delays
        self._older: list[dict[str, np.ndarray]] = []

    def needed(self, gradients: Mapping[Area, np.ndarray]) -> dict[Area, np.ndarray]:
        """Return what of mean gradients `update` reads."""
        found = {}
        for area, values in gradients.items():
            if area[0] in self._needed:
                found[area] = values
            elif area[0] in self._biases:
                part = common(area, self._biases[area[0]])
                if part is not None:
                    found[part] = values[within(part, area)]
        return found

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
            Area -> mean gradient, as `needed` says; running values have their new ones in its
            place.
        directions : mapping
            Area -> preconditioned gradient, for the layers that have SOI blocks or are updated as
            whole matrices.

        Raises
        ------
        DataError
            A layer's weights are no longer finite.
        """
        means = self._assembled(gradients)
        self.squares = {name: float(np.vdot(means[name], means[name])) for name in self._measured}
        running = {
            name: _in_type(means.pop(name), held.dtype) for name, held in self.running.items()
        }
        with np.errstate(over="ignore", invalid="ignore"):
            weights, state = self._optimizer.update(
                Update(
                    self.weights,
                    means,
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
        self._keep_older()
        self.weights, self.running, self._state = weights, running, state

    @property
    def predicted(self) -> float:
        """What the last update's model predicts that the loss changes by."""
        return float(self._state["predicted/loss"][0, 0])

    def _keep_older(self) -> None:
        """Make the weights those before the newest."""
        versions = [self.weights, *self._older]
        self._older = [
            {name: held[name] for name in held if self._delays[name] > age}
            for age, held in enumerate(versions)
        ]
        self._older = [held for held in self._older if held]

    @property
    def used(self) -> dict[str, np.ndarray]:
        """What the next step computes with: of each weight the version that its delay says, or the
        first if there are not yet so many; and running values.
        """
        versions = [self.weights, *self._older]
        found = {}
        for name, delay in self._delays.items():
            met = [held[name] for held in versions[: delay + 1] if name in held]
            found[name] = met[-1]
        return found | self.running

    @property
    def values(self) -> dict[str, np.ndarray]:
        """Weights and running values."""
        return self.weights | self.running

    def checksum(self) -> int:
        """Return a CRC-32 of all values."""
        value, held = 0, self.values
        for name in sorted(held):
            value = zlib.crc32(np.ascontiguousarray(held[name]), value)
        return value

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the state to be saved: the network's own, and ``optimizer/...``."""
        network = self._network.to_state(self.values)
        older = {
            f"{_DELAYED}/{age}/{name}": value
            for age, held in enumerate(self._older, start=1)
            for name, value in held.items()
        }
        state = {f"optimizer/{name}": value for name, value in self._state.items()}
        return network | state | older

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Load what `arrays` returned; other names are ignored."""
        values = self._network.from_state(arrays)
        self.running = {name: values.pop(name) for name in self._network.running}
        self.weights = values
        self._state = under("optimizer", arrays)
        self._older = []
        while older := under(f"{_DELAYED}/{len(self._older) + 1}", arrays):
            self._older.append(older)

    def _assembled(self, areas: Mapping[Area, np.ndarray]) -> dict[str, np.ndarray]:
        whole: dict[str, np.ndarray] = {}
        for layer, top, bottom, left, right in sorted(areas):
            held = whole.setdefault(layer, np.zeros(self._shape(layer)))
            held[top:bottom, left:right] = areas[layer, top, bottom, left, right]
        return whole

    def _shape(self, name: str) -> tuple[int, ...]:
        return (self.weights[name] if name in self.weights else self.running[name]).shape


def _in_type(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return values in another type; whole numbers are the nearest."""
    return (np.rint(values) if dtype.kind in "iu" else values).astype(dtype)

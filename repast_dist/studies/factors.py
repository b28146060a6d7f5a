"""Kronecker factors from real training: a short exact run stores them with its gradients."""

import dataclasses

import numpy as np

from repast_dist.analog import SCHEMES
from repast_dist.ground.errors import DataError, SettingsError
from repast_dist.planning.blocks import soi_blocks
from repast_dist.planning.specs import SoiSpec
from repast_dist.studies.settings import RunSettings
from repast_dist.training.block_state import BlockState
from repast_dist.training.datasets import Dataset, DataSource
from repast_dist.training.engines import Engine, make_engine
from repast_dist.training.models import ModelSource
from repast_dist.training.network import FactorKey, FactorsAsked, MicroBatch, Network, Values
from repast_dist.training.optimizers import Optimizer, SecondOrder, Side, Update
from repast_dist.training.sampling import micro_batch_samples, total_steps
from repast_dist.training.second_order import Preconditioner
from repast_dist.training.specs import EngineSpec, TrainSpec

_INTERVAL = 5
_WHOLE = 2**31
"""Block size that leaves every factor whole."""


@dataclasses.dataclass(frozen=True)
class Factor:
    """A factor of one layer at the end of a run.

    Attributes
    ----------
    layer : str
        Name of the layer.
    kind : {"A", "G"}
        Of its inputs, or of its output gradients.
    matrix : ndarray
        (n, n) float64 running average, without damping.
    sizes : dict
        Side -> trace and width of the layer's matrices, which decide the damping.
    gradient : ndarray
        (n, r) float64: the last step's gradient, seen from the factor's side.
    """

    layer: str
    kind: Side
    matrix: np.ndarray
    sizes: dict[Side, tuple[float, int]]
    gradient: np.ndarray

    def damping(self, optimizer: SecondOrder) -> float:
        """Return what an optimizer adds to the diagonal."""
        return optimizer.dampings(self.sizes)[self.kind]


def capture_factors(
    source: ModelSource,
    dataset: DataSource,
    optimizer: Optimizer,
    train: TrainSpec,
    steps: int,
    seed: int,
) -> list[Factor]:
    """Train `steps` steps in float64 and return the matrices it ends with.

    Inverses are renewed every fifth step; samples, labels of the sampled Fisher and initial
    weights are those of ``study=train`` with the same seed.

    Raises
    ------
    SettingsError
        The optimizer has no factors.
    """
    second = second_order_of(optimizer)
    data = dataset.load()
    network = source.build(lambda: data, seed, train.micro_batch_size)
    network.check(data)
    engine = make_engine(
        EngineSpec(
            forward="float64",
            backward="float64",
            gradient="float64",
            factor="float64",
            inverse="float64",
        ),
        seed,
    )
    values = network.initial()
    running = {name: values.pop(name) for name in network.running}
    state = optimizer.initial_state(values)
    biased = frozenset(p.name for p in network.parameters if p.bias)
    blocks = soi_blocks(network.workload, _WHOLE, second.sides)
    held = {(0, b.index): BlockState(b, 0, engine, SCHEMES.load({}), second) for b in blocks}
    preconditioner = Preconditioner(optimizer, blocks, SoiSpec(interval=_INTERVAL), held)
    gradients: dict[str, np.ndarray] = {}
    total = total_steps(len(data.train_inputs), train)
    for step in range(steps):
        gradients, fresh = _batch(
            network, engine, values | running, data, second, train, step, seed
        )
        running = {name: gradients.pop(name).astype(running[name].dtype) for name in running}
        preconditioner.add(
            preconditioner.traces(fresh), {b.index: fresh[b.layer_name, b.factor] for b in blocks}
        )
        if preconditioner.programs(step):
            preconditioner.program(step)
        directions, _ = preconditioner.directions(step, gradients)
        values, state = optimizer.update(
            Update(values, gradients, directions, state, step, total, biased)
        )
    averages: dict[str, dict[Side, np.ndarray]] = {b.layer_name: {} for b in blocks}
    for block in blocks:
        averages[block.layer_name][block.factor] = held[0, block.index].average
    return [
        Factor(
            layer,
            side,
            matrix,
            {key: (float(np.trace(value)), len(value)) for key, value in sides.items()},
            gradients[layer] if side == "A" else gradients[layer].T,
        )
        for layer, sides in averages.items()
        for side, matrix in sides.items()
    ]


def factors_of(settings: RunSettings, steps: int) -> list[Factor]:
    """Train `steps` steps of what the settings train, and return the matrices it ends with.

    Raises
    ------
    SettingsError
        The optimizer has no factors.
    DataError
        No layer of the model has.
    """
    factors = capture_factors(
        settings.model,
        settings.dataset,
        settings.optimizer,
        settings.train,
        steps,
        settings.seed,
    )
    if not factors:
        raise DataError(f"model {settings.model.name}: no layer has Kronecker factors")
    return factors


def second_order_of(optimizer: Optimizer) -> SecondOrder:
    """Return the optimizer if it has factors.

    Raises
    ------
    SettingsError
        It has none.
    """
    if optimizer.second_order is None:
        raise SettingsError(
            f"optimizer: {optimizer.name} has no factors to solve with; "
            "valid: a second-order optimizer, such as optimizer=kfac"
        )
    return optimizer.second_order


def _batch(
    network: Network,
    engine: Engine,
    values: Values,
    data: Dataset,
    optimizer: SecondOrder,
    train: TrainSpec,
    step: int,
    seed: int,
) -> tuple[dict[str, np.ndarray], dict[FactorKey, np.ndarray]]:
    """Return gradients of the mean loss and factors of a batch."""
    loaded = network.load(values, engine, step)
    gradients: dict[str, np.ndarray] = {}
    factors: dict[FactorKey, np.ndarray] = {}
    for micro_batch in range(train.batch_size // train.micro_batch_size):
        chosen = micro_batch_samples(seed, len(data.train_inputs), train, step, micro_batch)
        inputs, labels = data.batch(chosen, seed, step)
        batch = MicroBatch(micro_batch, inputs, labels, chosen)
        (result,) = loaded.run_micro_batches([batch], FactorsAsked(optimizer))
        for name, value in result.gradients.items():
            gradients[name] = gradients.get(name, 0.0) + value / train.batch_size
        for key, factor in result.factors.items():
            factors[key] = factors.get(key, 0.0) + factor / train.batch_size
    return gradients, factors

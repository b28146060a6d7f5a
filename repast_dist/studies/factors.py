"""Kronecker factors from real training: a short exact run stores them with its gradients."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import numpy as np

from repast_dist.farm.sampling import micro_batch_samples, total_steps
from repast_dist.farm.specs import TrainSpec
from repast_dist.network.model import Model, ModelSpec, build_model, init_weights
from repast_dist.training.datasets import Dataset, DataSource
from repast_dist.training.engines import Engine, make_engine
from repast_dist.training.kfac import (
    FactorAverage,
    damped_block,
    damping_split,
    updated_average,
)
from repast_dist.training.optimizers import apply_update, initial_state
from repast_dist.training.specs import EngineSpec, OptimizerSpec
from repast_dist.training.step import FactorKey, load_weights, run_micro_batch

_INTERVAL = 5


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
    partner : tuple of (float, int)
        Trace and width of the layer's other factor, which pi-corrected damping needs.
    gradient : ndarray
        (n, r) float64: the last step's gradient, seen from the factor's side.
    """

    layer: str
    kind: Literal["A", "G"]
    matrix: np.ndarray
    partner: tuple[float, int]
    gradient: np.ndarray

    def damping(self, form: str, damping: float) -> float:
        """Return what K-FAC adds to the diagonal; see `damping_split`."""
        own = (float(np.trace(self.matrix)), len(self.matrix))
        pair = (own, self.partner) if self.kind == "A" else (self.partner, own)
        for_a, for_g = damping_split(form, damping, *pair[0], *pair[1])
        return for_a if self.kind == "A" else for_g


def capture_factors(
    model_spec: ModelSpec,
    dataset: DataSource,
    optimizer: OptimizerSpec,
    train: TrainSpec,
    steps: int,
    seed: int,
) -> list[Factor]:
    """Train `steps` steps in float64 with K-FAC and return the factors it ends with.

    Inverses are renewed every fifth step; samples, labels of the sampled Fisher and initial
    weights are those of ``study=train`` with the same seed.
    """
    model, data = build_model(model_spec), dataset.load()
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
    weights = init_weights(model, seed)
    state = initial_state(optimizer, weights)
    biased = frozenset(p.name for p in model.products if p.bias)
    averages: dict[FactorKey, FactorAverage] = {}
    inverses: dict[FactorKey, np.ndarray] = {}
    gradients: dict[str, np.ndarray] = {}
    total = total_steps(len(data.train_inputs), train)
    for step in range(steps):
        gradients, fresh = _batch(model, engine, weights, data, optimizer, train, step, seed)
        for key, factor in fresh.items():
            averages[key] = updated_average(averages.get(key), factor, optimizer.factor_decay)
        if step % _INTERVAL == 0:
            inverses = _inverses(averages, optimizer)
        directions = {
            p.name: inverses[p.name, "A"] @ gradients[p.name] @ inverses[p.name, "G"]
            for p in model.preconditioned
        }
        weights, state = apply_update(
            optimizer, weights, gradients, directions, state, step, total, biased
        )
    return [
        Factor(
            name,
            kind,
            average.matrix,
            _size(averages[name, "G" if kind == "A" else "A"].matrix),
            gradients[name] if kind == "A" else gradients[name].T,
        )
        for (name, kind), average in averages.items()
    ]


def _batch(
    model: Model,
    engine: Engine,
    weights: Mapping[str, np.ndarray],
    data: Dataset,
    optimizer: OptimizerSpec,
    train: TrainSpec,
    step: int,
    seed: int,
) -> tuple[dict[str, np.ndarray], dict[FactorKey, np.ndarray]]:
    """Return gradients of the mean loss and factors of a batch."""
    loaded = load_weights(model, weights, engine, step)
    gradients: dict[str, np.ndarray] = {}
    factors: dict[FactorKey, np.ndarray] = {}
    for micro_batch in range(train.batch_size // train.micro_batch_size):
        chosen = micro_batch_samples(seed, len(data.train_inputs), train, step, micro_batch)
        result = run_micro_batch(
            loaded,
            data.train_inputs[chosen],
            data.train_labels[chosen],
            chosen,
            micro_batch,
            optimizer.fisher,
        )
        for name, value in result.gradients.items():
            gradients[name] = gradients.get(name, 0.0) + value / train.batch_size
        for key, factor in result.factors.items():
            factors[key] = factors.get(key, 0.0) + factor / train.batch_size
    return gradients, factors


def _inverses(
    averages: Mapping[FactorKey, FactorAverage], optimizer: OptimizerSpec
) -> dict[FactorKey, np.ndarray]:
    inverses = {}
    for name, kind in averages:
        a, g = averages[name, "A"].matrix, averages[name, "G"].matrix
        damping = damping_split(optimizer.damping_form, optimizer.damping, *_size(a), *_size(g))
        matrix = a if kind == "A" else g
        inverses[name, kind] = np.linalg.inv(
            damped_block(matrix, 0, len(matrix), damping[0 if kind == "A" else 1])
        )
    return inverses


def _size(matrix: np.ndarray) -> tuple[float, int]:
    return float(np.trace(matrix)), len(matrix)

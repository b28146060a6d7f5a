"""Small networks and exact engines that training tests share."""

from pathlib import Path

import numpy as np
import yaml

from repast_dist.ground.spec import load
from repast_dist.network.model import Model, ModelSpec, build_model
from repast_dist.training.engines import Engine, make_engine
from repast_dist.training.kfac import damped_block
from repast_dist.training.specs import EngineSpec

CONF = Path(__file__).parents[2] / "conf"


def float_engine(seed: int = 0) -> Engine:
    """Everything in double precision."""
    exact = {role: "float64" for role in ("forward", "backward", "gradient", "factor", "inverse")}
    return make_engine(EngineSpec(**exact), seed)


def network(layers: list[dict], shape: tuple[int, int, int] = (2, 4, 4), **settings: str) -> Model:
    """Build a network from layer settings as they stand in a YAML file."""
    data = {"name": "test", "input_shape": list(shape), "layers": layers, **settings}
    return build_model(load(ModelSpec, data))


def shipped_model(name: str) -> Model:
    """Build one of the networks of conf/model."""
    return build_model(
        load(ModelSpec, yaml.safe_load((CONF / "model" / f"{name}.yaml").read_text()))
    )


def samples(model: Model, count: int = 5, seed: int = 1) -> tuple[np.ndarray, ...]:
    """Return inputs in 0..1, labels and sample numbers; of tokens all are the first one."""
    random = np.random.default_rng(seed)
    inputs = random.random((count, *model.spec.input_shape))
    *tokens, classes = model.chain.output_shape
    return inputs, random.integers(0, classes, (count, *tokens)), np.arange(count) + 100


def precondition(
    gradient: np.ndarray,
    factors: tuple[np.ndarray, np.ndarray],
    damping: tuple[float, float],
    width: int | None = None,
) -> np.ndarray:
    """Return A^-1 dW G^-1 by the product's damped blocks of `width` and its exact solver."""
    rows = _solve(factors[0], damping[0], gradient, width)
    return _solve(factors[1], damping[1], rows.T, width).T


def _solve(factor: np.ndarray, damping: float, right: np.ndarray, width: int | None) -> np.ndarray:
    size, engine = len(factor), float_engine()
    parts = []
    for start in range(0, size, width or size):
        stop = min(start + (width or size), size)
        solver = engine.block_solver(damped_block(factor, start, stop, damping), ("soi", start))
        parts.append(solver.solve(right[start:stop]).x)
    return np.concatenate(parts)

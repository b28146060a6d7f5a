"""Small networks and exact engines that training tests share."""

from pathlib import Path

import numpy as np
import yaml

from repast_dist.spec import load
from repast_dist.training.engines import Engine, make_engine
from repast_dist.training.model import Model, build_model
from repast_dist.training.specs import EngineSpec, ModelSpec

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
    """Return inputs in 0..1, labels and sample numbers."""
    random = np.random.default_rng(seed)
    inputs = random.random((count, *model.spec.input_shape))
    classes = model.chain.output_shape[0]
    return inputs, random.integers(0, classes, count), np.arange(count) + 100

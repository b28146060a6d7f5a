"""What layers with weights on crossbars have in common: parameter, product and shape."""

from typing import Literal

import numpy as np

from repast_dist.network.node import Parameter, Pass
from repast_dist.network.shapes import LayerShape

_SPARSE_CONNECTIONS = 15
"""Incoming weights per unit of Martens (2010)."""


def weights(
    name: str,
    kind: str,
    inputs: int,
    outputs: int,
    positions: int,
    *,
    bias: bool,
    preconditioned: bool,
    sharing: str,
) -> Parameter:
    """Return the parameter of a layer that multiplies (inputs) by (inputs, outputs) weights."""
    return Parameter(
        name=name,
        kind=kind,
        rows=inputs + bias,
        columns=outputs,
        initialise=initial_weights,
        bias=bias,
        product=True,
        positions=positions,
        sharing=sharing,
        without_factors="" if preconditioned else "precondition is false: plain gradient",
    )


def affine(name: str, rows: np.ndarray, bias: bool, run: Pass) -> np.ndarray:
    """Return ``rows @ weights + bias``, (R, in) -> (R, out)."""
    y = run.forward[name].multiply(rows, (*run.call, "forward", name))
    return y + run.weights[name][-1].astype(np.float64) if bias else y


def product_shape(parameter: Parameter, kind: Literal["dense", "conv"]) -> LayerShape:
    """Return a layer's product as a row of a workload."""
    return LayerShape(
        name=parameter.name,
        kind=kind,
        in_features=parameter.inputs,
        out_features=parameter.columns,
        vectors_per_sample=parameter.positions,
        bias=parameter.bias,
        preconditioned=parameter.preconditioned,
        factor_vectors_per_sample=1 if parameter.sharing == "reduce" else None,
    )


def initial_weights(
    parameter: Parameter, random: np.random.Generator, initialisation: str
) -> np.ndarray:
    """Return fresh weights, biases 0: (in[+1], out), float64.

    Parameters
    ----------
    parameter : Parameter
        Gives the shape.
    random : Generator
        Drawn from.
    initialisation : {"he", "glorot", "sparse"}
        As in `ModelSpec`.
    """
    shape = (parameter.inputs, parameter.columns)
    if initialisation == "sparse":
        drawn = _sparse(random, *shape)
    else:
        fan = parameter.inputs if initialisation == "he" else sum(shape)
        drawn = random.standard_normal(shape) * np.sqrt(2.0 / fan)
    if parameter.bias:
        drawn = np.concatenate([drawn, np.zeros((1, parameter.columns))])
    return drawn


def _sparse(random: np.random.Generator, inputs: int, outputs: int) -> np.ndarray:
    weights = np.zeros((inputs, outputs))
    count = min(_SPARSE_CONNECTIONS, inputs)
    for unit in range(outputs):
        weights[random.choice(inputs, count, replace=False), unit] = random.standard_normal(count)
    return weights

"""Weight updates as functions: weights and state in, new weights and state out.

State is a flat dict of arrays ("momentum/conv1"), so a checkpoint needs no pickle.
"""

from collections.abc import Mapping

import numpy as np

from repast_dist.training.kfac import kl_clip_scale
from repast_dist.training.specs import OptimizerSpec

Arrays = dict[str, np.ndarray]


def learning_rate_at(spec: OptimizerSpec, step: int, total_steps: int) -> float:
    """Return the learning rate of a step, counted from 0.

    The rate rises linearly over ``warmup_steps``, then goes from ``learning_rate`` to
    ``final_rate`` times it along the schedule.
    """
    if step < spec.warmup_steps:
        return spec.learning_rate * (step + 1) / (spec.warmup_steps + 1)
    if spec.schedule == "constant":
        return spec.learning_rate
    span = max(total_steps - 1 - spec.warmup_steps, 1)
    done = min((step - spec.warmup_steps) / span, 1.0)
    left = 1.0 - done if spec.schedule == "linear" else 0.5 * (1.0 + np.cos(np.pi * done))
    return float(spec.learning_rate * (spec.final_rate + (1.0 - spec.final_rate) * left))


def initial_state(spec: OptimizerSpec, weights: Mapping[str, np.ndarray]) -> Arrays:
    """Return zeroed state for all weights, float32."""
    kinds = ("adam_first", "adam_second") if spec.method == "adam" else ("momentum",)
    return {f"{kind}/{name}": np.zeros_like(w) for kind in kinds for name, w in weights.items()}


def apply_update(
    spec: OptimizerSpec,
    weights: Mapping[str, np.ndarray],
    gradients: Mapping[str, np.ndarray],
    preconditioned: Mapping[str, np.ndarray],
    state: Mapping[str, np.ndarray],
    step: int,
    total_steps: int,
    biased: frozenset[str],
) -> tuple[Arrays, Arrays]:
    """Do one update.

    Parameters
    ----------
    spec : OptimizerSpec
        The method.
    weights : mapping
        Name -> (in[+1], out) float32.
    gradients : mapping
        Name -> gradient of the mean loss, for every weight.
    preconditioned : mapping
        Name -> ``A^-1 dW G^-1`` of the layers K-FAC preconditions; empty for other methods.
    state : mapping
        From `initial_state` or the last update.
    step, total_steps : int
        Step, counted from 0, and how many there will be.
    biased : frozenset of str
        Weights whose last row is a bias, which does not decay.

    Returns
    -------
    weights, state : dict
        New arrays, float32.
    """
    rate = learning_rate_at(spec, step, total_steps)
    scale = kl_clip_scale(gradients, preconditioned, rate, spec.kl_clip)
    new_weights: Arrays = {}
    new_state: Arrays = {}
    for name, old in weights.items():
        direction = _direction(name, gradients, preconditioned, scale)
        if spec.method == "adam":
            direction, kept = _adam(spec, name, direction, state, step)
        else:
            direction += _decay(spec, old, name in biased)
            direction = spec.momentum * state[f"momentum/{name}"].astype(np.float64) + direction
            kept = {f"momentum/{name}": direction}
        if spec.method == "adam":
            direction += _decay(spec, old, name in biased)
        new_weights[name] = (old - rate * direction).astype(np.float32)
        new_state |= {key: value.astype(np.float32) for key, value in kept.items()}
    return new_weights, new_state


def _direction(
    name: str,
    gradients: Mapping[str, np.ndarray],
    preconditioned: Mapping[str, np.ndarray],
    scale: float,
) -> np.ndarray:
    if name in preconditioned:
        return scale * preconditioned[name].astype(np.float64)
    return gradients[name].astype(np.float64)


def _decay(spec: OptimizerSpec, old: np.ndarray, bias: bool) -> np.ndarray:
    decay = spec.weight_decay * old.astype(np.float64)
    if bias:
        decay[-1] = 0.0
    return decay


def _adam(
    spec: OptimizerSpec,
    name: str,
    gradient: np.ndarray,
    state: Mapping[str, np.ndarray],
    step: int,
) -> tuple[np.ndarray, Arrays]:
    """Adam with bias correction (Kingma and Ba 2015, algorithm 1)."""
    old_first, old_second = (
        state[f"adam_{which}/{name}"].astype(np.float64) for which in ("first", "second")
    )
    first = spec.adam_beta1 * old_first + (1 - spec.adam_beta1) * gradient
    second = spec.adam_beta2 * old_second + (1 - spec.adam_beta2) * gradient**2
    unbiased = first / (1 - spec.adam_beta1 ** (step + 1))
    spread = np.sqrt(second / (1 - spec.adam_beta2 ** (step + 1)))
    kept = {f"adam_first/{name}": first, f"adam_second/{name}": second}
    return unbiased / (spread + spec.adam_epsilon), kept

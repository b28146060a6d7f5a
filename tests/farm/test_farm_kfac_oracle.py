"""A whole K-FAC run on the farm against the same training written down densely in NumPy.

The oracle shares nothing with the product but the initial weights and the order of the samples:
gradients come from one outer product per sample, factors are full matrices, and each layer is
solved with the Kronecker product written out.
"""

import numpy as np
import pytest

from repast_dist.farm.checkpoint import latest_checkpoint
from repast_dist.network.model import build_model, init_weights
from repast_dist.settings import load_settings
from repast_dist.training.sampling import micro_batch_samples
from repast_dist.training.specs import TrainSpec

STEPS, BATCH, BLOCK, INTERVAL = 3, 32, 24, 2
RATE, MOMENTUM, DECAY, CLIP, DAMPING = 0.1, 0.9, 0.01, 0.003, 0.05
RUN = (
    "engine=float64", "model=digits_mlp", "farm.backend=inprocess", "farm.chips=3",
    "model.layers=[{kind: flatten}, {kind: dense, name: dense1, outputs: 26}, {kind: relu}, "
    "{kind: dense, name: dense2, outputs: 25}, {kind: relu}, "
    "{kind: dense, name: dense3, outputs: 10}]",
    f"train.batch_size={BATCH}", "train.micro_batch_size=8", f"train.max_steps={STEPS}",
    f"soi.block_size={BLOCK}", f"soi.interval={INTERVAL}", "optimizer.fisher=empirical",
    "optimizer.schedule=constant", f"optimizer.weight_decay={DECAY}",
    f"optimizer.damping={DAMPING}", f"optimizer.learning_rate={RATE}",
    f"optimizer.momentum={MOMENTUM}", f"optimizer.kl_clip={CLIP}",
)  # fmt: skip


def dense_training(form: str) -> dict[str, np.ndarray]:
    """Return the weights after all steps."""
    settings = load_settings(RUN)
    data = settings.dataset.load()
    inputs = data.train_inputs.reshape(len(data.train_inputs), -1).astype(float)
    weights = {k: v.astype(float) for k, v in init_weights(build_model(settings.model), 0).items()}
    names = list(weights)
    speed = {name: np.zeros_like(w) for name, w in weights.items()}
    sums: dict[str, list[np.ndarray]] = {}
    damped: dict[str, list[np.ndarray]] = {}
    for step in range(STEPS):
        chosen = np.concatenate([
            micro_batch_samples(0, len(inputs), TrainSpec(batch_size=BATCH, micro_batch_size=8),
                                step, number) for number in range(BATCH // 8)
        ])  # fmt: skip
        rows, errors = forward_backward(weights, inputs[chosen], data.train_labels[chosen])
        directions, gradients = {}, {}
        for name in names:
            a, g = rows[name], errors[name]
            gradients[name] = np.einsum("ni,nj->ij", a, g) / BATCH
            fresh = [a.T @ a / BATCH, g.T @ g / BATCH]
            # All factors so far weigh the same: 1 - 1/k stays below the limit in so few steps.
            sums[name] = [s + f for s, f in zip(sums.get(name, [0.0, 0.0]), fresh, strict=True)]
            if step % INTERVAL == 0:
                damped[name] = damp([s / (step + 1) for s in sums[name]], form)
            kron = np.kron(*damped[name])
            solved = np.linalg.solve(kron, gradients[name].reshape(-1))
            directions[name] = solved.reshape(gradients[name].shape)
        product = sum(float(np.sum(gradients[n] * directions[n])) for n in names)
        scale = min(1.0, np.sqrt(CLIP / (RATE**2 * product)))
        for name in names:
            decay = DECAY * weights[name]
            decay[-1] = 0.0
            speed[name] = MOMENTUM * speed[name] + scale * directions[name] + decay
            # Weights and momentum are kept in single precision between steps.
            weights[name] = (weights[name] - RATE * speed[name]).astype(np.float32).astype(float)
            speed[name] = speed[name].astype(np.float32).astype(float)
    return weights


def forward_backward(
    weights: dict[str, np.ndarray], inputs: np.ndarray, labels: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return layer inputs with a one for the bias, and derivatives by layer outputs."""
    rows, outputs, x = {}, {}, inputs
    for name, w in weights.items():
        rows[name] = np.hstack([x, np.ones((len(x), 1))])
        outputs[name] = rows[name] @ w
        x = np.maximum(outputs[name], 0)
    last = outputs[name]
    chance = np.exp(last) / np.exp(last).sum(axis=1, keepdims=True)
    error = chance - np.eye(10)[labels]
    errors = {}
    for name in reversed(weights):
        errors[name] = error
        before = list(weights).index(name) - 1
        if before >= 0:
            previous = outputs[list(weights)[before]]
            error = (error @ weights[name][:-1].T) * (previous > 0)
    return rows, errors


def damp(factors: list[np.ndarray], form: str) -> list[np.ndarray]:
    """Return A and G block-diagonal and damped."""
    mean_a, mean_g = (np.trace(f) / len(f) for f in factors)
    pi = np.sqrt(mean_a / mean_g)
    added = {"plain": (DAMPING, DAMPING), "pi": (pi * DAMPING**0.5, DAMPING**0.5 / pi)}[form]
    blocks = []
    for factor, damping in zip(factors, added, strict=True):
        # Blocks of a factor are as equal as whole rows allow.
        parts = np.array_split(np.arange(len(factor)), -(-len(factor) // BLOCK))
        sizes = sorted(len(part) for part in parts)
        edges = [len(factor) * part // len(parts) for part in range(len(parts) + 1)]
        assert sorted(np.diff(edges)) == sizes
        number = np.searchsorted(edges, np.arange(len(factor)), side="right")
        kept = np.where(number[:, None] == number, factor, 0.0)
        blocks.append(kept + damping * np.eye(len(factor)))
    return blocks


@pytest.mark.parametrize("form", ["plain", "pi"])
def test_a_run_on_three_chips_equals_the_dense_computation(train, form: str) -> None:
    run_dir = train(*RUN, f"optimizer.damping_form={form}")
    checkpoint, _ = latest_checkpoint(run_dir / "checkpoints")
    start = init_weights(build_model(load_settings(RUN).model), 0)
    for name, expected in dense_training(form).items():
        final = checkpoint.arrays[f"weights/{name}"]
        moved = np.abs(expected - start[name]).max()
        assert moved > 1e-3
        np.testing.assert_allclose(final, expected, atol=1e-5 * moved)

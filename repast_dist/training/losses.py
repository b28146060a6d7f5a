"""Losses, their derivatives by the network's outputs, and roots of the Fisher matrix.

A loss is the negative log-likelihood of one sample: `errors` is its derivative by the outputs z,
and Fisher gradients are derivatives for labels that the model itself would give. For a
natural-parameter likelihood the Fisher matrix of the outputs is the Hessian (Martens 2014).
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

from repast_dist.ground.rng import generator
from repast_dist.network.functional import sigmoid, softmax

_SQUARED = ("squared_error", "regression")


@dataclasses.dataclass(frozen=True)
class LossValue:
    """The loss of some samples and its derivatives.

    Attributes
    ----------
    total : float
        Sum over samples.
    correct : float
        Samples classified right, of tokens the share of each sample's; 0 for reconstruction and
        regression.
    squared_error : float
        Sum over samples of the squared error of reconstruction or regression; 0 for classification.
    errors : ndarray
        (N, ...) derivative of every sample's loss by its outputs.
    """

    total: float
    correct: float
    squared_error: float
    errors: np.ndarray


def loss_value(loss: str, outputs: np.ndarray, inputs: np.ndarray, labels: np.ndarray) -> LossValue:
    """Return the loss of some samples.

    Parameters
    ----------
    loss : str
        As in `ModelSpec`.
    outputs : (N, D) or (N, T, D) ndarray
        Outputs of the network; for each of T tokens if the loss is ``next_token``.
    inputs : (N, ...) ndarray
        Inputs of the network, which are the target of a reconstruction.
    labels : ndarray
        (N,) or (N, T) classes; or (N, D) numbers, the target of a regression.
    """
    if loss == "cross_entropy":
        return _cross_entropy(outputs, labels)
    if loss == "next_token":
        rows, tokens = _per_token(outputs)
        value = _cross_entropy(rows, labels.reshape(-1))
        errors = value.errors.reshape(outputs.shape) / tokens
        return LossValue(value.total / tokens, value.correct / tokens, 0.0, errors)
    fitted = labels if loss == "regression" else inputs
    target = fitted.reshape(len(inputs), -1).astype(np.float64)
    if loss in _SQUARED:
        errors = outputs - target
        squared = float(np.sum(errors**2))
        return LossValue(0.5 * squared, 0, squared, errors)
    # -t log s(z) - (1 - t) log(1 - s(z)) without overflow.
    terms = np.maximum(outputs, 0.0) - outputs * target + np.log1p(np.exp(-np.abs(outputs)))
    errors = sigmoid(outputs) - target
    return LossValue(float(terms.sum()), 0, float(np.sum(errors**2)), errors)


def _cross_entropy(logits: np.ndarray, labels: np.ndarray) -> LossValue:
    samples = np.arange(len(logits))
    shifted = logits - logits.max(axis=1, keepdims=True)
    total = float(np.sum(np.log(np.exp(shifted).sum(axis=1)) - shifted[samples, labels]))
    errors = softmax(logits)
    errors[samples, labels] -= 1.0
    correct = int(np.count_nonzero(logits.argmax(axis=1) == labels))
    return LossValue(total, correct, 0.0, errors)


def _per_token(outputs: np.ndarray) -> tuple[np.ndarray, int]:
    """Return outputs (N, T, D) as rows (N * T, D), and T."""
    return outputs.reshape(-1, outputs.shape[2]), outputs.shape[1]


def sampled_errors(
    loss: str, outputs: np.ndarray, seed: int, step: int, samples: np.ndarray
) -> np.ndarray:
    """Return output errors for labels that are drawn from the model's own likelihood.

    Parameters
    ----------
    loss : str
        As in `loss_value`.
    outputs : (N, ...) or (N * R, D) ndarray
        What the network returned; or R rows per sample, each with a label of its own.
    seed, step : int
        The run's seed and the training step.
    samples : (N,) integer ndarray
        Numbers of the samples in the data set; a sample's label depends on these three alone, so
        not on the micro-batch or the chip it is part of.

    Returns
    -------
    ndarray like `outputs`
        Derivative of each sample's loss for the drawn label. Tokens have a label each, and count
        by the root of their share in the loss, so that outer products do by the share.
    """
    if loss == "next_token":
        rows, tokens = _per_token(outputs)
        errors = sampled_errors("cross_entropy", rows, seed, step, samples)
        return errors.reshape(outputs.shape) / np.sqrt(tokens)
    streams = [generator(seed, "fisher", step, int(number)) for number in samples]
    terms = len(outputs) // len(samples)
    size = terms, outputs.shape[1]
    if loss in _SQUARED:
        return np.concatenate([stream.standard_normal(size) for stream in streams])
    if loss == "pixel_cross_entropy":
        uniform = np.concatenate([stream.random(size) for stream in streams])
        chance = sigmoid(outputs)
        return chance - (uniform < chance)
    chance = softmax(outputs)
    uniform = np.concatenate([stream.random(terms) for stream in streams])
    drawn = (uniform[:, None] >= np.cumsum(chance, axis=1)[:, :-1]).sum(axis=1)
    chance[np.arange(len(chance)), drawn] -= 1.0
    return chance


def exact_errors(loss: str, outputs: np.ndarray) -> Iterator[np.ndarray]:
    """Yield output errors e_c (N, ...) whose outer products add up to the Fisher matrix.

    One per class for ``cross_entropy``: ``sqrt(p_c) (p - onehot(c))``, and one per token and class
    for ``next_token``; one per output otherwise: the column of the root of the diagonal Fisher
    matrix.
    """
    if loss == "next_token":
        rows, tokens = _per_token(outputs)
        for each in exact_errors("cross_entropy", rows):
            per_token = each.reshape(outputs.shape) / np.sqrt(tokens)
            for token in range(tokens):
                errors = np.zeros_like(outputs)
                errors[:, token] = per_token[:, token]
                yield errors
        return
    count = outputs.shape[1]
    if loss == "cross_entropy":
        chance = softmax(outputs)
        for label in range(count):
            errors = chance.copy()
            errors[:, label] -= 1.0
            yield errors * np.sqrt(chance[:, label : label + 1])
        return
    chance = sigmoid(outputs)
    root = (
        np.sqrt(chance * (1 - chance)) if loss == "pixel_cross_entropy" else np.ones_like(outputs)
    )
    for output in range(count):
        errors = np.zeros_like(outputs)
        errors[:, output] = root[:, output]
        yield errors

"""Losses that are likelihoods: the output gradients of which their Fisher matrix is made.

The same formulas as for networks of the NumPy engine (`repast_dist.training.losses`), for outputs
of any shape. A loss that is a mean over T terms of a sample has 1 / T of the Fisher matrix of
their sum, so output gradients of independent terms are scaled by its root.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch

from repast_dist.ground.errors import SettingsError
from repast_dist.ground.numbers import ceil_div
from repast_dist.network.losses import Loss, LossShape
from repast_dist.torch.matrices import to_float64
from repast_dist.training.losses import exact_errors, sampled_errors

LossKind = Literal["cross_entropy", "binary_cross_entropy", "squared_error"]
_NAMES: dict[str, Loss] = {
    "cross_entropy": "cross_entropy",
    "binary_cross_entropy": "pixel_cross_entropy",
    "squared_error": "squared_error",
}
_TOLERANCE = 1e-2


@dataclasses.dataclass(frozen=True)
class Likelihood:
    """The loss that a network is trained with, as far as its Fisher matrix depends on it.

    Attributes
    ----------
    kind : {"cross_entropy", "binary_cross_entropy", "squared_error"}
        ``F.cross_entropy``, of classes or of tokens; ``F.binary_cross_entropy_with_logits``;
        ``F.mse_loss``.
    terms : {"mean", "sum"}
        Whether the loss of a sample is the mean of its terms, as with PyTorch's default reduction,
        or their sum: tokens of a text, pixels of an image, outputs of a regression.
    weight : float
        Factor in front of the loss: 0.5 for half the squared error.
    class_dim : int or None
        Dimension of classes in the outputs; None: 1, or the last of three (tokens).
    """

    kind: LossKind = "cross_entropy"
    terms: Literal["mean", "sum"] = "mean"
    weight: float = 1.0
    class_dim: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in _NAMES:
            raise SettingsError(f"loss: '{self.kind}'; valid: {', '.join(_NAMES)}")
        if self.terms not in ("mean", "sum"):
            raise SettingsError(f"loss.terms: '{self.terms}'; valid: mean, sum")
        if not self.weight > 0:
            raise SettingsError(f"loss.weight: {self.weight}; valid: more than 0")

    @property
    def loss(self) -> Loss:
        """The loss of the NumPy engine with the same formulas."""
        return _NAMES[self.kind]

    def shape(self, outputs: torch.Tensor, samples: int) -> LossShape:
        """Return what the loss is computed of, for its price."""
        rows = self.rows(outputs)
        per_sample = ceil_div(len(rows), max(samples, 1))
        return LossShape(loss=self.loss, rows=per_sample, width=rows.shape[1])

    def sampled(
        self, outputs: torch.Tensor, seed: int, step: int, samples: np.ndarray
    ) -> torch.Tensor:
        """Return output gradients for targets that are drawn from the network's own likelihood.

        Parameters
        ----------
        outputs : Tensor
            What the network gave; (N, ...).
        seed, step : int
            The run's seed and the training step.
        samples : (N,) integer ndarray
            Numbers of the samples; with the step and the seed they address what is drawn.
        """
        rows = self.rows(outputs)
        self._check_samples(rows, outputs, len(samples))
        errors = sampled_errors(self.loss, rows, seed, step, samples)
        return self._scaled(errors, outputs, len(samples))

    def exact(self, outputs: torch.Tensor, samples: int) -> Iterator[torch.Tensor]:
        """Yield output gradients whose outer products add up to the Fisher matrix.

        Raises
        ------
        SettingsError
            A sample has several classes or tokens, whose gradients would mix.
        """
        rows = self.rows(outputs)
        self._check_samples(rows, outputs, samples)
        if len(rows) != samples:
            raise SettingsError(
                f"fisher=exact: a sample has {len(rows) // samples} terms, whose gradients would "
                "mix in one backward pass; valid: sampled, empirical"
            )
        for errors in exact_errors(self.loss, rows):
            yield self._scaled(errors, outputs, samples)

    def passes(self, outputs: torch.Tensor) -> int:
        """Return the number of backward passes of the exact Fisher matrix."""
        return self.rows(outputs).shape[1]

    def check(self, outputs: torch.Tensor, gradient: torch.Tensor) -> None:
        """Check that a gradient by the outputs can be that of this loss.

        Raises
        ------
        SettingsError
            The gradients by the logits of a softmax do not add up to 0.
        """
        if self.kind != "cross_entropy":
            return
        values = to_float64(gradient)
        dim = self._class_dim(outputs)
        sums, sizes = np.abs(values.sum(axis=dim)), np.abs(values).sum(axis=dim)
        if (sums > _TOLERANCE * sizes.max(initial=0.0)).any():
            raise SettingsError(
                "loss=cross_entropy: the gradients by the outputs do not add up to 0 over "
                f"dimension {dim}, so the loss is another one; valid: "
                "loss=binary_cross_entropy|squared_error, Likelihood(class_dim=...), "
                "fisher='empirical', or outputs=... that picks the logits"
            )

    def _check_samples(self, rows: np.ndarray, outputs: torch.Tensor, samples: int) -> None:
        whole = len(rows) == samples or (self.kind == "cross_entropy" and not len(rows) % samples)
        if not whole:
            raise SettingsError(
                f"loss={self.kind}: outputs of shape {tuple(outputs.shape)} of {samples} samples; "
                "valid: samples in the first dimension, outputs=lambda result: "
                "result.transpose(0, 1)"
            )

    def _class_dim(self, outputs: torch.Tensor) -> int:
        if self.class_dim is not None:
            return self.class_dim
        return 2 if outputs.dim() == 3 else 1

    def rows(self, outputs: torch.Tensor) -> np.ndarray:
        """Return outputs with one likelihood per row, (R, D) float64.

        Raises
        ------
        SettingsError
            They have no dimension of samples, or none of classes.
        """
        values = to_float64(outputs)
        dim = self._class_dim(outputs) if self.kind == "cross_entropy" else 0
        if not -values.ndim <= dim < values.ndim or not values.ndim:
            raise SettingsError(
                f"loss={self.kind}: outputs of shape {values.shape} have no dimension {dim}; "
                "valid: (N, ...), samples first, with classes in dimension 1"
            )
        if self.kind != "cross_entropy":
            return values.reshape(len(values), -1)
        moved = np.moveaxis(values, self._class_dim(outputs), -1)
        return np.ascontiguousarray(moved).reshape(-1, moved.shape[-1])

    def _scaled(self, errors: np.ndarray, outputs: torch.Tensor, samples: int) -> torch.Tensor:
        """Return errors of rows as a tensor like the outputs, on the scale of a sample's loss."""
        terms = len(errors) // samples
        if self.kind != "cross_entropy":
            terms = errors.shape[1]
        # The second derivative of z^2 is 2.
        scale = self.weight * (2.0 if self.kind == "squared_error" else 1.0)
        scale /= terms if self.terms == "mean" else 1
        return self.shaped(errors * math.sqrt(scale), outputs)

    def shaped(self, errors: np.ndarray, outputs: torch.Tensor) -> torch.Tensor:
        """Return errors of `rows` as a tensor like the outputs."""
        shape = list(outputs.shape)
        if self.kind == "cross_entropy":
            dim = self._class_dim(outputs) % len(shape)
            order = [*shape[:dim], *shape[dim + 1 :], shape[dim]]
            errors = np.moveaxis(errors.reshape(order), -1, dim)
        values = np.ascontiguousarray(errors.reshape(shape))
        made: torch.Tensor = torch.from_numpy(values)
        return made.to(device=outputs.device, dtype=outputs.dtype)

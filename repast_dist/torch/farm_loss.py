"""Losses of modules that the farm trains: those of the NumPy engine, and the user's own."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from repast_dist.ground.errors import SettingsError
from repast_dist.torch.fisher import Likelihood
from repast_dist.torch.samples import device_of, to_tensors
from repast_dist.torch.statistics import logits
from repast_dist.training.datasets import Dataset
from repast_dist.training.datasets.records import sample_text
from repast_dist.training.losses import loss_value

_NAMED = {
    "cross_entropy": Likelihood(),
    "pixel_cross_entropy": Likelihood("binary_cross_entropy", terms="sum"),
    "squared_error": Likelihood("squared_error", terms="sum", weight=0.5),
    "regression": Likelihood("squared_error", terms="sum", weight=0.5),
}


@dataclasses.dataclass(frozen=True)
class ModuleLoss:
    """The loss of a micro-batch, summed over its samples.

    Attributes
    ----------
    total : float
        The sum.
    correct : float
        Samples classified right, of sequences the share of their tokens.
    squared_error : float
        Sum of squared errors of reconstruction or regression.
    backward : callable
        Runs the backward pass of the sum.
    """

    total: float
    correct: float
    squared_error: float
    backward: Callable[[], None]


@dataclasses.dataclass(frozen=True)
class NamedLoss:
    """A loss that has a name: the formulas of `repast_dist.training.losses`.

    Attributes
    ----------
    name : str
        Which one.
    """

    name: str

    @property
    def likelihood(self) -> Likelihood:
        """What it is the negative log-likelihood of."""
        return _NAMED[self.name]

    def __call__(self, outputs: Any, inputs: np.ndarray, labels: np.ndarray) -> ModuleLoss:
        """Return the loss of outputs (N, ...); tokens of a sample have their mean."""
        given = logits(outputs)
        rows = self.likelihood.rows(given)
        terms = max(len(rows) // len(inputs), 1)
        if self.name == "cross_entropy":
            labels = labels.reshape(-1)
        value = loss_value(self.name, rows, inputs, labels)
        errors = self.likelihood.shaped(value.errors / terms, given)
        return ModuleLoss(
            value.total / terms,
            value.correct / terms,
            value.squared_error,
            lambda: torch.autograd.backward(given, errors),
        )

    def check(self, outputs: Any, data: Dataset) -> None:
        """Check that it is defined for a module's outputs and the labels of a data set.

        Raises
        ------
        SettingsError
            It is not; the message says what would be.
        """
        if data.train_labels.dtype.names:
            raise SettingsError(
                f"model.loss: {self.name} takes one array of labels, {data.name} has "
                f"{sample_text(data.train_labels)}; valid: module:function"
            )
        of_inputs = self.name in ("squared_error", "pixel_cross_entropy")
        if of_inputs and data.train_inputs.dtype.names:
            raise SettingsError(
                f"model.loss: {self.name} fits one array of inputs, {data.name} has "
                f"{data.sample_text}; valid: cross_entropy, regression, or module:function"
            )
        given = logits(outputs)
        rows = self.likelihood.rows(given)
        each, labels = tuple(given.shape[1:]), data.train_labels.shape[1:]
        if self.name == "cross_entropy":
            if not data.classes:
                raise SettingsError(
                    f"model.loss: cross_entropy does not fit {data.name}, whose labels are "
                    "numbers; valid: regression, or module:function"
                )
            wanted = int(np.prod(labels, dtype=int))
            if len(rows) // len(given) != wanted or rows.shape[1] < data.classes:
                raise SettingsError(
                    f"model: outputs of shape {each} per sample for labels of shape "
                    f"{labels} with {data.classes} classes; valid: ({data.classes},), or for "
                    f"tokens (T, {data.classes})"
                )
            return
        if self.name == "regression" and data.classes:
            raise SettingsError(
                f"model.loss: regression does not fit {data.name}, whose labels are classes; "
                "valid: cross_entropy, or labels that are real numbers"
            )
        fitted = labels if self.name == "regression" else data.input_shape
        if rows.shape[1] != int(np.prod(fitted, dtype=int)):
            raise SettingsError(
                f"model: {rows.shape[1]} outputs per sample; {self.name} fits "
                f"{int(np.prod(fitted, dtype=int))} numbers; valid: as many"
            )
        if self.name != "pixel_cross_entropy":
            return
        low, high = float(data.train_inputs.min()), float(data.train_inputs.max())
        if low < 0 or high > 1:
            raise SettingsError(
                f"model.loss: pixel_cross_entropy needs inputs in 0..1, {data.name} has "
                f"{low:.3g} to {high:.3g}; valid: dataset.scaling=unit"
            )


@dataclasses.dataclass(frozen=True)
class OwnLoss:
    """A function of the user's own, of outputs and labels: the mean loss of a micro-batch.

    Attributes
    ----------
    function : callable
        The function.
    likelihood : Likelihood or None
        What it is the negative log-likelihood of, if that is known.
    """

    function: Callable[[Any, Any], torch.Tensor]
    likelihood: Likelihood | None

    def __call__(self, outputs: Any, inputs: np.ndarray, labels: np.ndarray) -> ModuleLoss:
        """Return the loss of what the module returned."""
        mean = self.function(outputs, to_tensors(labels, device=device_of(outputs)))
        if not isinstance(mean, torch.Tensor) or mean.numel() != 1:
            raise SettingsError(
                f"model.loss: returned {type(mean).__name__}; valid: a tensor of one number, the "
                "mean over the samples"
            )
        total = mean * len(inputs)
        correct = 0.0
        one_of_classes = self.likelihood is not None and self.likelihood.kind == "cross_entropy"
        if self.likelihood is not None and one_of_classes and not labels.dtype.names:
            rows = self.likelihood.rows(logits(outputs))
            terms = max(len(rows) // len(inputs), 1)
            classes = _classes(labels, rows)
            correct = np.count_nonzero(rows.argmax(axis=1) == classes) / terms
        return ModuleLoss(float(total.detach()), correct, 0.0, total.backward)

    def check(self, outputs: Any, data: Dataset) -> None:
        """Whatever the function takes is valid."""


def _classes(labels: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the class of every row: the label, or the likeliest where labels are chances (R, D).

    Labels of another form are those of no class: what is right is known to the loss alone.
    """
    if labels.size == len(rows):
        return labels.reshape(-1)
    if labels.size == rows.size:
        return labels.reshape(rows.shape).argmax(axis=1)
    return np.full(len(rows), -1)


AnyLoss = NamedLoss | OwnLoss

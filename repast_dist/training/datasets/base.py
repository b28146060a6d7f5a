"""A data set has settings, is read from its source, and gives training its samples."""

import abc
import dataclasses
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from repast_dist.ground.errors import DataError, SettingsError
from repast_dist.ground.numbers import PositiveInt
from repast_dist.ground.registry import Registry
from repast_dist.ground.spec import spec
from repast_dist.training.datasets.augmentation import (
    Augmentation,
    augmented,
    chosen_augmentation,
)
from repast_dist.training.datasets.records import sample_text
from repast_dist.training.datasets.split import Samples

Labels = Literal["classes", "tokens", "numbers"]


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Samples with their classes, split into a training set and a test set.

    Attributes
    ----------
    name : str
        Shown in reports.
    train_inputs, test_inputs : ndarray
        (N, C, H, W) float32, scaled as the settings ask; tokens are (N, T) int64; of a function of
        the user's own (N, ...) float32 or int64, or (N,) records of several such arrays.
    train_labels, test_labels : ndarray
        (N,) int64 classes, (N, T) int64 tokens, or (N, K) float32 numbers; of a function of the
        user's own (N, ...), or (N,) records.
    classes : int
        Number of classes, or of different tokens; 0 where labels are numbers or several arrays.
    source : str
        Where the data come from and their licence.
    augmentation : callable or None
        Returns a training sample anew, given the sample and a stream of random numbers.
    """

    name: str
    train_inputs: np.ndarray
    train_labels: np.ndarray
    test_inputs: np.ndarray
    test_labels: np.ndarray
    classes: int
    source: str
    augmentation: Augmentation | None = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of a sample, such as channels, height and width; of several arrays, ()."""
        return self.train_inputs.shape[1:]

    @property
    def sample_text(self) -> str:
        """Shapes of a sample's arrays in words."""
        return sample_text(self.train_inputs)

    @property
    def labels(self) -> Labels:
        """What labels are."""
        if not self.classes:
            return "numbers"
        return "classes" if self.train_labels.ndim == 1 else "tokens"

    def batch(self, samples: np.ndarray, seed: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Return inputs and labels of some training samples, as a step sees them.

        What augmentation draws depends on the seed, the step and the sample, not on the chip.
        """
        inputs, labels = self.train_inputs[samples], self.train_labels[samples]
        if self.augmentation is not None:
            inputs = augmented(self.augmentation, inputs, seed, step, samples)
        return inputs, labels


@spec
class DataSource(abc.ABC):
    """The data that a network is trained on, and their split.

    A data set is a settings class of its own with a field ``name: Literal["my_data"] = "my_data"``
    and the settings that it reads; its method `read` returns the samples.

    Attributes
    ----------
    scaling : {"unit", "standard", "none"}
        Inputs in 0..1; shifted and scaled to mean 0 and variance 1 over the training set; or as
        they are, which tokens are.
    train_samples, test_samples : int or None
        Number of samples that are used, the first ones; None: all.
    augmentation : str or None
        A function of one's own, ``module:function``, by which training samples vary: given the
        sample as an array (or several) and a `numpy.random.Generator`, it returns the sample anew,
        in the same shape. None: every epoch sees the same samples.
    """

    scaling: Literal["unit", "standard", "none"] = "unit"
    train_samples: PositiveInt | None = None
    test_samples: PositiveInt | None = None
    augmentation: str | None = None

    source: ClassVar[str] = ""
    """Where the data come from and their licence, for reports."""

    # Members declare the field; a property at run time would stand in its way.
    if TYPE_CHECKING:

        @property
        def name(self) -> str: ...

    @property
    def code(self) -> tuple[str, ...]:
        """What its settings name of the user's own code, ``module:function`` each."""
        return () if self.augmentation is None else (self.augmentation,)

    @abc.abstractmethod
    def read(self) -> tuple[Samples, Samples]:
        """Return the training and the test set, each (inputs, labels).

        Inputs are (N, C, H, W) floats, in 0..1 for the scaling ``unit``, or (N, T) int64 tokens,
        labels (N,) int64 counted from 0, (N, T) int64 tokens, or (N, K) floats that are to be
        fitted. The order is the same
        in every call: `train_samples` takes the first ones.

        Raises
        ------
        DataError
            Files are missing, damaged or of another format.
        """

    def load(self) -> Dataset:
        """Read the samples, keep as many as asked for, and scale them.

        Raises
        ------
        DataError
            As `read`; or both sets do not fit each other, or inputs are beyond 0..1.
        SettingsError
            More samples are asked for than there are.
        """
        train, test = self.read()
        classes = _classes(self.name, train, test)
        (inputs, labels), (test_inputs, test_labels) = (
            self._first(train, "train_samples"),
            self._first(test, "test_samples"),
        )
        if self.scaling == "unit" and not inputs.dtype.names:
            _require_unit(inputs, test_inputs)
        inputs, test_inputs = _scaled(self.scaling, inputs, test_inputs)
        augmentation = chosen_augmentation(self.augmentation, inputs)
        return Dataset(
            self.name, inputs, labels, test_inputs, test_labels, classes, self.source, augmentation
        )

    def _first(self, samples: Samples, setting: str) -> Samples:
        inputs, labels = samples
        wanted = getattr(self, setting)
        if wanted is not None and wanted > len(inputs):
            raise SettingsError(
                f"dataset.{setting}: {wanted} asked for, {self.name} has {len(inputs)}"
            )
        return inputs[:wanted], labels[:wanted]


DATASETS: Registry[DataSource] = Registry(
    "data set",
    DataSource,  # type: ignore[type-abstract]
    tag="name",
    home="repast_dist.training.datasets",
    default="digits",
    implied={"factory": "factory"},
)


def _classes(name: str, train: Samples, test: Samples) -> int:
    """Return how many classes or tokens there are; 0 for numbers."""
    for what, part in (("samples", 0), ("labels", 1)):
        shapes = sample_text(train[part]), sample_text(test[part])
        if shapes[0] != shapes[1]:
            raise DataError(
                f"dataset {name}: training {what} are {shapes[0]}, test {what} {shapes[1]}; "
                "valid: the same shape"
            )
    if train[1].dtype.kind in "fV":
        return 0
    classes = int(train[1].max()) + 1
    if int(test[1].max()) >= classes:
        raise DataError(
            f"dataset {name}: the test set has class {test[1].max()}; the training set has "
            f"{classes} classes"
        )
    return classes


def _require_unit(*parts: np.ndarray) -> None:
    low, high = min(part.min() for part in parts), max(part.max() for part in parts)
    if low < 0 or high > 1:
        raise DataError(
            f"dataset: inputs from {low:.4g} to {high:.4g}, but dataset.scaling=unit takes 0..1; "
            "valid for others: dataset.scaling=standard"
        )


def _scaled(scaling: str, train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scale inputs in 0..1; mean and spread are those of the training set."""
    if train.dtype.kind in "ibV":
        if scaling != "none":
            what = (
                f"several arrays ({sample_text(train)})" if train.dtype.names else "whole numbers"
            )
            raise SettingsError(f"dataset.scaling: {scaling} of {what}; valid: none")
        return train, test
    if scaling != "standard":
        return train.astype(np.float32), test.astype(np.float32)
    mean, spread = train.mean(), train.std()
    return ((train - mean) / spread).astype(np.float32), ((test - mean) / spread).astype(np.float32)

"""Load a data set by its settings: split, scaling, the first samples only."""

import dataclasses
from pathlib import Path

import numpy as np

from repast_dist.ground.errors import SettingsError
from repast_dist.training.datasets.cifar import load_cifar10
from repast_dist.training.datasets.digits import load_digits
from repast_dist.training.datasets.mnist import FASHION_MNIST, MNIST, load_full, load_small
from repast_dist.training.datasets.split import Samples
from repast_dist.training.specs import DatasetSpec

SOURCES = {
    "digits": (
        "Optical Recognition of Handwritten Digits (Alpaydin and Kaynak 1998), UCI, CC BY 4.0, "
        "as in scikit-learn"
    ),
    "fashion_small": (
        "10,000 + 2,000 images of Fashion-MNIST (Xiao, Rasul, Vollgraf 2017), MIT, shipped here"
    ),
    "fashion_mnist": "Fashion-MNIST (Xiao, Rasul, Vollgraf 2017), MIT, from files",
    "mnist": "MNIST (LeCun, Cortes, Burges 1998), from files",
    "cifar10": "CIFAR-10 (Krizhevsky 2009), from files",
}


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Images with their classes, split into training and test set.

    Attributes
    ----------
    name : str
        Shown in reports.
    train_inputs, test_inputs : ndarray
        (N, C, H, W) float32, scaled as the settings ask.
    train_labels, test_labels : ndarray
        (N,) int64.
    classes : int
        Number of classes.
    source : str
        Where the data come from and their licence.
    """

    name: str
    train_inputs: np.ndarray
    train_labels: np.ndarray
    test_inputs: np.ndarray
    test_labels: np.ndarray
    classes: int
    source: str

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Channels, height, width."""
        return self.train_inputs.shape[1:]


def load_dataset(spec: DatasetSpec) -> Dataset:
    """Load, split and scale.

    Raises
    ------
    DataError
        Files are missing, damaged or of another format.
    SettingsError
        More training samples are asked for than there are.
    """
    train, test = _read(spec)
    wanted = len(train[0]) if spec.train_samples is None else spec.train_samples
    if wanted > len(train[0]):
        raise SettingsError(
            f"dataset.train_samples: {wanted} asked for, {spec.name} has {len(train[0])}"
        )
    train_inputs, test_inputs = _scaled(spec.scaling, train[0][:wanted], test[0])
    return Dataset(
        spec.name,
        train_inputs,
        train[1][:wanted],
        test_inputs,
        test[1],
        int(train[1].max()) + 1,
        SOURCES[spec.name],
    )


def _read(spec: DatasetSpec) -> tuple[Samples, Samples]:
    folder = Path(spec.folder)
    match spec.name:
        case "digits":
            return load_digits(spec.test_fraction, spec.split_seed)
        case "fashion_small":
            return load_small()
        case "fashion_mnist":
            return load_full(folder, FASHION_MNIST)
        case "mnist":
            return load_full(folder, MNIST)
        case "cifar10":
            return load_cifar10(folder)


def _scaled(scaling: str, train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scale pixels in 0..1; mean and spread are those of the training set."""
    if scaling == "unit":
        return train.astype(np.float32), test.astype(np.float32)
    mean, spread = train.mean(), train.std()
    return ((train - mean) / spread).astype(np.float32), ((test - mean) / spread).astype(np.float32)

"""Load a data set by its settings: split, scaling, the first samples only."""

import dataclasses

import numpy as np

from repast_dist.errors import SettingsError
from repast_dist.training.datasets.digits import load_digits
from repast_dist.training.specs import DatasetSpec


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
    train, test, source = load_digits(spec.test_fraction, spec.split_seed)
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
        source,
    )


def _scaled(scaling: str, train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scale pixels in 0..1; mean and spread are those of the training set."""
    if scaling == "unit":
        return train.astype(np.float32), test.astype(np.float32)
    mean, spread = train.mean(), train.std()
    return ((train - mean) / spread).astype(np.float32), ((test - mean) / spread).astype(np.float32)

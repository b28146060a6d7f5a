"""The 1,797 handwritten digits that ship with scikit-learn."""

import numpy as np
from sklearn.datasets import load_digits as load_from_sklearn

from repast_dist.rng import generator

Samples = tuple[np.ndarray, np.ndarray]

SOURCE = (
    "Optical Recognition of Handwritten Digits (Alpaydin and Kaynak 1998), UCI, CC BY 4.0, "
    "as in scikit-learn"
)
_LEVELS = 16.0


def load_digits(test_fraction: float, split_seed: int) -> tuple[Samples, Samples, str]:
    """Return (inputs, labels) for training and test, and the source.

    Inputs are (N, 1, 8, 8) in 0..1. The split takes the same share of every class, in an order
    drawn from `split_seed`.
    """
    raw = load_from_sklearn()
    inputs = (raw.images / _LEVELS)[:, None]
    labels = raw.target.astype(np.int64)
    train, test = stratified_split(labels, test_fraction, split_seed)
    return (inputs[train], labels[train]), (inputs[test], labels[test]), SOURCE


def stratified_split(
    labels: np.ndarray, test_fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return sample numbers of the training and of the test set, each in random order."""
    train, test = [], []
    for label in np.unique(labels):
        members = generator(seed, "split", int(label)).permutation(np.flatnonzero(labels == label))
        count = round(test_fraction * len(members))
        test.append(members[:count])
        train.append(members[count:])
    order = generator(seed, "order")
    return order.permutation(np.concatenate(train)), order.permutation(np.concatenate(test))

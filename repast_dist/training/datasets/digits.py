"""The 1,797 handwritten digits that ship with scikit-learn."""

import numpy as np

from repast_dist.training.datasets.split import Samples, stratified_split

_LEVELS = 16.0


def load_digits(test_fraction: float, split_seed: int) -> tuple[Samples, Samples]:
    """Return (inputs, labels) for training and test.

    Inputs are (N, 1, 8, 8) in 0..1. The split takes the same share of every class, in an order
    drawn from `split_seed`.
    """
    # Chips import this module too and never load the data: scikit-learn takes a second.
    from sklearn.datasets import load_digits as load_from_sklearn

    raw = load_from_sklearn()
    inputs = (raw.images / _LEVELS)[:, None]
    labels = raw.target.astype(np.int64)
    train, test = stratified_split(labels, test_fraction, split_seed)
    return (inputs[train], labels[train]), (inputs[test], labels[test])

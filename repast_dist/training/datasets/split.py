"""Choose samples class by class, for stratified splits and balanced subsets."""

import numpy as np

from repast_dist.ground.rng import generator

Samples = tuple[np.ndarray, np.ndarray]
"""(N, C, H, W) inputs in 0..1 and (N,) int64 labels."""


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


def balanced_subset(labels: np.ndarray, per_class: int, seed: int) -> np.ndarray:
    """Return the numbers of `per_class` samples of every class, in random order."""
    chosen = [
        generator(seed, "subset", int(label)).permutation(np.flatnonzero(labels == label))[
            :per_class
        ]
        for label in np.unique(labels)
    ]
    return generator(seed, "subset order").permutation(np.concatenate(chosen))

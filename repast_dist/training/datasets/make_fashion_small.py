"""Make the shipped part of Fashion-MNIST from the full set.

Run once, from Debian's package (no root needed)::

    apt-get download dataset-fashion-mnist
    dpkg-deb -x dataset-fashion-mnist_*.deb unpacked
    python -m repast_dist.training.datasets.make_fashion_small \
        unpacked/usr/share/datasets/fashion-mnist repast_dist/training/datasets/files

1,000 training images per class come from the training set, 200 test images per class from the
test set, drawn with a fixed seed.
"""

import sys
from pathlib import Path

import numpy as np

from repast_dist.training.datasets.fashion_mnist import FashionMnist
from repast_dist.training.datasets.fashion_small import FILE
from repast_dist.training.datasets.idx import load_idx
from repast_dist.training.datasets.split import balanced_subset

TRAIN_PER_CLASS, TEST_PER_CLASS, SEED = 1_000, 200, 2017


def make(source: Path, target: Path) -> Path:
    """Write the subset of the IDX files in `source` into the folder `target`."""
    images, labels, test_images, test_labels = (
        load_idx(source, file) for file in FashionMnist.files
    )
    train = balanced_subset(labels, TRAIN_PER_CLASS, SEED)
    test = balanced_subset(test_labels, TEST_PER_CLASS, SEED)
    path = target / FILE
    np.savez_compressed(
        path,
        train_images=images[train],
        train_labels=labels[train],
        test_images=test_images[test],
        test_labels=test_labels[test],
    )
    return path


if __name__ == "__main__":
    print(make(Path(sys.argv[1]), Path(sys.argv[2])))

"""MNIST and Fashion-MNIST: the full sets from IDX files, and the shipped part of the second."""

from importlib.resources import as_file, files
from pathlib import Path

import numpy as np

from repast_dist.training.datasets.idx import IdxFile, load_idx
from repast_dist.training.datasets.split import Samples

MNIST = (
    IdxFile(
        "train-images-idx3-ubyte",
        (60_000, 28, 28),
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    IdxFile(
        "train-labels-idx1-ubyte",
        (60_000,),
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    IdxFile(
        "t10k-images-idx3-ubyte",
        (10_000, 28, 28),
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    IdxFile(
        "t10k-labels-idx1-ubyte",
        (10_000,),
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
)
"""MNIST (LeCun, Cortes, Burges 1998)."""

FASHION_MNIST = (
    IdxFile(
        "train-images-idx3-ubyte",
        (60_000, 28, 28),
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    ),
    IdxFile(
        "train-labels-idx1-ubyte",
        (60_000,),
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    ),
    IdxFile(
        "t10k-images-idx3-ubyte",
        (10_000, 28, 28),
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    ),
    IdxFile(
        "t10k-labels-idx1-ubyte",
        (10_000,),
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
)
"""Fashion-MNIST (Xiao, Rasul, Vollgraf 2017), as in Debian's dataset-fashion-mnist."""

SMALL_FILE = "fashion_small.npz"
_LEVELS = 255.0


def load_full(
    folder: Path, wanted: tuple[IdxFile, IdxFile, IdxFile, IdxFile]
) -> tuple[Samples, Samples]:
    """Return (inputs, labels) for training and test; inputs (N, 1, 28, 28) in 0..1.

    Raises
    ------
    DataError
        A file is missing, damaged or another one.
    """
    images, labels, test_images, test_labels = (load_idx(folder, file) for file in wanted)
    return _samples(images, labels), _samples(test_images, test_labels)


def load_small() -> tuple[Samples, Samples]:
    """Return the shipped part of Fashion-MNIST: 10,000 + 2,000 samples, classes balanced."""
    place = files("repast_dist.training.datasets") / "files" / SMALL_FILE
    with as_file(place) as path, np.load(path, allow_pickle=False) as arrays:
        return (
            _samples(arrays["train_images"], arrays["train_labels"]),
            _samples(arrays["test_images"], arrays["test_labels"]),
        )


def _samples(images: np.ndarray, labels: np.ndarray) -> Samples:
    inputs = (images.astype(np.float32) / np.float32(_LEVELS))[:, None]
    return inputs, labels.astype(np.int64)

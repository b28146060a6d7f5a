"""Samples and augmentations of a user's own, without PyTorch."""

import random

import numpy as np


def make(samples=128, classes=10, seed=0):
    """Images whose brightness is their class, as bytes."""
    generator = np.random.default_rng(seed)
    labels = np.arange(samples + 32) % classes
    images = generator.integers(0, 100, (samples + 32, 1, 8, 8)) + 15 * labels[:, None, None, None]
    images = images.astype(np.uint8)
    return (images[:samples], labels[:samples]), (images[samples:], labels[samples:])


def items():
    """The same as data sets whose items are pairs."""
    (x, y), (x_test, y_test) = make()
    return list(zip(x, y, strict=True)), list(zip(x_test, y_test, strict=True))


def mapping():
    (x, y), (x_test, y_test) = make()
    return {"x_train": x, "y_train": y, "x_test": x_test, "y_test": y_test}


def numbers():
    (x, y), (x_test, y_test) = make()
    return (x, y / 3), (x_test, y_test / 3)


def negative():
    (x, y), test = make()
    return (x, y - 1), test


def not_finite():
    (x, y), test = make()
    return (x / 0.0, y), test


def mirror(image, random):
    return image[:, :, ::-1] if random.random() < 0.5 else image


def mirror_by_global_streams(image, _):
    return image[:, :, ::-1] if random.random() + np.random.random() < 1 else image  # noqa: NPY002


def crop(image, random):
    return image[:, 1:]


def several(form="several"):
    """Images with a row of four numbers, a mask and two labels each."""
    (x, y), (x_test, y_test) = make()
    return tuple(
        {
            "several": (a, a[:, 0, 0, :4] / 1.0, a[:, 0] > 50, b),
            "items": [
                ((one, one[0, 0, :4] / 1.0, one[0] > 50), label)
                for one, label in zip(a, b, strict=True)
            ],
            "two labels": {"image": a, "labels": {"kind": b, "half": b / 2}},
            "too few": (a, a[:-1, 0, 0, :4] / 1.0, b),
            "no name": {"an image": a, "labels": b},
        }[form]
        for a, b in ((x, y), (x_test, y_test))
    )

"""A data set of one's own: bright squares on the left or on the right of an image."""

from typing import ClassVar, Literal

import numpy as np

from repast_dist.ground.numbers import PositiveInt
from repast_dist.ground.spec import spec
from repast_dist.training.datasets import DATASETS, DataSource


@DATASETS.register
@spec
class Squares(DataSource):
    """Images of 8x8 with a square in one of two halves.

    Attributes
    ----------
    name : {"squares"}
        The data set's name.
    samples : int
        Training samples; half as many are tested.
    """

    name: Literal["squares"] = "squares"
    samples: PositiveInt = 256

    source: ClassVar[str] = "drawn by chance, with a fixed seed"

    def read(self):
        """Return the images, (N, 1, 8, 8), and which half the square is in."""
        random = np.random.default_rng(0)
        count = self.samples + self.samples // 2
        labels = random.integers(0, 2, count)
        images = random.uniform(0.0, 0.3, (count, 1, 8, 8))
        for image, label in zip(images, labels, strict=True):
            top, left = random.integers(0, 5), 4 * label
            image[0, top : top + 4, left : left + 4] += 0.6
        split = self.samples
        return (images[:split], labels[:split]), (images[split:], labels[split:])

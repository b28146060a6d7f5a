"""``fashion_small``: the part of Fashion-MNIST that is shipped with the package."""

from importlib.resources import as_file, files
from typing import ClassVar, Literal

import numpy as np

from repast_dist.ground.spec import spec
from repast_dist.training.datasets.base import DATASETS, DataSource
from repast_dist.training.datasets.checks import as_samples
from repast_dist.training.datasets.split import Samples

FILE = "fashion_small.npz"


@DATASETS.register
@spec
class FashionSmall(DataSource):
    """10,000 + 2,000 images of 28x28 of Fashion-MNIST, classes balanced, shipped.

    Attributes
    ----------
    name : {"fashion_small"}
        The data set's name.
    """

    name: Literal["fashion_small"] = "fashion_small"

    source: ClassVar[str] = (
        "10,000 + 2,000 images of Fashion-MNIST (Xiao, Rasul, Vollgraf 2017), MIT, shipped here"
    )

    def read(self) -> tuple[Samples, Samples]:
        """Return the images, (N, 1, 28, 28)."""
        place = files("repast_dist.training.datasets") / "files" / FILE
        with as_file(place) as path, np.load(path, allow_pickle=False) as arrays:
            return (
                as_samples(arrays["train_images"], arrays["train_labels"], f"{FILE}, train"),
                as_samples(arrays["test_images"], arrays["test_labels"], f"{FILE}, test"),
            )

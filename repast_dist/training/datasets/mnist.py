"""``mnist``: handwritten digits (LeCun, Cortes, Burges 1998)."""

from typing import ClassVar, Literal

from repast_dist.ground.spec import spec
from repast_dist.training.datasets.base import DATASETS
from repast_dist.training.datasets.idx import IdxFile, IdxSource


@DATASETS.register
@spec
class Mnist(IdxSource):
    """MNIST, 60,000 + 10,000 of 28x28, from its four IDX files (gzipped or not).

    Attributes
    ----------
    name : {"mnist"}
        The data set's name.
    folder : str
        Where its files lie.
    """

    name: Literal["mnist"] = "mnist"
    folder: str = "data/mnist"

    source: ClassVar[str] = "MNIST (LeCun, Cortes, Burges 1998), from files"

    files = (
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
    """Training images and labels, test images and labels."""

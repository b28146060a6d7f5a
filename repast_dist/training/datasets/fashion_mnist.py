"""``fashion_mnist``: pictures of clothes (Xiao, Rasul, Vollgraf 2017)."""

from typing import ClassVar, Literal

from repast_dist.ground.spec import spec
from repast_dist.training.datasets.base import DATASETS
from repast_dist.training.datasets.idx import IdxFile, IdxSource


@DATASETS.register
@spec
class FashionMnist(IdxSource):
    """Fashion-MNIST, 60,000 + 10,000 of 28x28, from its four IDX files (gzipped or not).

    Attributes
    ----------
    name : {"fashion_mnist"}
        The data set's name.
    folder : str
        Where its files lie.
    """

    name: Literal["fashion_mnist"] = "fashion_mnist"
    folder: str = "data/fashion-mnist"

    source: ClassVar[str] = "Fashion-MNIST (Xiao, Rasul, Vollgraf 2017), MIT, from files"

    files = (
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
    """Training images and labels, test images and labels, as in Debian's dataset-fashion-mnist."""

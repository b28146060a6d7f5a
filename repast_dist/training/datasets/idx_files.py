"""``idx``: pictures of your own in four IDX files."""

from pathlib import Path
from typing import ClassVar, Literal

from repast_dist.ground.errors import DataError
from repast_dist.ground.spec import spec
from repast_dist.training.datasets.base import DATASETS, DataSource
from repast_dist.training.datasets.checks import as_samples
from repast_dist.training.datasets.idx import idx_path, read_idx
from repast_dist.training.datasets.split import Samples


@DATASETS.register
@spec
class IdxFiles(DataSource):
    """Pictures of any size and number of classes in four IDX files, gzipped or not.

    Attributes
    ----------
    name : {"idx"}
        The data set's name.
    folder : str
        Where its files lie.
    train_images, train_labels, test_images, test_labels : str
        Their names; the same names with ``.gz`` serve too. Images are (N, H, W) or (N, C, H, W),
        labels (N,), all of unsigned bytes.
    """

    name: Literal["idx"] = "idx"
    folder: str = "data/idx"
    train_images: str = "train-images-idx3-ubyte"
    train_labels: str = "train-labels-idx1-ubyte"
    test_images: str = "t10k-images-idx3-ubyte"
    test_labels: str = "t10k-labels-idx1-ubyte"

    source: ClassVar[str] = "IDX files of one's own, from dataset.folder"

    def read(self) -> tuple[Samples, Samples]:
        """Return the images, (N, C, H, W)."""
        folder = Path(self.folder)
        names = (self.train_images, self.train_labels, self.test_images, self.test_labels)
        missing = [name for name in names if not idx_path(folder, name)]
        if missing:
            raise DataError(
                f"dataset.folder: {folder} has neither {', '.join(missing)} nor the same with .gz; "
                "put the files there, or name those that are"
            )
        images, labels, test_images, test_labels = (read_idx(folder, name) for name in names)
        return (
            as_samples(images, labels, f"{folder}, train"),
            as_samples(test_images, test_labels, f"{folder}, test"),
        )

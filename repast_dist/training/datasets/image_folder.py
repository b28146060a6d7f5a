"""``image_folder``: pictures of your own, a folder per class."""

import importlib
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from annotated_types import Ge, Gt, Lt

from repast_dist.ground.errors import DataError, SettingsError
from repast_dist.ground.numbers import PositiveInt
from repast_dist.ground.spec import spec
from repast_dist.training.datasets.base import DATASETS, DataSource
from repast_dist.training.datasets.checks import as_samples
from repast_dist.training.datasets.split import Samples, stratified_split

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
_MODES = {1: "L", 3: "RGB"}


@DATASETS.register
@spec
class ImageFolder(DataSource):
    """Pictures in ``folder/train/<class>/`` and ``folder/test/<class>/``, or in ``folder/<class>/``
    of which every class gives the same share to the test set. Needs Pillow.

    Attributes
    ----------
    name : {"image_folder"}
        The data set's name.
    folder : str
        Where the folders of the classes lie; classes are numbered in the order of their names.
    channels : {1, 3}
        Grey or red, green, blue.
    height, width : int
        Pictures of other sizes are resampled to it (bilinear).
    test_fraction : float
        Share of samples held out where there is no ``test`` folder.
    split_seed : int
        Seed of that split.
    """

    name: Literal["image_folder"] = "image_folder"
    folder: str = "data/images"
    channels: Literal[1, 3] = 3
    height: PositiveInt = 32
    width: PositiveInt = 32
    test_fraction: Annotated[float, Gt(0), Lt(1)] = 0.2
    split_seed: Annotated[int, Ge(0)] = 0

    source: ClassVar[str] = "pictures of one's own, from dataset.folder"

    def read(self) -> tuple[Samples, Samples]:
        """Return the pictures, (N, channels, height, width)."""
        folder = Path(self.folder)
        if not folder.is_dir():
            raise DataError(f"dataset.folder: {folder} is not a folder")
        if (folder / "train").is_dir() and (folder / "test").is_dir():
            classes = _classes_in(folder / "train")
            strange = set(_classes_in(folder / "test")) - set(classes)
            if strange:
                raise DataError(
                    f"dataset.folder: {folder / 'test'} has classes that are not in train: "
                    f"{', '.join(sorted(strange))}"
                )
            return tuple(  # type: ignore[return-value]
                self._samples(folder / part, classes) for part in ("train", "test")
            )
        images, labels = self._samples(folder, _classes_in(folder))
        train, test = stratified_split(labels, self.test_fraction, self.split_seed)
        return (images[train], labels[train]), (images[test], labels[test])

    def _samples(self, folder: Path, classes: list[str]) -> Samples:
        images, labels = [], []
        for label, name in enumerate(classes):
            for path in sorted((folder / name).glob("*")):
                if path.suffix.lower() in _SUFFIXES:
                    images.append(self._picture(path))
                    labels.append(label)
        if not images:
            raise DataError(f"dataset.folder: no pictures below {folder}")
        return as_samples(np.stack(images), np.array(labels), str(folder))

    def _picture(self, path: Path) -> np.ndarray:
        """Return one picture, (channels, height, width) uint8."""
        image = _pillow()
        try:
            with image.open(path) as opened:
                picture = opened.convert(_MODES[self.channels])
                size = (self.width, self.height)
                if picture.size != size:
                    picture = picture.resize(size, image.Resampling.BILINEAR)
                pixels = np.asarray(picture, np.uint8)
        except (OSError, ValueError, SyntaxError, image.DecompressionBombError) as error:
            raise DataError(f"{path}: cannot be read: {error}") from None
        return pixels.reshape(self.height, self.width, self.channels).transpose(2, 0, 1)


def _classes_in(folder: Path) -> list[str]:
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    if not names:
        raise DataError(f"dataset.folder: {folder} has no folders of classes")
    return names


def _pillow() -> Any:
    try:
        return importlib.import_module("PIL.Image")
    except ImportError:
        raise SettingsError(
            "dataset=image_folder needs Pillow: pip install 'repast_dist[images]'"
        ) from None

"""``letters``: handwritten letters of EMNIST where its files are, drawn ones otherwise."""

import dataclasses
import hashlib
import logging
import zipfile
import zlib
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Ge

from repast_dist.ground.errors import DataError
from repast_dist.ground.rng import generator
from repast_dist.ground.spec import spec
from repast_dist.training.datasets.base import DATASETS, Dataset, DataSource
from repast_dist.training.datasets.checks import as_samples
from repast_dist.training.datasets.idx import idx_path, read_idx, read_packed_idx
from repast_dist.training.datasets.letter_strokes import LETTERS, drawn_letters
from repast_dist.training.datasets.split import Samples

ARCHIVE = "gzip.zip"
ARCHIVE_MD5 = "58c8d27c78d21e728a6bc7b3cc06412e"
"""As torchvision checks it (torchvision/datasets/mnist.py)."""
EMNIST = tuple(
    f"emnist-letters-{part}-{what}"
    for part in ("train", "test")
    for what in ("images-idx3-ubyte", "labels-idx1-ubyte")
)
SHAPES = ((124_800, 28, 28), (124_800,), (20_800, 28, 28), (20_800,))
"""Of the published files, in the same order."""
_DRAWN_TRAIN, _DRAWN_TEST = LETTERS * 400, LETTERS * 100

log = logging.getLogger(__name__)


@DATASETS.register
@spec
class Letters(DataSource):
    """26 letters of 28x28, capitals and small ones of a class: EMNIST's, or drawn ones.

    Attributes
    ----------
    name : {"letters"}
        The data set's name.
    folder : str
        Where EMNIST's archive ``gzip.zip`` lies, or the four IDX files ``emnist-letters-*`` out of
        it, gzipped or not.
    origin : {"present", "emnist", "drawn"}
        EMNIST's where its files are present and drawn ones otherwise, or always one of them.
        Drawn ones are shipped strokes, bent, slanted and inked anew for every picture.
    split_seed : int
        Seed of the order of EMNIST's samples and of all that is drawn; apart from the run's seed,
        so that runs compare on the same pictures.
    """

    name: Literal["letters"] = "letters"
    folder: str = "data/emnist"
    origin: Literal["present", "emnist", "drawn"] = "present"
    split_seed: Annotated[int, Ge(0)] = 0

    source: ClassVar[str] = "EMNIST letters (Cohen et al. 2017), from files"
    drawn_source: ClassVar[str] = (
        "drawn letters: strokes of the Hershey fonts, bent anew for every picture, shipped here; a "
        "stand-in for EMNIST letters, whose files are not in dataset.folder"
    )

    @property
    def uses_emnist(self) -> bool:
        """Whether samples come from EMNIST's files."""
        if self.origin != "present":
            return self.origin == "emnist"
        folder = Path(self.folder)
        return (folder / ARCHIVE).is_file() or any(idx_path(folder, name) for name in EMNIST)

    def load(self) -> Dataset:
        """Read the samples and say where they come from."""
        data = super().load()
        return data if self.uses_emnist else dataclasses.replace(data, source=self.drawn_source)

    def read(self) -> tuple[Samples, Samples]:
        """Return the pictures, (N, 1, 28, 28)."""
        if self.uses_emnist:
            return self._emnist()
        train, test = (
            drawn_letters(_read(wanted, all_there), self.split_seed, part)
            for part, wanted, all_there in (
                ("train", self.train_samples, _DRAWN_TRAIN),
                ("test", self.test_samples, _DRAWN_TEST),
            )
        )
        return train, test

    def _emnist(self) -> tuple[Samples, Samples]:
        folder = Path(self.folder)
        archive = folder / ARCHIVE
        from_archive = not any(idx_path(folder, name) for name in EMNIST) and archive.is_file()
        if not (from_archive or all(idx_path(folder, name) for name in EMNIST)):
            raise DataError(
                f"dataset.folder: {folder} has neither {ARCHIVE} nor all of {', '.join(EMNIST)}, "
                "with or without .gz; put them there; valid without them: dataset.origin=drawn"
            )
        arrays = _in_archive(archive) if from_archive else [read_idx(folder, x) for x in EMNIST]
        for name, array, shape in zip(EMNIST, arrays, SHAPES, strict=True):
            if array.shape != shape:
                log.warning("%s: %s holds %s, the published file %s",
                            folder, name, array.shape, shape)  # fmt: skip
        train, test = (
            self._shuffled(arrays[i], arrays[i + 1], name)
            for i, name in ((0, "train"), (2, "test"))
        )
        return train, test

    def _shuffled(self, images: np.ndarray, labels: np.ndarray, part: str) -> Samples:
        """Return pictures upright, labels from 0, in an order of which any first ones are mixed."""
        where = f"{self.folder}, {part}"
        if images.ndim != 3 or labels.ndim != 1 or not 1 <= labels.min() <= labels.max() <= LETTERS:
            raise DataError(
                f"{where}: images of shape {images.shape}, labels of shape {labels.shape} from "
                f"{labels.min()} to {labels.max()}; valid: (N, H, W), and (N,) from 1 to {LETTERS}"
            )
        # Its files hold the columns of a picture one after the other.
        upright, counted = as_samples(images.transpose(0, 2, 1), labels - 1, where)
        order = generator(self.split_seed, "emnist", part).permutation(len(counted))
        return upright[order], counted[order]


def _read(wanted: int | None, all_there: int) -> int:
    """Return how many pictures to draw: no more than are asked for, but every letter once."""
    return min(all_there, max(LETTERS, wanted or all_there))


def _in_archive(path: Path) -> list[np.ndarray]:
    """Return the four arrays out of the published archive."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
    if (found := digest.hexdigest()) != ARCHIVE_MD5:
        log.warning("%s: not the published file (MD5 %s, not %s)", path, found, ARCHIVE_MD5)
    try:
        with zipfile.ZipFile(path) as archive:
            return [_member(archive, f"gzip/{name}.gz", path) for name in EMNIST]
    except (zipfile.BadZipFile, OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None


def _member(archive: zipfile.ZipFile, name: str, path: Path) -> np.ndarray:
    if name not in archive.namelist():
        raise DataError(f"{path}: {name} is not in it")
    with archive.open(name) as packed:
        return read_packed_idx(packed, path / name)

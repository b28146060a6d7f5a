"""``cifar10`` is read from the archive its authors publish, ``cifar-10-binary.tar.gz``."""

import hashlib
import logging
import tarfile
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from repast_dist.ground.errors import DataError
from repast_dist.ground.spec import spec
from repast_dist.training.datasets.base import DATASETS, DataSource
from repast_dist.training.datasets.split import Samples

ARCHIVE = "cifar-10-binary.tar.gz"
ARCHIVE_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
"""As printed on the data set's page."""

IMAGE_SHAPE = (3, 32, 32)
RECORDS_PER_FILE = 10_000
_RECORD_BYTES = 1 + int(np.prod(IMAGE_SHAPE))
_FOLDER = "cifar-10-batches-bin"
_TRAIN = tuple(f"{_FOLDER}/data_batch_{number}.bin" for number in range(1, 6))
_TEST = f"{_FOLDER}/test_batch.bin"
_CLASSES = 10
_LEVELS = 255.0

log = logging.getLogger(__name__)


@DATASETS.register
@spec
class Cifar10(DataSource):
    """CIFAR-10, 50,000 + 10,000 of 3x32x32, from its binary archive.

    Attributes
    ----------
    name : {"cifar10"}
        The data set's name.
    folder : str
        Where ``cifar-10-binary.tar.gz`` lies.
    """

    name: Literal["cifar10"] = "cifar10"
    folder: str = "data/cifar10"

    source: ClassVar[str] = "CIFAR-10 (Krizhevsky 2009), from files"

    def read(self) -> tuple[Samples, Samples]:
        """Return the images, (N, 3, 32, 32)."""
        path = Path(self.folder) / ARCHIVE
        if not path.is_file():
            raise DataError(f"dataset.folder: {ARCHIVE} is not in {self.folder}; put it there")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
        if (found := digest.hexdigest()) != ARCHIVE_MD5:
            log.warning("%s: not the published file (MD5 %s, not %s)", path, found, ARCHIVE_MD5)
        try:
            with tarfile.open(path, "r:gz") as archive:
                parts = [
                    parse_records(_member(archive, name), name, RECORDS_PER_FILE)
                    for name in (*_TRAIN, _TEST)
                ]
        except (tarfile.TarError, OSError, EOFError) as error:
            raise DataError(f"{path}: cannot be read: {error}") from None
        train, test = parts[:-1], parts[-1]
        return (np.concatenate([p[0] for p in train]), np.concatenate([p[1] for p in train])), test


def parse_records(content: bytes, name: str, records: int) -> Samples:
    """Return the inputs and labels in one binary file; `name` appears in messages.

    A record is one byte of label and 3,072 bytes of pixels: the red plane, green, blue, each row
    by row.
    """
    if len(content) != records * _RECORD_BYTES:
        raise DataError(f"{name}: {len(content)} bytes, expected {records * _RECORD_BYTES}")
    table = np.frombuffer(content, np.uint8).reshape(records, _RECORD_BYTES)
    labels = table[:, 0].astype(np.int64)
    if labels.max() >= _CLASSES:
        raise DataError(f"{name}: a label of {labels.max()}; valid: 0 to {_CLASSES - 1}")
    inputs = table[:, 1:].astype(np.float32) / np.float32(_LEVELS)
    return inputs.reshape(records, *IMAGE_SHAPE), labels


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    try:
        file = archive.extractfile(name)
    except KeyError:
        file = None
    if file is None:
        raise DataError(f"{ARCHIVE}: {name} is not in it")
    return file.read()

"""Read IDX files (the format of MNIST), gzipped or not, and check what they hold."""

import dataclasses
import gzip
import hashlib
import zlib
from pathlib import Path
from typing import ClassVar

import numpy as np

from repast_dist.ground.errors import DataError
from repast_dist.ground.spec import spec
from repast_dist.training.datasets.base import DataSource
from repast_dist.training.datasets.split import Samples

_UNSIGNED_BYTE = 0x08
_LEVELS = 255.0


@dataclasses.dataclass(frozen=True)
class IdxFile:
    """The name, shape and checksum that a file must have.

    Attributes
    ----------
    name : str
        File name; the same name with ``.gz`` serves too.
    shape : tuple of int
        Dimensions of the array in it.
    sha256 : str
        Checksum of the file's unzipped content.
    """

    name: str
    shape: tuple[int, ...]
    sha256: str


@spec
class IdxSource(DataSource):
    """A data set of small grey pictures in four IDX files, gzipped or not.

    Attributes
    ----------
    folder : str
        Where its files lie.
    """

    folder: str = ""

    files: ClassVar[tuple[IdxFile, IdxFile, IdxFile, IdxFile]]
    """Training images and labels, test images and labels."""

    def read(self) -> tuple[Samples, Samples]:
        """Return the images, (N, 1, H, W)."""
        folder = Path(self.folder)
        images, labels, test_images, test_labels = (load_idx(folder, item) for item in self.files)
        return as_samples(images, labels), as_samples(test_images, test_labels)


def as_samples(images: np.ndarray, labels: np.ndarray) -> Samples:
    """Return uint8 images (N, H, W) as inputs (N, 1, H, W) in 0..1, with their labels."""
    inputs = (images.astype(np.float32) / np.float32(_LEVELS))[:, None]
    return inputs, labels.astype(np.int64)


def load_idx(folder: Path, wanted: IdxFile) -> np.ndarray:
    """Read and check one file of a known data set.

    Returns
    -------
    ndarray
        uint8, of the wanted shape.

    Raises
    ------
    DataError
        The file is missing, unreadable, of another format or size, or has another checksum.
    """
    path = next((p for p in _candidates(folder, wanted.name) if p.is_file()), None)
    if path is None:
        raise DataError(
            f"dataset.folder: neither {wanted.name} nor {wanted.name}.gz is in {folder}; "
            "put the data set's files there"
        )
    content = _content(path)
    array = parse_idx(content, path)
    if array.shape != wanted.shape:
        raise DataError(f"{path}: holds an array of {array.shape}, expected {wanted.shape}")
    found = hashlib.sha256(content).hexdigest()
    if found != wanted.sha256:
        raise DataError(
            f"{path}: SHA-256 of the unzipped content is {found}, expected {wanted.sha256}; "
            "the file is damaged or another data set"
        )
    return array


def parse_idx(content: bytes, path: Path) -> np.ndarray:
    """Return the array in an IDX file of unsigned bytes; `path` appears in messages.

    The format: two zero bytes, a type, the number of dimensions, each dimension as a big-endian
    32-bit integer, the values in row-major order.
    """
    if len(content) < 4 or content[:2] != b"\0\0":
        raise DataError(f"{path}: not an IDX file (it must start with two zero bytes)")
    if content[2] != _UNSIGNED_BYTE:
        raise DataError(f"{path}: values of type 0x{content[2]:02x}; expected unsigned bytes, 0x08")
    header = 4 + 4 * content[3]
    if len(content) < header:
        raise DataError(f"{path}: ends inside its header")
    shape = tuple(int(size) for size in np.frombuffer(content[4:header], ">u4"))
    expected = int(np.prod(shape, dtype=np.int64))
    if len(content) - header != expected:
        raise DataError(
            f"{path}: {len(content) - header} bytes of values; its header says {expected}"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _candidates(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / name, folder / f"{name}.gz"


def _content(path: Path) -> bytes:
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None

"""Read IDX files (the format of MNIST), gzipped or not, and check what they hold."""

import dataclasses
import gzip
import hashlib
import logging
import math
import zlib
from pathlib import Path
from typing import IO, ClassVar

import numpy as np

from repast_dist.ground.errors import DataError
from repast_dist.ground.spec import spec
from repast_dist.training.datasets.base import DataSource
from repast_dist.training.datasets.checks import as_samples
from repast_dist.training.datasets.split import Samples

_UNSIGNED_BYTE = 0x08
_MOST_DIMENSIONS = 8
# Far more than any data set of small pictures has; a packed file may claim to hold anything.
_MOST_BYTES = 1 << 28

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class IdxFile:
    """The name, shape and checksum that a file of a known data set has.

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
        return (
            as_samples(images, labels, f"{folder}, train"),
            as_samples(test_images, test_labels, f"{folder}, test"),
        )


def load_idx(folder: Path, wanted: IdxFile) -> np.ndarray:
    """Read and check one file of a known data set. Another content of the right format is taken,
    with a warning that says how it differs.

    Returns
    -------
    ndarray
        uint8, of as many dimensions as the known file.

    Raises
    ------
    DataError
        The file is missing, unreadable or of another format.
    """
    path, content = _found(folder, wanted.name)
    array = parse_idx(content, path)
    if array.ndim != len(wanted.shape):
        raise DataError(
            f"{path}: holds an array of {array.ndim} dimensions, {array.shape}; expected "
            f"{len(wanted.shape)}, as in {wanted.shape}"
        )
    if array.shape != wanted.shape:
        log.warning("%s: holds %s, the published file %s", path, array.shape, wanted.shape)
    elif (found := hashlib.sha256(content).hexdigest()) != wanted.sha256:
        log.warning(
            "%s: not the published file (SHA-256 of the unzipped content %s..., not %s...)",
            path,
            found[:12],
            wanted.sha256[:12],
        )
    return array


def read_idx(folder: Path, name: str) -> np.ndarray:
    """Read an IDX file of unsigned bytes, gzipped or not.

    Raises
    ------
    DataError
        The file is missing, unreadable or of another format.
    """
    path, content = _found(folder, name)
    return parse_idx(content, path)


def parse_idx(content: bytes, path: Path) -> np.ndarray:
    """Return the array in an IDX file of unsigned bytes; `path` appears in messages.

    The format: two zero bytes, a type, the number of dimensions, each dimension as a big-endian
    32-bit integer, the values in row-major order.
    """
    if len(content) < 4 or content[:2] != b"\0\0":
        raise DataError(f"{path}: not an IDX file (it must start with two zero bytes)")
    if content[2] != _UNSIGNED_BYTE:
        raise DataError(f"{path}: values of type 0x{content[2]:02x}; expected unsigned bytes, 0x08")
    if content[3] > _MOST_DIMENSIONS:
        raise DataError(f"{path}: {content[3]} dimensions; at most {_MOST_DIMENSIONS} are read")
    header = 4 + 4 * content[3]
    if len(content) < header:
        raise DataError(f"{path}: ends inside its header")
    shape = tuple(int(size) for size in np.frombuffer(content[4:header], ">u4"))
    expected = math.prod(shape)
    if len(content) - header != expected:
        raise DataError(
            f"{path}: {len(content) - header} bytes of values; its header says {expected}"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def read_packed_idx(packed: IO[bytes], path: Path) -> np.ndarray:
    """Read a gzipped IDX file of unsigned bytes that is already open; `path` appears in messages.

    Raises
    ------
    DataError
        It is unreadable or of another format.
    """
    return parse_idx(_unpacked(packed, path), path)


def idx_path(folder: Path, name: str) -> Path | None:
    """Return the file of that name, gzipped or not; None: there is none."""
    both = (folder / name, folder / f"{name}.gz")
    return next((path for path in both if path.is_file()), None)


def _found(folder: Path, name: str) -> tuple[Path, bytes]:
    path = idx_path(folder, name)
    if path is None:
        raise DataError(
            f"dataset.folder: neither {name} nor {name}.gz is in {folder}; put the data set's "
            "files there"
        )
    return path, _content(path)


def _content(path: Path) -> bytes:
    try:
        if path.suffix != ".gz":
            return path.read_bytes()
        with path.open("rb") as packed:
            return _unpacked(packed, path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from None


def _unpacked(packed: IO[bytes], path: Path) -> bytes:
    try:
        with gzip.open(packed) as file:
            content = file.read(_MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    if len(content) > _MOST_BYTES:
        raise DataError(f"{path}: unpacks to more than {_MOST_BYTES} bytes")
    return content

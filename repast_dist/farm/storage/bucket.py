"""A prefix of a store: whole objects are written, read, listed and deleted, nothing else."""

import contextlib
import dataclasses
import hashlib
import posixpath
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import pyarrow as pa
from pyarrow import fs

from repast_dist.farm.storage.specs import wrong_with
from repast_dist.ground.errors import SettingsError, StorageError

_CHUNK = 1 << 20


@dataclasses.dataclass(frozen=True)
class Item:
    """An object of a listing.

    Attributes
    ----------
    size : int
        Bytes.
    changed_s : float
        When it was written by the store's clock, in seconds since 1970.
    """

    size: int
    changed_s: float


class Damaged(StorageError):
    """An object is gone, or is not what was written."""


class Bucket:
    """The objects below a prefix.

    Parameters
    ----------
    uri : str
        The prefix, for example ``s3://bucket/prefix``.

    Raises
    ------
    SettingsError
        It is no such URI, or has parameters that the store does not know.
    StorageError
        The store cannot be reached.
    """

    def __init__(self, uri: str) -> None:
        wrong = wrong_with(uri)
        if wrong is not None:
            raise SettingsError(f"storage.uri: {wrong}")
        self.uri = uri
        try:
            self._files, path = fs.FileSystem.from_uri(uri)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise SettingsError(f"storage.uri: {uri}: {_first_line(error)}") from None
        except OSError as error:
            raise StorageError(f"{uri}: cannot be reached ({_first_line(error)})") from error
        self._root = path.rstrip("/")
        # Object stores have no folders; making them would leave empty objects.
        self._has_folders = isinstance(self._files, fs.LocalFileSystem)

    def write(self, key: str, source: BinaryIO, size: int) -> str:
        """Write an object of `size` bytes of a file, from where it stands.

        Returns
        -------
        str
            SHA-256 of what was written.

        Raises
        ------
        StorageError
            It did not arrive, or the file is shorter.
        """
        with self._errors("write", key):
            path = self._path(key)
            if self._has_folders:
                self._files.create_dir(posixpath.dirname(path), recursive=True)
            left, digest = size, hashlib.sha256()
            with self._files.open_output_stream(path) as stream:
                while left and (chunk := source.read(min(left, _CHUNK))):
                    stream.write(chunk)
                    digest.update(chunk)
                    left -= len(chunk)
            if left:
                raise OSError("the file got shorter meanwhile")
            return digest.hexdigest()

    def read(self, key: str) -> Iterator[bytes]:
        """Yield the content of an object.

        Raises
        ------
        Damaged
            It is not there.
        StorageError
            It cannot be read.
        """
        with self._errors("read", key), self._files.open_input_stream(self._path(key)) as stream:
            while chunk := stream.read(_CHUNK):
                yield chunk

    def items(self, folder: str) -> dict[str, Item]:
        """Return the objects whose keys begin with a folder, by key; "" for all.

        Raises
        ------
        StorageError
            They cannot be listed.
        """
        with self._errors("list", folder):
            where = fs.FileSelector(self._path(folder), allow_not_found=True, recursive=True)
            found = self._files.get_file_info(where)
        start = len(self._root) + 1
        return {
            info.path[start:]: Item(info.size, info.mtime_ns / 1e9)
            for info in found
            if info.type == fs.FileType.File
        }

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; one that is gone already is passed over.

        Raises
        ------
        StorageError
            One cannot be deleted.
        """
        for key in keys:
            with self._errors("delete", key), contextlib.suppress(FileNotFoundError):
                self._files.delete_file(self._path(key))

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}".rstrip("/")

    @contextlib.contextmanager
    def _errors(self, what: str, key: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise Damaged(f"{self.uri}: {key} is missing") from error
        except (OSError, pa.ArrowException) as error:
            raise StorageError(f"{self.uri}: cannot {what} {key} ({_first_line(error)})") from error


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__

"""What one copy of a run directory consists of, and how the newest whole copy is found."""

import dataclasses
import hashlib
import io
import json
import re
from pathlib import PurePosixPath
from typing import Any, Self

from repast_dist.farm.storage.bucket import Bucket, Damaged
from repast_dist.ground.errors import StorageError

FILES, MANIFESTS, LEASES = "files", "manifests", "leases"

_VERSION = 1
_KEY = re.compile(MANIFESTS + r"/(\d{8})-(\d{8})\.json")
_DIGITS = 16


@dataclasses.dataclass(frozen=True)
class StoredFile:
    """A file of a copy.

    Attributes
    ----------
    key : str
        The object that holds it.
    size : int
        Bytes.
    sha256 : str
        Of its content.
    """

    key: str
    size: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Manifest:
    """All files of one copy of a run directory.

    Attributes
    ----------
    term : int
        How many processes have written to the prefix one after the other, up to this one.
    number : int
        Copies of this process up to this one.
    owner : str
        The process that wrote it.
    study, name : str
        Of the run, and of its directory.
    complete : bool
        Whether the run had ended.
    files : dict
        Path in the run directory -> what is stored.
    """

    term: int
    number: int
    owner: str
    study: str
    name: str
    complete: bool
    files: dict[str, StoredFile]

    @property
    def key(self) -> str:
        """The object that holds it: later ones have later names, whoever wrote them."""
        return f"{MANIFESTS}/{self.term:08d}-{self.number:08d}.json"

    def write(self, bucket: Bucket) -> None:
        """Write the manifest; all its files must be there.

        Raises
        ------
        StorageError
            It did not arrive.
        """
        plain = {"version": _VERSION, **dataclasses.asdict(self)}
        text = json.dumps({**plain, "sha256": _digest(plain)}).encode()
        bucket.write(self.key, io.BytesIO(text), len(text))

    @classmethod
    def read(cls, bucket: Bucket, key: str) -> Self:
        """Read a manifest.

        Raises
        ------
        Damaged
            It is gone, cut off or changed, or names files outside of a run directory.
        StorageError
            It cannot be read.
        """
        where = f"{bucket.uri}/{key}"
        try:
            plain = json.loads(b"".join(bucket.read(key)))
            digest = plain.pop("sha256")
            if digest != _digest(plain):
                raise Damaged(f"{where}: damaged, its content is not that of its checksum")
            if plain.pop("version") != _VERSION:
                raise Damaged(f"{where}: written by another version of repast_dist")
            files = {name: StoredFile(**item) for name, item in plain.pop("files").items()}
            for name, item in files.items():
                if not (_is_inside(name) and _is_inside(item.key)):
                    raise Damaged(f"{where}: names a file outside of the run: {name!r}")
            return cls(**plain, files=files)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise Damaged(f"{where}: not a readable manifest ({error!r})") from error


def stored_file(name: str, size: int, sha256: str) -> StoredFile:
    """Return what is stored of a file; other content has another key."""
    first, *rest = PurePosixPath(name).parts
    path = PurePosixPath(FILES, first, ".".join(rest)) if rest else PurePosixPath(FILES, first)
    key = path.with_name(f"{path.stem}.{sha256[:_DIGITS]}{path.suffix}")
    return StoredFile(str(key), size, sha256)


def manifest_keys(bucket: Bucket) -> list[str]:
    """Return the keys of all manifests of a prefix, newest first.

    Raises
    ------
    StorageError
        They cannot be listed.
    """
    return sorted((key for key in bucket.items(MANIFESTS) if _KEY.fullmatch(key)), reverse=True)


def term_of(key: str) -> int:
    """Return the term in the key of a manifest."""
    match = _KEY.fullmatch(key)
    assert match is not None, "only keys of manifests are asked for"
    return int(match[1])


def nothing_stored(bucket: Bucket, refused: list[str]) -> StorageError:
    """Return the error of a prefix without a whole copy, with why those found were refused."""
    return StorageError("\n".join([f"{bucket.uri}: no whole copy of a run is there", *refused]))


def newest(bucket: Bucket) -> Manifest:
    """Return the newest readable manifest.

    Raises
    ------
    StorageError
        There is none.
    """
    refused = []
    for key in manifest_keys(bucket):
        try:
            return Manifest.read(bucket, key)
        except Damaged as error:
            refused.append(str(error))
    raise nothing_stored(bucket, refused)


def _is_inside(name: str) -> bool:
    parts = name.split("/")
    return "\\" not in name and not any(part in ("", ".", "..") for part in parts)


def _digest(plain: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()

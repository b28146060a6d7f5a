"""Brings a copy of a run directory onto this machine, checked by its checksums."""

import concurrent.futures
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from repast_dist.farm.storage.bucket import Bucket, Damaged
from repast_dist.farm.storage.manifest import (
    FILES,
    Manifest,
    StoredFile,
    manifest_keys,
    nothing_stored,
)

_AT_ONCE = 8


def fetch(
    bucket: Bucket,
    folder: Path,
    refused: Callable[[str], None],
    wanted: Callable[[str], bool] = lambda name: True,
) -> Manifest:
    """Bring the newest whole copy.

    Parameters
    ----------
    bucket : Bucket
        The prefix.
    folder : Path
        Where its files go; an empty folder.
    refused : callable
        Takes why a newer copy is not whole.
    wanted : callable
        Says by its name whether a file is wanted.

    Returns
    -------
    Manifest
        Of the copy that was brought.

    Raises
    ------
    StorageError
        There is no whole copy, or the store cannot be reached.
    OSError
        The disk is full or not writable.
    """
    reasons: dict[str, str] = {}
    # A run that goes on may replace a copy while it is read: the next one is tried then.
    while keys := [key for key in manifest_keys(bucket) if key not in reasons]:
        try:
            manifest = Manifest.read(bucket, keys[0])
            files = {name: item for name, item in manifest.files.items() if wanted(name)}
            written = bucket.items(FILES)
            with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
                for done in [pool.submit(_bring, bucket, folder, *item) for item in files.items()]:
                    done.result()
            for name, item in files.items():
                if item.key in written:
                    # When a run began is told by its files.
                    os.utime(folder / name, (written[item.key].changed_s,) * 2)
            return manifest
        except Damaged as error:
            reasons[keys[0]] = str(error)
            refused(str(error))
            for path in folder.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    raise nothing_stored(bucket, list(reasons.values()))


def _bring(bucket: Bucket, folder: Path, name: str, item: StoredFile) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for chunk in bucket.read(item.key):
            digest.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    if digest.hexdigest() != item.sha256:
        raise Damaged(f"{bucket.uri}: {item.key} is damaged, its checksum differs")

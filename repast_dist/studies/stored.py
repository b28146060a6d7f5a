"""Runs whose directory is copied to a store while they go on, and runs fetched from there.

A study does not know of the store. Where its directory begins (`repast_dist.studies.output.begin`)
and where what lies in it can be gone on with, it says so; the copy that is kept just then, if any,
follows.
"""

import contextlib
import contextvars
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console

from repast_dist.farm.storage.bucket import Bucket
from repast_dist.farm.storage.fetch import fetch
from repast_dist.farm.storage.lease import Lease
from repast_dist.farm.storage.manifest import MANIFESTS, Manifest, manifest_keys, newest
from repast_dist.farm.storage.mirror import Mirror
from repast_dist.farm.storage.specs import StorageSpec, is_uri, of_point
from repast_dist.ground.errors import FarmError, RunDirectoryError, StorageError
from repast_dist.ground.files import (
    ANSWER,
    COPIED,
    REPORT,
    RESULT,
    SETTINGS,
    checked_entries,
    read_json,
    replaced,
    write_json,
)
from repast_dist.ground.spec import load
from repast_dist.studies.run_directory import existing_run, new_run_directory
from repast_dist.studies.run_result import has_finished

logger = logging.getLogger(__name__)

_SHOWN = (SETTINGS, RESULT, ANSWER, REPORT)
_EVERY_S = 30.0
"""Studies of many points finish some of them all the time."""


class Copy:
    """The copy of the run that is at work.

    Parameters
    ----------
    bucket : Bucket
        Where it is kept.
    lease : Lease
        The claim on it, which is held.
    study : str
        Of the run.
    base : Manifest, optional
        What is there already.

    Attributes
    ----------
    uri : str
        Where it is kept.
    mirror : Mirror or None
        What copies; None before the run has a directory.
    folder : Path or None
        That directory.
    """

    def __init__(self, bucket: Bucket, lease: Lease, study: str, base: Manifest | None) -> None:
        self._bucket, self._lease, self._study, self._base = bucket, lease, study, base
        self.uri = bucket.uri
        self.mirror: Mirror | None = None
        self.folder: Path | None = None

    def began(self, folder: Path) -> None:
        """Take note of the run's directory, the first time it is told."""
        if self.mirror is not None:
            return
        _note(folder, self.uri, self._lease.owner, self._base)
        self.folder = folder
        self.mirror = Mirror(
            self._bucket, self._lease, folder, self._study, self._base, logger.warning
        )


_COPY: contextvars.ContextVar[Copy | None] = contextvars.ContextVar("copy", default=None)


def began(folder: Path) -> None:
    """Say where the directory of the run is."""
    copy = _COPY.get()
    if copy is not None:
        copy.began(folder)


def saved() -> None:
    """Say that a checkpoint is whole: what lies in the directory can be gone on with."""
    copy = _COPY.get()
    if copy is not None and copy.mirror is not None:
        copy.mirror.saved()


def saved_some() -> None:
    """Say that something more is finished, of which there is much: it is copied now and then."""
    copy = _COPY.get()
    if copy is not None and copy.mirror is not None:
        copy.mirror.saved(_EVERY_S)


def is_behind() -> bool:
    """Return whether there is a copy to be kept that is not what the directory is."""
    copy = _COPY.get()
    return copy is not None and copy.mirror is not None and copy.mirror.is_behind()


@contextlib.contextmanager
def copied(spec: StorageSpec, study: str, run_dir: Path | None, console: Console) -> Iterator[None]:
    """Keep a copy of the run inside the block, and make it whole at its end.

    Parameters
    ----------
    spec : StorageSpec
        Where; nowhere, if it has no URI.
    study : str
        Of the run.
    run_dir : Path or None
        The directory of the run to go on with; None where it begins.
    console : Console
        Where it is said how to go on.

    Raises
    ------
    StorageError
        The prefix holds another run or is in use, the store cannot be reached, or at the end files
        are missing there.
    """
    if spec.uri is None:
        # What runs inside of another run is not a part of its copy.
        with _at_work(None):
            yield
        return
    bucket = Bucket(spec.uri)
    lease = Lease(bucket, spec.lease_s, _printer(console))
    with lease.held():
        base = _refuse_other(bucket, run_dir)
        with _kept(Copy(bucket, lease, study, base), run_dir, console):
            yield


@contextlib.contextmanager
def brought(
    uri: str, root: Path | None, console: Console, *, again: bool = False
) -> Iterator[tuple[Path, StorageSpec]]:
    """Fetch a run, and keep its copy inside the block as `copied` does.

    Parameters
    ----------
    uri : str
        The prefix that holds it.
    root : Path, optional
        Folder of all runs; None: that of the run's settings.
    console : Console
        Where it is said what happens.
    again : bool
        Whether one that is finished will do, too.

    Yields
    ------
    tuple of (Path, StorageSpec)
        The run's directory on this machine, a new one, and where it is copied to: where it came
        from.

    Raises
    ------
    SettingsError
        It is no URI of a store.
    StorageError
        No whole run is there, it is in use, or the store cannot be reached.
    RunDirectoryError
        The run is finished.
    """
    bucket = Bucket(uri)
    settings = stored_settings(uri)
    storage = settings.get("storage")
    lease_s = storage.get("lease_s") if isinstance(storage, dict) else None
    spec = load(StorageSpec, {"uri": uri} if lease_s is None else {"uri": uri, "lease_s": lease_s})
    lease = Lease(bucket, spec.lease_s, _printer(console))
    with lease.held():
        if not again and newest(bucket).complete:
            raise RunDirectoryError(f"{uri}: the run is finished, there is nothing to resume")
        folder, base = _fetched(bucket, root or Path(str(settings.get("run_root", "runs"))))
        console.print(f"Fetched:       {uri}", markup=False, soft_wrap=True)
        with _kept(Copy(bucket, lease, base.study, base), folder, console):
            yield folder, spec


def run_to_read(path: str | None, root: str, console: Console) -> Path:
    """Return a run directory that a study was told to read; one of a store is fetched.

    Parameters
    ----------
    path : str or None
        The directory, or the URI of a prefix.
    root : str
        Folder of all runs, in which a fetched one gets a directory.
    console : Console
        Where it is said what happens.

    Raises
    ------
    SettingsError
        None was named, or it is no URI of a store.
    RunDirectoryError
        It is no directory of a training run.
    StorageError
        No whole run is there, or the store cannot be reached.
    """
    if path is None or not is_uri(path):
        return existing_run(path)
    folder = fetched(path, Path(root))
    console.print(f"Fetched:       {path}", markup=False, soft_wrap=True)
    return existing_run(str(folder))


def fetched(uri: str, root: Path) -> Path:
    """Fetch a run into a new directory below the folder of all runs.

    Raises
    ------
    SettingsError, StorageError
        As `run_to_read`.
    """
    return _fetched(Bucket(uri), root)[0]


def is_stored(uri: str) -> bool:
    """Return whether a prefix holds a run.

    Raises
    ------
    SettingsError, StorageError
        It is no URI of a store, which cannot be reached.
    """
    return bool(manifest_keys(Bucket(uri)))


def is_complete(uri: str) -> bool:
    """Return whether the run of a prefix is finished.

    Raises
    ------
    SettingsError, StorageError
        As `run_to_read`.
    """
    return newest(Bucket(uri)).complete


def fetch_runs(uri: str, root: Path) -> Path:
    """Fetch what a list of runs shows of all that are stored below a prefix.

    Parameters
    ----------
    uri : str
        The prefix; it may be that of one run.
    root : Path
        Folder of all runs on this machine.

    Returns
    -------
    Path
        A folder with a directory for each: settings, result, answer and page, as they are now.

    Raises
    ------
    SettingsError, StorageError
        As `run_to_read`.
    """
    parts = urlsplit(uri)
    folder = root / "stores" / Path(f"{parts.netloc}/{parts.path}".strip("/"))
    for place, stored in _below(uri):
        run = folder / place if place else folder / folder.name
        run.parent.mkdir(parents=True, exist_ok=True)
        with replaced(run) as aside:
            aside.mkdir()
            fetch(stored, aside, logger.warning, _SHOWN.__contains__)
    return folder


def fetch_whole_runs(uri: str, root: str, console: Console) -> list[Path]:
    """Fetch all runs that are stored below a prefix, each into a new directory.

    Parameters
    ----------
    uri, root, console
        As in `run_to_read`; the prefix may be that of one run.

    Raises
    ------
    SettingsError
        It is no URI of a store.
    StorageError
        No whole run is there, or the store cannot be reached.
    """
    folders = []
    for _, bucket in _below(uri):
        folders.append(_fetched(bucket, Path(root))[0])
        console.print(f"Fetched:       {bucket.uri}", markup=False, soft_wrap=True)
    if not folders:
        raise StorageError(f"{uri}: holds no run")
    return folders


def _below(uri: str) -> Iterator[tuple[str, Bucket]]:
    """Yield the place below a prefix, "" for its own, and the bucket of every run there."""
    at = Bucket(uri)
    places = {key.rpartition(f"{MANIFESTS}/")[0].strip("/") for key in at.items("") if _names(key)}
    for place in sorted(places):
        yield place, Bucket(of_point(StorageSpec(uri=uri), place).uri or uri) if place else at


def _names(key: str) -> bool:
    """Return whether an object, of any run, is a manifest."""
    return f"/{key}".rpartition("/")[0].endswith(f"/{MANIFESTS}")


@contextlib.contextmanager
def _kept(copy: Copy, run_dir: Path | None, console: Console) -> Iterator[None]:
    if run_dir is not None:
        copy.began(run_dir)
    try:
        with _at_work(copy):
            yield
    except BaseException as stopped:
        if copy.mirror is not None and copy.folder is not None:
            try:
                copy.mirror.finish(complete=False)
                if isinstance(stopped, KeyboardInterrupt | FarmError):
                    hint = f"Go on, anywhere, with: repast-dist resume={copy.uri}"
                    console.print(hint, markup=False, soft_wrap=True)
            except StorageError as error:
                # Why the run ended says more.
                logger.warning("%s", error)
        raise
    if copy.mirror is None or copy.folder is None:
        return
    try:
        copy.mirror.finish(complete=has_finished(copy.folder))
    except StorageError as error:
        folder = copy.folder
        raise StorageError(
            f"{error}; the run is whole in {folder}, and resume={folder} copies the rest"
        ) from error
    console.print(f"Copy:          {copy.uri}", markup=False, soft_wrap=True)


@contextlib.contextmanager
def _at_work(copy: Copy | None) -> Iterator[None]:
    token = _COPY.set(copy)
    try:
        yield
    finally:
        _COPY.reset(token)


def _fetched(bucket: Bucket, root: Path) -> tuple[Path, Manifest]:
    """Bring a run into a new directory; it appears there with all its files in one step."""
    found: list[Manifest] = []
    study = newest(bucket).study
    folder = new_run_directory(
        root, study, lambda aside: found.append(fetch(bucket, aside, logger.warning))
    )
    return folder, found[-1]


def _refuse_other(bucket: Bucket, run_dir: Path | None) -> Manifest | None:
    """Return the copy that a run goes on from; refuse that of another run, or of a later state."""
    if not manifest_keys(bucket):
        return None
    if run_dir is None:
        raise RunDirectoryError(
            f"storage.uri: {bucket.uri} holds a run already; valid: resume={bucket.uri}, or "
            "another prefix"
        )
    base = newest(bucket)
    if base.owner not in _owners(run_dir, bucket.uri):
        raise RunDirectoryError(
            f"{run_dir}: {bucket.uri} holds what another process went on with; valid: "
            f"resume={bucket.uri}"
        )
    return base


def _note(folder: Path, uri: str, owner: str, base: Manifest | None) -> None:
    """Write down who has made the copies that this directory was the source of."""
    owners = [*_owners(folder, uri), *([base.owner] if base is not None else []), owner]
    write_json(folder / COPIED, {"uri": uri, "owners": list(dict.fromkeys(owners))})


def _owners(folder: Path, uri: str) -> list[str]:
    path = folder / COPIED
    if not path.is_file():
        return []
    noted = read_json(path)
    checked_entries(path, noted, {"uri": str, "owners": list})
    return list(map(str, noted["owners"])) if noted["uri"] == uri else []


def stored_settings(uri: str) -> dict[str, Any]:
    """Return the settings of a stored run, as plain data.

    Raises
    ------
    SettingsError
        It is no URI of a store.
    StorageError
        No whole run is there, or the store cannot be reached.
    """
    bucket = Bucket(uri)
    item = newest(bucket).files.get(SETTINGS)
    try:
        found = json.loads(b"".join(bucket.read(item.key))) if item is not None else None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise StorageError(f"{bucket.uri}: holds no readable {SETTINGS}")
    return found


def _printer(console: Console) -> Callable[[str], None]:
    return lambda text: console.print(text, markup=False, soft_wrap=True)

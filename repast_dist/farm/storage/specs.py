"""Settings of the copy of a run directory on S3-like storage."""

import dataclasses
import re
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from annotated_types import Ge

from repast_dist.ground.errors import brief
from repast_dist.ground.spec import spec

SCHEMES = ("s3", "gs", "gcs", "file")

_VALID = "valid: s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, file:///FOLDER"


@spec
class StorageSpec:
    """Settings of the copy of the run directory that is kept elsewhere.

    Attributes
    ----------
    uri : str or None
        Where the run directory is copied to at every checkpoint and at the end:
        ``s3://bucket/prefix``, ``gs://bucket/prefix`` or ``file:///folder``. A prefix holds one
        run.
        Keys come from the environment (``AWS_ACCESS_KEY_ID``, ...), and so does the address of an
        S3-compatible store (``AWS_ENDPOINT_URL``), unless the URI ends with
        ``?endpoint_override=...``. None: it is not copied.
    lease_s : float
        A run that has not renewed its claim on the prefix for so long, in seconds, counts as
        ended: another one may go on with its copy.
    go_on : bool
        Go on with the run that is stored at the prefix, if one is there and has the same settings,
        so that one line starts a job and starts it again. Off: it is refused.
    """

    uri: str | None = None
    lease_s: Annotated[float, Ge(5)] = 60.0
    go_on: bool = False

    def __post_init__(self) -> None:
        if self.uri is not None:
            wrong = wrong_with(self.uri)
            if wrong is not None:
                raise ValueError(f"uri: {wrong}")
        elif self.go_on:
            raise ValueError("go_on: there is no prefix to go on with; valid: storage.uri=...")


def of_point(storage: StorageSpec, name: str) -> StorageSpec:
    """Return where one of several runs is copied to: a prefix of its own below the common one."""
    if storage.uri is None:
        return storage
    path, mark, query = storage.uri.partition("?")
    return dataclasses.replace(storage, uri=f"{path.rstrip('/')}/{name}{mark}{query}")


def is_uri(text: str) -> bool:
    """Return whether a text names a place of a store and no local path."""
    return "://" in text


def wrong_with(uri: str) -> str | None:
    """Return what is wrong with the URI of a prefix and what would be valid, or None."""
    if re.search(r"[\s\x00-\x1f\x7f\\]", uri):
        return f"{brief(uri)} holds spaces, backslashes or control characters; {_VALID}"
    try:
        parts = urlsplit(uri)
        secret = parts.password is not None
        _ = parts.port
    except ValueError as error:
        return f"{brief(uri)} is no URI ({error}); {_VALID}"
    if parts.scheme not in SCHEMES or "://" not in uri:
        return f"{brief(uri)} is no URI of a store; {_VALID}"
    if secret:
        # It would be written into the settings of the run.
        return "keys do not belong into the URI; valid: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY"
    return _wrong_place(uri, parts)


def _wrong_place(uri: str, parts: SplitResult) -> str | None:
    names = parts.path.strip("/").split("/")
    if parts.fragment or any(name in ("", ".", "..") for name in names):
        return f"{brief(uri)} names no folder in a store; {_VALID}"
    if parts.scheme == "file" and parts.netloc not in ("", "localhost"):
        return f"{brief(uri)} is on another machine; {_VALID}"
    if parts.scheme != "file" and not parts.hostname:
        return f"{brief(uri)} names no bucket; {_VALID}"
    return None

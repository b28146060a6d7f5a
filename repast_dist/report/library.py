"""The plotting library of pages: one file beside all runs, or inside a page that stands alone."""

import contextlib
import os
import re
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from repast_dist.ground.files import SETTINGS

_DATED = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d(_\d+)?")


def source() -> str:
    """Return the library's text (4.5 MB)."""
    from plotly.offline import get_plotlyjs

    return get_plotlyjs()


def shared_library(page: Path) -> str | None:
    """Return the way from a page to the library that pages share, and put it there.

    It lies where other runs can share it, too: in ``ROOT`` for ``ROOT/STUDY/DATE`` and the runs
    of a sweep in it, beside the directory of a run that lies elsewhere, and beside any other page.

    Parameters
    ----------
    page : Path
        The page's file.

    Returns
    -------
    str or None
        A relative path; None where the folder cannot be written to: the library is in the page.
    """
    name = f"plotly-{version('plotly')}.min.js"
    folders = page.absolute().parents
    if (folders[0] / name).is_file():
        return name
    up = _levels_up(folders)
    try:
        _put(folders[up] / name)
    except OSError:
        return None
    return f"{'../' * up}{name}"


def _levels_up(folders: Sequence[Path]) -> int:
    """Return how many folders above a page the library lies."""
    for up in (0, 1):
        if len(folders) > up + 2 and _DATED.fullmatch(folders[up].name):
            return up + 2
    return int((folders[0] / SETTINGS).is_file())


def _put(path: Path) -> None:
    """Write the library, which a reader never sees half written, unless it is there."""
    if path.is_file():
        return
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(source())
        os.chmod(aside, 0o644)
        os.replace(aside, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(aside)

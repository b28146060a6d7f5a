"""The plotting library of pages: one file beside all runs, or inside a page that stands alone."""

import contextlib
import os
import re
import tempfile
from importlib.metadata import version
from pathlib import Path

_DATED = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d(_\d+)?")


def source() -> str:
    """Return the library's text (4.5 MB)."""
    from plotly.offline import get_plotlyjs

    return get_plotlyjs()


def shared_library(page: Path) -> str | None:
    """Return the way from a page to the library that all pages of its runs share, and put it there.

    Parameters
    ----------
    page : Path
        The page's file.

    Returns
    -------
    str or None
        A relative path; None where the page is neither in the folder of all runs nor in a run
        directory with the name of a date, ``ROOT/STUDY/DATE`` or a run in a sweep's: nobody knows
        what lies beside it.
    """
    name = f"plotly-{version('plotly')}.min.js"
    folders = page.absolute().parents
    if (folders[0] / name).is_file():
        return name
    for up in (0, 1):
        if len(folders) > up + 2 and _DATED.fullmatch(folders[up].name):
            _put(folders[up + 2] / name)
            return f"{'../' * (up + 2)}{name}"
    return None


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

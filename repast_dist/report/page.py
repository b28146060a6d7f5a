"""One HTML page: the answer, figures, tables, settings; no network, no server.

A page is a tree of small frozen parts. Nothing in it is trusted: text is escaped, figures travel
as JSON, and a content security policy forbids every request but that for the plotting library that
the pages of all runs share (`repast_dist.report.library`).
"""

import dataclasses
import functools
import html
import importlib.resources
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa

from repast_dist.ground.files import replaced
from repast_dist.report import library, palette
from repast_dist.report.units import number, percent, si

_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'{library}; "
    "img-src data: blob:; font-src data:"
)
_TRIED_FOLDERS = 4
# A number and its unit stay on one line.
_BEFORE_UNIT = re.compile(r"(\d) (?=(?:%|[fpnµmkMGTPE]?(?:s|J|W|B|m2))(?:\W|$))")


@dataclasses.dataclass(frozen=True)
class Frame:
    """What surrounds a plot.

    Attributes
    ----------
    caption : str
        How to read it.
    height_px : int
        Height on a wide screen.
    wide : bool
        Takes the full width instead of one of two columns.
    """

    caption: str = ""
    height_px: int = 340
    wide: bool = False


@dataclasses.dataclass(frozen=True)
class Figure:
    """A plot.

    Attributes
    ----------
    title : str
        What it shows, as a heading.
    data, layout : list, dict
        Plotly traces and layout as plain data, in the colours of `palette`. A click on a mark
        whose ``customdata`` names a row of a table (`Table.row_ids`) shows that row below.
    frame : Frame
        Caption and size.
    """

    title: str
    data: list[dict[str, Any]]
    layout: dict[str, Any]
    frame: Frame = Frame()


@dataclasses.dataclass(frozen=True)
class Column:
    """A table column: its heading, how values are shown, and whether they are numbers."""

    name: str
    show: Callable[[Any], str] = str
    numeric: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """A table whose columns sort on a click.

    Attributes
    ----------
    title : str
        Heading.
    columns : sequence of Column
        One per cell of a row.
    rows : sequence of sequences
        Raw values; shown by the column, sorted by value.
    caption : str
        How to read it.
    folded : bool
        Starts closed (long reference tables); printing opens it.
    row_ids : sequence of str
        Names of the rows, by which figures can point at them; empty: none.
    links : sequence of str
        Where the first cell of each row leads, a relative path, or "" for nowhere; empty: none do.
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]
    caption: str = ""
    folded: bool = False
    row_ids: Sequence[str] = ()
    links: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Code:
    """A block of text to copy, such as a query."""

    title: str
    text: str


@dataclasses.dataclass(frozen=True)
class Note:
    """A paragraph; ``level`` "warning" sets it apart."""

    text: str
    level: str = "plain"


Part = Figure | Table | Code | Note


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading with an introduction and parts."""

    title: str
    parts: Sequence[Part]
    intro: str = ""


@dataclasses.dataclass(frozen=True)
class KeyFigure:
    """One number at the head of the page.

    Attributes
    ----------
    label, value, detail : str
        As they are shown.
    number, unit : float or None, str
        The same as data, for sweeps and programs: "s", "J", "m2", ...; "fraction", or "1" for a
        plain number.
    """

    label: str
    value: str
    detail: str = ""
    number: float | None = None
    unit: str = "1"


@dataclasses.dataclass(frozen=True)
class Page:
    """A whole page.

    Attributes
    ----------
    title, subtitle : str
        Heading lines.
    answer : str
        The result in two sentences with numbers.
    key_figures : sequence of KeyFigure
        Tiles below the answer.
    notes : sequence of Note
        Warnings that belong beside the answer.
    sections : sequence of Section
        The rest, in reading order.
    refresh_s : float
        A browser reads the page anew after so many seconds; 0: never.
    """

    title: str
    subtitle: str
    answer: str
    sections: Sequence[Section]
    key_figures: Sequence[KeyFigure] = ()
    notes: Sequence[Note] = ()
    refresh_s: float = 0.0


def write_page(page: Page, path: Path, *, standalone: bool = False) -> None:
    """Write a page as one HTML file, which a reader never sees half written.

    Parameters
    ----------
    page : Page
        What it shows.
    path : Path
        The file.
    standalone : bool
        Have the plotting library in the page, so that it can be sent; otherwise the pages of all
        runs share one file.
    """
    text = render(page, None if standalone else library.shared_library(path))
    with replaced(path) as aside:
        aside.write_text(text, encoding="utf-8")


def render(page: Page, shared: str | None = None) -> str:
    """Return a page as HTML text; `shared` is the way to the plotting library, None: inside."""
    policy = _POLICY.format(library=" 'self' file:" if shared else "")
    plotting = _from_file(shared) if shared else f"<script>{library.source()}</script>"
    refresh = f' data-refresh="{page.refresh_s:g}"' if page.refresh_s else ""
    numbering = iter(range(1, 10_000))
    sections = [_section(section, index, numbering) for index, section in enumerate(page.sections)]
    return "\n".join(
        [
            "<!doctype html>",
            f'<html lang="en"{refresh}><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            '<link rel="icon" href="data:,">',
            f"<title>{_text(page.title)}</title>",
            f"<style>{_asset('page.css')}</style></head><body><main>",
            _header(page),
            *sections,
            "</main>",
            _data("palette", palette.dark_partners()),
            _data("template", palette.template()),
            plotting,
            f"<script>{_asset('page.js')}</script>",
            "</body></html>\n",
        ]
    )


def _from_file(shared: str) -> str:
    """Return what loads the plotting library: from where it was put, or, of a page that was moved
    or copied, from its own folder or those above.
    """
    name = shared.rpartition("/")[2]
    others = [way for up in range(_TRIED_FOLDERS) if (way := f"{'../' * up}{name}") != shared]
    return f'<script src="{_text(shared)}"></script>' + "".join(
        "<script>window.Plotly || document.write("
        f"'<script src=\"{_text(way)}\"><\\/script>')</script>"
        for way in others
    )


def arrow_table(title: str, table: pa.Table, caption: str = "", folded: bool = False) -> Table:
    """Make a page table of an Arrow table; units come from the field metadata (``unit``)."""
    columns = [_arrow_column(field) for field in table.schema]
    rows = [list(row.values()) for row in table.to_pylist()]
    return Table(title=title, columns=columns, rows=rows, caption=caption, folded=folded)


def settings_tables(settings: Mapping[str, Any]) -> list[Table]:
    """Make tables of nested settings by dotted path, and of the constants among them.

    A mapping with ``unit`` and ``source`` is one constant, with ``value`` or, for a figure taken
    from a component library, ``library``.
    """
    plain: list[list[Any]] = []
    constants: list[list[Any]] = []
    for path, node in _leaves(settings, ""):
        if isinstance(node, Mapping) and "source" in node:
            value = node.get("value")
            shown = f"from {node.get('library', '')}" if value is None else value
            constants.append(
                [path, shown, node["unit"], node["source"], node.get("confidence", "")]
            )
        else:
            plain.append([path, node])
    tables = [
        Table("Settings", [Column("setting"), Column("value", _show_setting)], plain, folded=True)
    ]
    if constants:
        columns = [
            Column("constant"),
            Column("value", _show_setting),
            Column("unit"),
            Column("source"),
            Column("confidence"),
        ]
        caption = (
            "Confidence: A, read in the source or an open implementation of it; B, recalled from "
            "the source; C, our assumption."
        )
        tables.append(
            Table("Constants and their sources", columns, constants, caption, folded=True)
        )
    return tables


def _arrow_column(field: pa.Field) -> Column:
    unit = (field.metadata or {}).get(b"unit", b"").decode()
    # The path of a setting stays as it is typed.
    label = field.name if "." in field.name else field.name.replace("_", " ")
    if pa.types.is_boolean(field.type):
        return Column(label, lambda value: "–" if value is None else ("yes" if value else "no"))
    if not (pa.types.is_integer(field.type) or pa.types.is_floating(field.type)):
        return Column(label, lambda value: "–" if value is None else str(value))
    if unit == "fraction":
        return Column(label, percent, numeric=True)
    if unit in ("", "1"):
        return Column(label, number, numeric=True)
    return Column(_without_unit(label, unit), functools.partial(si, unit=unit), numeric=True)


def _without_unit(label: str, unit: str) -> str:
    suffix = " " + unit.lower()
    return label[: -len(suffix)] if label.endswith(suffix) else label


def _leaves(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    is_constant = isinstance(node, Mapping) and "unit" in node and "source" in node
    if isinstance(node, Mapping) and node and not is_constant:
        for key, value in node.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, node


def _show_setting(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _breakable(label: str) -> str:
    """Return the name of a figure, which lines may break between its parts."""
    return re.sub(r"([._])(?=\w)", r"\1<wbr>", _text(label))


def _header(page: Page) -> str:
    tiles = "".join(
        f'<div class="tile"><span class="label">{_breakable(tile.label)}</span>'
        f'<span class="value">{_text(tile.value)}</span>'
        f'<span class="detail">{_text(tile.detail)}</span></div>'
        for tile in page.key_figures
    )
    links = "".join(
        f'<a href="#s{index}">{_text(section.title)}</a>'
        for index, section in enumerate(page.sections)
    )
    return (
        f'<header><p class="subtitle">{_text(page.subtitle)}</p><h1>{_text(page.title)}</h1>'
        f'<p class="answer">{_text(page.answer)}</p>{"".join(map(_note, page.notes))}'
        f'<div class="tiles">{tiles}</div><nav aria-label="Sections">{links}</nav></header>'
    )


def _section(section: Section, index: int, numbering: Any) -> str:
    parts = "".join(_part(part, next(numbering)) for part in section.parts)
    intro = f"<p>{_text(section.intro)}</p>" if section.intro else ""
    return (
        f'<section id="s{index}"><h2>{_text(section.title)}</h2>{intro}'
        f'<div class="parts">{parts}</div></section>'
    )


def _part(part: Part, index: int) -> str:
    match part:
        case Figure():
            return _figure(part, index)
        case Table():
            return _table(part)
        case Code():
            return (
                f'<div class="card wide"><h3>{_text(part.title)}</h3>'
                f"<pre><code>{_text(part.text)}</code></pre></div>"
            )
        case Note():
            return _note(part)


def _figure(figure: Figure, index: int) -> str:
    frame = figure.frame
    caption = f"<figcaption>{_text(frame.caption)}</figcaption>" if frame.caption else ""
    return (
        f'<figure class="card{" wide" if frame.wide else ""}"><h3>{_text(figure.title)}</h3>'
        f'<div class="plot" id="plot{index}" style="height:{frame.height_px}px" role="img" '
        f'aria-label="{_text(figure.title)}"></div>'
        f'<script type="application/json" class="spec" data-for="plot{index}">'
        f"{_json({'data': figure.data, 'layout': figure.layout})}</script>{caption}</figure>"
    )


def _table(table: Table) -> str:
    heads = "".join(
        f'<th scope="col"{" class=n" if column.numeric else ""}>'
        f'<button type="button">{_text(column.name)}</button></th>'
        for column in table.columns
    )
    starts = [f'<tr id="{_text(name)}">' for name in table.row_ids] or ["<tr>"] * len(table.rows)
    links = table.links or [""] * len(table.rows)
    body = "".join(
        start + "".join([_linked(first, link), *rest]) + "</tr>"
        for start, link, (first, *rest) in zip(
            starts, links, (list(map(_cell, row, table.columns)) for row in table.rows), strict=True
        )
    )
    caption = f'<p class="caption">{_text(table.caption)}</p>' if table.caption else ""
    inner = (
        f'{caption}<div class="scroll" tabindex="0"><table class="sortable"><thead><tr>{heads}</tr>'
        f"</thead><tbody>{body}</tbody></table></div>"
    )
    if table.folded:
        return (
            f'<details class="card wide"><summary>{_text(table.title)} '
            f"<span>({len(table.rows):,} rows)</span></summary>{inner}</details>"
        )
    return f'<div class="card wide"><h3>{_text(table.title)}</h3>{inner}</div>'


def _linked(cell: str, link: str) -> str:
    """Return a cell of text whose content leads somewhere."""
    if not link:
        return cell
    content = cell.removeprefix("<td>").removesuffix("</td>")
    return f'<td><a href="{quote(link)}">{content}</a></td>'


def _cell(value: Any, column: Column) -> str:
    if not column.numeric:
        return f"<td>{_text(column.show(value))}</td>"
    known = value is not None and math.isfinite(value)
    key = f' data-v="{float(value)!r}"' if known else ""
    return f'<td class="n"{key}>{_text(column.show(value))}</td>'


def _note(note: Note) -> str:
    return f'<p class="note {_text(note.level)}">{_text(note.text)}</p>'


def _data(name: str, value: Any) -> str:
    return f'<script type="application/json" id="{name}">{_json(value)}</script>'


def _text(value: str) -> str:
    return _BEFORE_UNIT.sub("\\1\u00a0", html.escape(value))


def _json(value: Any) -> str:
    """Return JSON that cannot end its script element; NaN and infinities become null, a gap."""
    text = json.dumps(_plain(value), allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    return text.replace("<", "\\u003c")


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {str(key): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case np.ndarray() | np.generic():
            return _plain(value.tolist())
        case float():
            return value if math.isfinite(value) else None
        case _:
            return value


@functools.cache
def _asset(name: str) -> str:
    return (importlib.resources.files("repast_dist.report") / "assets" / name).read_text("utf-8")

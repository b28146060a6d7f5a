"""The settings reference says what the settings classes accept."""

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Lt

from repast_dist.ground.registry import Registry
from repast_dist.ground.spec import spec
from repast_dist.report.settings_reference import (
    describe_type,
    documented_attributes,
    setting_rows,
    settings_markdown,
)


@spec
class Inner:
    """An inner group.

    Attributes
    ----------
    share : float
        How much.
    """

    share: Annotated[float, Gt(0), Lt(1)] = 0.5


@spec
class Outer:
    """A group of settings
    for a test.

    Attributes
    ----------
    count, other : int
        A number
        of things.
    mode : {"fast", "slow"}
        How it is done.

    Notes
    -----
    Not part of it.
    """

    count: Annotated[int, Ge(1)]
    other: int | None = None
    mode: Literal["fast", "slow"] = "fast"
    sizes: tuple[int, ...] = (1, 2)
    table: dict[str, float] | None = None
    inner: Inner = Inner()


@spec
class Circle:
    """Round."""

    kind: Literal["circle"] = "circle"


@spec
class Square:
    """Not round."""

    kind: Literal["square", "box"] = "square"


class Cell:
    """What the members of the test's registry have in common."""


CELLS = Registry("cell", Cell, tag="kind", home="json", default="plain")


@CELLS.register
@spec
class Plain(Cell):
    """A cell without settings."""

    kind: Literal["plain"] = "plain"


@CELLS.register
@spec
class Noisy(Cell):
    """A cell that holds another.

    Attributes
    ----------
    sigma : float
        Its spread.
    """

    kind: Literal["noisy"] = "noisy"
    sigma: float = 0.1
    inner: Annotated[Cell, CELLS.choice()] = Plain()


@spec
class Board:
    """A list of members."""

    cells: tuple[Annotated[Cell, CELLS.choice()], ...]


def test_every_setting_is_listed_with_its_type_range_default_and_meaning() -> None:
    rows = {row.path: (row.valid, row.default, row.text) for row in setting_rows(Outer, "o")}
    assert rows == {
        "o.count": ("integer, at least 1", "", "A number of things."),
        "o.other": ("integer or null", "null", "A number of things."),
        "o.mode": ("one of `fast`, `slow`", "fast", "How it is done."),
        "o.sizes": ("list of integer", "[1, 2]", ""),
        "o.table": ("mapping of text to number or null", "null", ""),
        "o.inner.share": ("number, above 0, below 1", "0.5", "How much."),
    }


def test_a_class_taken_whole_is_one_row() -> None:
    rows = {row.path: row.valid for row in setting_rows(Outer, whole=[Inner])}
    assert rows["inner"] == "Inner"
    assert describe_type(tuple[int, int]) == "list of 2: integer"


def test_a_list_of_several_kinds_names_the_kinds() -> None:
    assert describe_type(tuple[Circle | Square, ...]) == (
        "list of settings with `kind` one of `circle`, `square`, `box`"
    )


def test_text_after_the_attributes_is_not_taken_for_one() -> None:
    assert set(documented_attributes(Outer)) == {"count", "other", "mode"}


def test_the_reference_names_presets_and_summaries() -> None:
    text = settings_markdown("# Settings\n", [("outer", Outer, ["small", "large"])])
    assert "A group of settings for a test." in text
    assert "Presets: `outer=small`, `outer=large`." in text
    assert "| `outer.inner.share` | number, above 0, below 1 | `0.5` | How much. |" in text


def test_the_members_of_a_registry_are_listed_once_with_their_own_settings() -> None:
    text = settings_markdown(
        "# Settings\n",
        [("board", Board, []), ("cell", Annotated[Cell, CELLS.choice()], ["one"])],
    )
    assert "| `board.cells` | list of cell with `kind` one of `noisy`, `plain` |  |  |" in text
    assert text.count("### `board.cells[]` with `kind=noisy`\n\nA cell that holds another.") == 1
    assert "| `board.cells[].sigma` | number | `0.1` | Its spread. |" in text
    assert "| `board.cells[].inner` | cell with `kind` one of `noisy`, `plain` | `plain` |" in text
    assert "## `cell`\n\nCell with `kind` one of `noisy`, `plain`.\n\nPresets: `cell=one`." in text
    assert text.count("with `kind=plain`") == 1

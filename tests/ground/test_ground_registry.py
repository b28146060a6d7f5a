"""Registries find members by name, check them, and report what is wrong inside them."""

import abc
import dataclasses
from typing import Annotated, Literal

import pytest
from annotated_types import Gt

from repast_dist.ground.errors import SettingsError
from repast_dist.ground.registry import Registry
from repast_dist.ground.spec import load, spec, to_dict


class Shape(abc.ABC):
    """What the members of the test's registry have in common."""

    @abc.abstractmethod
    def area(self) -> float:
        """Return the area."""


SHAPES = Registry("shape", Shape, tag="kind", home="json", default="square")


@SHAPES.register
@spec
class Square(Shape):
    """A square."""

    kind: Literal["square"] = "square"
    side: Annotated[float, Gt(0)] = 1.0

    def area(self) -> float:
        """Return the area."""
        return self.side**2


@SHAPES.register
@spec
class Round(Shape):
    """Two names for one class."""

    kind: Literal["circle", "disc"] = "disc"
    radius: Annotated[float, Gt(0)] = 1.0

    def area(self) -> float:
        """Return the area."""
        return 3.0 * self.radius**2


@spec
class Drawing:
    """Settings with members of a registry."""

    first: Annotated[Shape, SHAPES.choice()]
    others: tuple[Annotated[Shape, SHAPES.choice()], ...] = ()


def test_settings_name_the_member_and_its_own_fields():
    drawing = load(Drawing, {"first": {"side": 2.0}, "others": [{"kind": "circle", "radius": 1.0}]})
    assert drawing.first == Square(side=2.0)
    assert drawing.others == (Round(kind="circle"),)
    assert drawing.first.area() == 4.0
    assert load(Drawing, to_dict(drawing)) == drawing


def test_instances_are_taken_as_they_are():
    assert Drawing(first=Round(radius=2.0)).first.area() == 12.0
    assert dataclasses.replace(Drawing(first=Square()), first=Round()).first == Round()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"first": {"kind": "cube"}},
            "top.first.kind: no shape 'cube'; valid: circle, disc, square",
        ),
        ({"first": {"side": -1.0}}, "top.first.side: input should be greater than 0, got -1.0"),
        ({"first": {"radius": 1.0}}, "top.first.radius: unknown setting; valid: kind, side"),
        ({"first": 3}, "top.first: a shape is a group of settings, got 3"),
        (
            {"first": {}, "others": [{"side": "x"}, {"kind": "disc", "radius": 0.0}]},
            "top.others.1.radius: input should be greater than 0, got 0.0",
        ),
    ],
)
def test_what_is_wrong_inside_a_member_has_its_dotted_path(data, message):
    with pytest.raises(SettingsError) as caught:
        load(Drawing, data, "top")
    assert message in str(caught.value).splitlines()


def test_a_member_that_lacks_something_is_refused_by_name():
    class NoArea(Shape):
        kind: Literal["no_area"] = "no_area"

    class NoName(Shape):
        def area(self) -> float:
            return 0.0

    with pytest.raises(SettingsError, match=r"shape .*NoArea: lacks area"):
        SHAPES.register(NoArea)
    with pytest.raises(SettingsError, match="NoName: has no name"):
        SHAPES.register(NoName)
    with pytest.raises(SettingsError, match="does not derive from Shape"):
        SHAPES.register(dict)


def test_a_taken_name_is_refused():
    class Other(Shape):
        kind: Literal["square"] = "square"

        def area(self) -> float:
            return 0.0

    with pytest.raises(SettingsError, match="'square' is taken by"):
        SHAPES.register(Other)

"""What a sweep measures at each of its points."""

import abc
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from repast_dist.ground.registry import Registry

if TYPE_CHECKING:
    from repast_dist.studies.settings import RunSettings


Watch = Callable[[int, Mapping[str, Any]], None]
"""Is told the figures known after an epoch; raises `Stopped` where it is no use to go on."""


class Stopped(Exception):
    """A watch ended what was being measured."""


class Measure(abc.ABC):
    """Settings in, one row of figures out; every point is independent of all others.

    A measure of your own is one file that ``plugins=[my_measure.py]`` names: a class decorated by
    ``@MEASURES.register`` and ``@spec``, with a field ``kind: Literal["mine"] = "mine"``. What is
    slow to import is imported inside `record`.

    Attributes
    ----------
    kind : str
        The measure's name.
    reads : tuple of str
        Dotted paths of the settings it reads.
    units : mapping
        Column -> unit; plain counts and text may be left out.
    """

    kind: str
    reads: ClassVar[tuple[str, ...]] = ()
    units: ClassVar[Mapping[str, str]] = {}

    @abc.abstractmethod
    def record(self, settings: "RunSettings") -> dict[str, Any]:
        """Return column -> number, text or None, for the settings of one point.

        Raises
        ------
        RepastError
            The point cannot be computed.
        """

    def watched(self, settings: "RunSettings", watch: Watch) -> dict[str, Any]:
        """Return what `record` does; a measure that takes long tells what it knows meanwhile.

        Raises
        ------
        Stopped
            The watch had seen enough.
        """
        return self.record(settings)


MEASURES: Registry[Measure] = Registry(
    "measure",
    Measure,  # type: ignore[type-abstract]
    tag="kind",
    home="repast_dist.studies.measures",
)

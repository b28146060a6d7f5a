"""Shapes that a file has for one sample, as shapes for several."""

import math
from collections.abc import Callable

Shape = tuple[int, ...]


class NotTrained(Exception):
    """A form of an operator that cannot be trained."""


class Samples:
    """Which axis of a shape that a file holds for one sample grows with the samples.

    The file does not say it: of several axes that it could be, those are taken with which a network
    gives for two samples together what it gives for each.
    """

    def __init__(self) -> None:
        self._chosen: dict[tuple[Shape, Shape, Shape], tuple[int, ...]] = {}
        self._shapes: dict[str, Shape] = {}

    def shape(self, name: str, now: Shape) -> Shape:
        """Return the shape that an operation's input has for one sample: that of the first call.

        Parameters
        ----------
        name : str
            What the operation makes.
        now : tuple of int
            Shape of its input in this call.
        """
        return self._shapes.setdefault(name, now)

    def target(self, one: Shape, now: Shape, target: list[int]) -> list[int]:
        """Return a shape to give to samples, of that which is given to one.

        Parameters
        ----------
        one : tuple of int
            Shape of a tensor for one sample.
        now : tuple of int
            Its shape for the samples that there are.
        target : list of int
            What it becomes for one sample; 0: as it is, -1: whatever is left.

        Raises
        ------
        NotTrained
            No axis holds samples.
        """
        target = [one[n] if size == 0 else size for n, size in enumerate(target)]
        known = math.prod(size for size in target if size > 0)
        target = [math.prod(one) // known if size < 0 else size for size in target]
        grown = [axis for axis, (a, b) in enumerate(zip(one, now, strict=True)) if a != b]
        if len(grown) != 1 or now[grown[0]] % one[grown[0]]:
            raise NotTrained("a shape that holds the number of samples")
        (axis,) = grown
        times = now[axis] // one[axis]
        key = (one, tuple(target), tuple(grown))
        if key not in self._chosen:
            self._chosen[key] = _possible(one, axis, target)
        if not self._chosen[key]:
            raise NotTrained("a shape that holds the number of samples")
        place = self._chosen[key][0]
        return [size * times if n == place else size for n, size in enumerate(target)]

    def choose(self, fits: Callable[[], str], tries: int = 300) -> str:
        """Try the axes in turn until a network fits.

        Parameters
        ----------
        fits : callable
            Runs the network; returns why it does not fit, or "".
        tries : int
            At most so many runs.

        Returns
        -------
        str
            Why it does not fit with the axes that were tried first; "": it fits.
        """
        first = ""
        for _ in range(tries):
            reason = fits()
            if not reason:
                return ""
            first = first or reason
            # Those that were met last are tried first.
            for key in reversed(list(self._chosen)):
                if len(self._chosen[key]) > 1:
                    self._chosen[key] = self._chosen[key][1:]
                    break
                del self._chosen[key]
            else:
                return first
        return first


def _possible(one: Shape, axis: int, target: list[int]) -> tuple[int, ...]:
    """Return the axes of a target that may hold samples which one axis holds, likely ones first.

    Elements keep their order: an axis holds samples if what lies in front of them is between what
    lies in front of the axis and what lies in front of the next one.
    """
    low, high = math.prod(one[:axis]), math.prod(one[: axis + 1])
    ends = [math.prod(target[:n]) for n in range(len(target) + 1)]
    found = [n for n in range(len(target)) if ends[n] <= high and ends[n + 1] >= low]
    return tuple(sorted(found, key=lambda n: (ends[n] != low, n != axis, n)))

"""Streams of random numbers that code of the user's own may draw from without naming them.

Python, NumPy and PyTorch each have a stream that belongs to the process. Where users' code runs,
these streams begin at an address (`repast_dist.ground.rng`), so that what it draws depends on
what it is for and not on what the process did before.
"""

import contextlib
import random
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from repast_dist.ground.rng import generator

_Stream = tuple[Callable[[], Any], Callable[[Any], object], Callable[[int], object]]
"""Functions that return its state, set its state, and begin it."""

_PYTHON: _Stream = (random.getstate, random.setstate, random.seed)
_NUMPY: _Stream = (np.random.get_state, np.random.set_state, np.random.seed)


def positions() -> tuple[bytes, ...]:
    """Return how far each stream has been drawn from, to be compared."""
    key, *rest = _NUMPY[0]()[1:]
    found = [repr(random.getstate()).encode(), np.asarray(key).tobytes() + repr(rest).encode()]
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        found.append(torch.default_generator.get_state().numpy().tobytes())
    return tuple(found)


@contextlib.contextmanager
def kept() -> Iterator[Callable[..., None]]:
    """Give a function ``begin(seed, *address)``; afterwards the streams go on as before."""
    streams = [_PYTHON, _NUMPY]
    # Not imported here: who draws from it has done so.
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        own = torch.default_generator
        streams.append((own.get_state, own.set_state, own.manual_seed))
    before = [state() for state, _, _ in streams]

    def begin(seed: int, *address: int | str) -> None:
        """Let all streams begin at an address."""
        start = int(generator(seed, "streams", *address).integers(2**32))
        for _, _, seeded in streams:
            seeded(start)

    try:
        yield begin
    finally:
        for (_, restore, _), state in zip(streams, before, strict=True):
            restore(state)

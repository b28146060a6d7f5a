"""Random streams addressed by what they are for, never by who draws them.

A stream is a counter-based Philox generator whose key is a hash of its address, for example
``generator(seed, "programming", step, layer, block, array)``. The same address gives the same
numbers on any chip, in any process and in any order of calls, which is what makes a run
bit-identical for every number of chips.
"""

import functools
import hashlib

import numpy as np
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import DTypeLike

Address = tuple[int | str, ...]


class When(int):
    """A number in an address that says when, such as a step, and not where.

    It draws what the same plain number does; `place` leaves it out.
    """


def place(address: Address) -> Address:
    """Return an address without the times in it: what stays the same thing from step to step."""
    return tuple(part for part in address if not isinstance(part, When))


def generator(seed: int, *address: int | str) -> np.random.Generator:
    """Return the generator of one address.

    Parameters
    ----------
    seed : int
        The run's seed.
    *address : int or str
        Purpose first, then indices (step, layer, block, array, ...). ``1`` and ``"1"`` differ.

    Returns
    -------
    numpy.random.Generator
        A Philox stream keyed by the 128-bit BLAKE2b hash of the address.
    """
    digest = hashlib.blake2b(_encode((seed, *address)), digest_size=16).digest()
    # NumPy's stubs know of SeedSequence alone.
    return np.random.Generator(np.random.Philox(_Key(digest)))  # type: ignore[arg-type]


def words(count: int, seed: int, *address: int | str) -> np.ndarray:
    """Return so many random words of an address, (count,) uint32: where few are needed, a
    tenth of the time of a generator.
    """
    digest = hashlib.shake_128(_encode((seed, *address))).digest(4 * count)
    return np.frombuffer(digest, "<u4").astype(np.uint32)


class _Key(ISeedSequence):
    """A key as the seed of a Philox stream.

    Handed over as ``key``, it would be the same, but the stream would ask the operating system for
    entropy besides, which takes longer than all the rest.
    """

    def __init__(self, digest: bytes) -> None:
        self._words = np.frombuffer(digest, "<u8").astype(np.uint64)

    def generate_state(self, n_words: int, dtype: DTypeLike = np.uint64) -> np.ndarray:
        """Return the key: Philox asks for two words of 64 bits."""
        return self._words


def _encode(address: Address) -> bytes:
    """Encode an address without ambiguity: a type letter, the length and the text per part."""
    return "|".join(map(_encoded, address)).encode()


@functools.lru_cache(maxsize=2**14)
def _encoded(part: int | str) -> str:
    kind = "s" if isinstance(part, str) else "i"
    text = part if isinstance(part, str) else str(int(part))
    return f"{kind}{len(text)}:{text}"

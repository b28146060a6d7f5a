"""``text``: a text, of which a network learns to tell each next character."""

import bz2
import sys
from importlib.resources import files
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Ge, Gt, Lt

from repast_dist.ground.errors import DataError
from repast_dist.ground.numbers import PositiveInt
from repast_dist.ground.rng import generator
from repast_dist.ground.spec import spec
from repast_dist.training.datasets.base import DATASETS, DataSource
from repast_dist.training.datasets.split import Samples

SHIPPED = "kjv.txt.bz2"
_CHARACTERS = 1_024
"""Most different characters of a text: networks have an output for each."""


@DATASETS.register
@spec
class Text(DataSource):
    """A text cut into windows; tokens are its characters, in the order of their code points.

    Attributes
    ----------
    name : {"text"}
        The data set's name.
    path : str
        A file of UTF-8 text; empty: the text that is shipped.
    tokens : int
        Characters of a window. The label of each is the character behind it.
    test_fraction : float
        Share of the windows held out: those at the end of the text.
    split_seed : int
        Seed of the order of windows; apart from the run's seed, so that runs with fewer samples
        compare on the same ones.
    scaling : {"none"}
        Tokens are not scaled.
    """

    name: Literal["text"] = "text"
    path: str = ""
    tokens: PositiveInt = 32
    test_fraction: Annotated[float, Gt(0), Lt(1)] = 0.1
    split_seed: Annotated[int, Ge(0)] = 0
    scaling: Literal["none"] = "none"

    source: ClassVar[str] = (
        "text in dataset.path, or the King James Bible of 1611 (public domain), shipped here"
    )

    def read(self) -> tuple[Samples, Samples]:
        """Return windows of tokens, (N, T), and the token behind each, (N, T)."""
        text = self._text()
        points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
        # Instead of sorting millions of characters.
        known = np.zeros(sys.maxunicode + 1, bool)
        known[points] = True
        numbers = (np.cumsum(known) - 1)[points]
        if known.sum() > _CHARACTERS:
            raise DataError(
                f"dataset.path: {self.path} has {known.sum()} different characters; valid: at "
                f"most {_CHARACTERS}"
            )
        windows = (len(numbers) - 1) // self.tokens
        test = round(self.test_fraction * windows)
        if not 0 < test < windows:
            raise DataError(
                f"dataset.path: {self.path or SHIPPED} has {len(numbers)} characters, which is "
                f"{windows} windows of {self.tokens}; valid: enough for a training and a test set"
            )
        x, y = (numbers[i : i + windows * self.tokens].reshape(windows, -1) for i in (0, 1))
        inputs, labels = x.astype(np.int64), y.astype(np.int64)
        parts = (np.arange(windows - test), np.arange(windows - test, windows))
        orders = [
            generator(self.split_seed, "windows", number).permutation(part)
            for number, part in enumerate(parts)
        ]
        return (inputs[orders[0]], labels[orders[0]]), (inputs[orders[1]], labels[orders[1]])

    def _text(self) -> str:
        if not self.path:
            shipped = files("repast_dist.training.datasets") / "files" / SHIPPED
            return bz2.decompress(shipped.read_bytes()).decode()
        try:
            return Path(self.path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"dataset.path: {self.path} cannot be read: {error}; valid: a file of UTF-8 text"
            ) from None

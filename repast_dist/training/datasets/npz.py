"""``npz``: arrays of your own in one NumPy archive."""

import zipfile
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from repast_dist.ground.errors import DataError
from repast_dist.ground.spec import spec
from repast_dist.training.datasets.base import DATASETS, DataSource
from repast_dist.training.datasets.checks import as_classes, as_numbers, as_samples, as_tokens
from repast_dist.training.datasets.split import Samples

_NAMES = ("x_train", "y_train", "x_test", "y_test")


@DATASETS.register
@spec
class Npz(DataSource):
    """Arrays ``x_train``, ``y_train``, ``x_test`` and ``y_test`` in a file of `numpy.savez`.

    Attributes
    ----------
    name : {"npz"}
        The data set's name.
    path : str
        The file. Inputs are (N, D), (N, H, W) or (N, C, H, W), unsigned bytes or real numbers;
        labels are (N,) classes counted from 0. Features (N, D) become pictures (N, 1, 1, D).
    targets : {"classes", "numbers", "tokens"}
        What the labels are: classes; real numbers (N,) or (N, K) that ``model.loss=regression``
        fits, of any scale; or tokens (N, T), whole numbers from 0 like the inputs (N, T), that
        ``model.loss=next_token`` tells.
    """

    name: Literal["npz"] = "npz"
    path: str = "data/data.npz"
    targets: Literal["classes", "numbers", "tokens"] = "classes"

    source: ClassVar[str] = "arrays of one's own, from dataset.path"

    def read(self) -> tuple[Samples, Samples]:
        """Return the arrays as samples, (N, C, H, W)."""
        path = Path(self.path)
        if not path.is_file():
            raise DataError(f"dataset.path: {path} is not a file; valid: a file of numpy.savez")
        try:
            loaded = np.load(path, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                raise DataError(f"dataset.path: {path} is one array; valid: a file of numpy.savez")
            with loaded as archive:
                missing = [name for name in _NAMES if name not in archive]
                if missing:
                    raise DataError(
                        f"dataset.path: {path} lacks {', '.join(missing)}; it must hold "
                        f"{', '.join(_NAMES)}"
                    )
                x, y, x_test, y_test = (archive[name] for name in _NAMES)
        except (
            OSError, ValueError, TypeError, EOFError, MemoryError, zipfile.BadZipFile,
        ) as error:  # fmt: skip
            raise DataError(f"dataset.path: {path} cannot be read: {error}") from None
        if self.targets == "tokens":
            if self.scaling != "none":
                raise DataError(
                    f"dataset.scaling: {self.scaling} does not fit tokens (dataset.targets=tokens);"
                    " valid: none"
                )
            return (as_tokens(x, y, f"{path}, train"), as_tokens(x_test, y_test, f"{path}, test"))
        as_labels = as_classes if self.targets == "classes" else as_numbers
        return (
            as_samples(x, y, f"{path}, train", as_labels),
            as_samples(x_test, y_test, f"{path}, test", as_labels),
        )

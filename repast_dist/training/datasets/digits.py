"""``digits``: the 1,797 handwritten digits that ship with scikit-learn."""

import importlib.util
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Ge, Gt, Lt

from repast_dist.ground.errors import DataError
from repast_dist.ground.spec import spec
from repast_dist.training.datasets.base import DATASETS, DataSource
from repast_dist.training.datasets.split import Samples, stratified_split

_LEVELS = 16.0


@DATASETS.register
@spec
class Digits(DataSource):
    """1,797 digits of 8x8 from scikit-learn; every class has the same share in the test set.

    Attributes
    ----------
    name : {"digits"}
        The data set's name.
    test_fraction : float
        Share of samples held out.
    split_seed : int
        Seed of the split; apart from the run's seed, so that runs compare on the same test set.
    """

    name: Literal["digits"] = "digits"
    test_fraction: Annotated[float, Gt(0), Lt(1)] = 0.2
    split_seed: Annotated[int, Ge(0)] = 0

    source: ClassVar[str] = (
        "Optical Recognition of Handwritten Digits (Alpaydin and Kaynak 1998), UCI, CC BY 4.0, "
        "as in scikit-learn"
    )

    def read(self) -> tuple[Samples, Samples]:
        """Return the digits, (N, 1, 8, 8)."""
        table = np.loadtxt(_file(), delimiter=",")
        inputs = (table[:, :-1] / _LEVELS).reshape(-1, 1, 8, 8)
        labels = table[:, -1].astype(np.int64)
        train, test = stratified_split(labels, self.test_fraction, self.split_seed)
        return (inputs[train], labels[train]), (inputs[test], labels[test])


def _file() -> Path:
    """Return the file with the digits; scikit-learn is not imported, which takes seconds.

    Raises
    ------
    DataError
        It is not there.
    """
    found = importlib.util.find_spec("sklearn")
    for folder in (found and found.submodule_search_locations) or ():
        path = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            return path
    raise DataError("dataset digits: datasets/data/digits.csv.gz of scikit-learn is not installed")

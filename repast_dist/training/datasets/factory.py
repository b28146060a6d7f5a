"""``factory``: samples that a function of the user's own returns."""

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any, ClassVar, Literal

import numpy as np

from repast_dist.ground.errors import DataError, SettingsError
from repast_dist.ground.global_streams import kept
from repast_dist.ground.spec import spec
from repast_dist.ground.user_code import described, resolve_callable
from repast_dist.training.datasets.base import DATASETS, DataSource
from repast_dist.training.datasets.split import Samples

Argument = str | int | float | bool | None
_KEYS = ("x_train", "y_train", "x_test", "y_test")
_LEVELS = np.float32(255.0)
_VALID = (
    "valid: ((x, y), (x_test, y_test)) of arrays or tensors, two data sets whose items are (x, y), "
    f"or a mapping with {', '.join(_KEYS)}"
)


@DATASETS.register
@spec
class FactoryData(DataSource):
    """Samples that a function of one's own returns; ``dataset.factory=my_lab:make_data``.

    Attributes
    ----------
    name : {"factory"}
        The data set's name.
    factory : str
        The function, ``module:function`` or ``folder/my_lab.py:function``. It returns a training
        and a test set: each (x, y) as arrays or tensors, or a data set whose items are (x, y).
        Unsigned bytes are divided by 255, other whole numbers are tokens; labels that are whole
        numbers are classes.
    arguments : dict
        Arguments of the function by name.
    scaling : {"unit", "standard", "none"}
        As of other data sets.
    """

    name: Literal["factory"] = "factory"
    factory: str
    arguments: dict[str, Argument] = field(default_factory=dict)
    scaling: Literal["unit", "standard", "none"] = "none"

    source: ClassVar[str] = "a function of one's own, dataset.factory"

    @property
    def code(self) -> tuple[str, ...]:
        """The functions that it names."""
        return (self.factory, *super().code)

    def __hash__(self) -> int:
        return hash(repr(self))

    def read(self) -> tuple[Samples, Samples]:
        """Return what the function gives, as arrays (N, ...)."""
        function = resolve_callable(self.factory, "dataset.factory")
        try:
            with kept() as begin:
                begin(0, "dataset")
                made = function(**self.arguments)
                train, test = _parts(made)
                return self._samples(train, "training"), self._samples(test, "test")
        except DataError:
            raise
        except Exception as error:
            raise SettingsError(
                f"dataset.factory: {self.factory}: {described(error)}; {_VALID}"
            ) from error

    def _samples(self, part: Any, which: str) -> Samples:
        where = f"dataset.factory: {self.factory}, {which} set"
        if not (isinstance(part, tuple | list) and len(part) == 2 and _is_array(part[0])):
            items = [part[number] for number in range(len(part))]
            if not items:
                raise DataError(f"{where}: it is empty")
            part = [np.stack([_array(item[place]) for item in items]) for place in (0, 1)]
        inputs, labels = (_array(values) for values in part)
        if inputs.ndim < 2 or not inputs.size or labels.ndim < 1 or len(labels) != len(inputs):
            raise DataError(
                f"{where}: inputs of shape {inputs.shape} and labels of shape {labels.shape}; "
                "valid: (N, ...) and (N, ...)"
            )
        return _inputs(inputs, where), _labels(labels, where)


def _parts(made: Any) -> tuple[Any, Any]:
    """Return the training and the test set in what the function returned."""
    if isinstance(made, Mapping):
        x, y, x_test, y_test = (made[key] for key in _KEYS)
        return (x, y), (x_test, y_test)
    train, test = made
    return train, test


def _is_array(values: Any) -> bool:
    return isinstance(values, Sequence) or hasattr(values, "__array__")


def _array(values: Any) -> np.ndarray:
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)


def _inputs(values: np.ndarray, where: str) -> np.ndarray:
    if values.dtype == np.uint8:
        return np.asarray(values.astype(np.float32) / _LEVELS)
    if values.dtype.kind in "iu":
        return values.astype(np.int64)
    if values.dtype.kind != "f":
        raise DataError(f"{where}: inputs of type {values.dtype}; valid: real or whole numbers")
    return _finite(values, f"{where}: inputs")


def _labels(values: np.ndarray, where: str) -> np.ndarray:
    if values.dtype.kind in "iub":
        whole = values.astype(np.int64)
        if whole.min() < 0:
            raise DataError(f"{where}: a label of {whole.min()}; valid: whole numbers from 0")
        return whole[:, 0] if whole.ndim == 2 and whole.shape[1] == 1 else whole
    if values.dtype.kind != "f":
        raise DataError(f"{where}: labels of type {values.dtype}; valid: real or whole numbers")
    return _finite(values[:, None] if values.ndim == 1 else values, f"{where}: labels")


def _finite(values: np.ndarray, what: str) -> np.ndarray:
    single = values.astype(np.float32)
    if not np.isfinite(single).all():
        raise DataError(f"{what} have NaN or infinity; valid: finite numbers")
    return single

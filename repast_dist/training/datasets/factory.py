"""``factory``: samples that a function of the user's own returns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import Any, ClassVar, Literal

import numpy as np

from repast_dist.ground.errors import DataError, SettingsError
from repast_dist.ground.global_streams import kept
from repast_dist.ground.spec import spec
from repast_dist.ground.user_code import described, resolve_callable
from repast_dist.training.datasets.base import DATASETS, DataSource
from repast_dist.training.datasets.records import Parts, joined, sample_text
from repast_dist.training.datasets.split import Samples

Argument = str | int | float | bool | None
_KEYS = ("x_train", "y_train", "x_test", "y_test")
_LABELS = "labels"
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
        Several inputs are (x1, x2, y), a tuple or a mapping in the place of x, or a mapping with
        ``labels``; several labels are a tuple or a mapping in the place of y.
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
        if _is_whole(part):
            inputs, labels = (_each(_array, values) for values in _split(part))
        else:
            items = [_split(part[number]) for number in range(len(part))]
            if not items:
                raise DataError(f"{where}: it is empty")
            inputs, labels = (_stacked([item[place] for item in items]) for place in (0, 1))
        inputs = joined(_each(lambda values: _inputs(values, where), inputs), f"{where}, inputs")
        labels = joined(_each(lambda values: _labels(values, where), labels), f"{where}, labels")
        if len(labels) != len(inputs) or not (inputs.dtype.names or inputs.ndim > 1):
            raise DataError(
                f"{where}: {len(inputs)} inputs of shape {sample_text(inputs)} and {len(labels)} "
                f"labels of shape {sample_text(labels)}; valid: (N, ...) and (N, ...)"
            )
        return inputs, labels


def _parts(made: Any) -> tuple[Any, Any]:
    """Return the training and the test set in what the function returned."""
    if isinstance(made, Mapping):
        x, y, x_test, y_test = (made[key] for key in _KEYS)
        return (x, y), (x_test, y_test)
    train, test = made
    return train, test


def _is_array(values: Any) -> bool:
    return isinstance(values, list) or hasattr(values, "__array__")


def _is_whole(part: Any) -> bool:
    """Return whether a set is given as its arrays, and not as items."""
    if isinstance(part, Mapping | tuple):
        return True
    return isinstance(part, list) and len(part) == 2 and _is_array(part[0])


def _split(part: Any) -> tuple[Any, Any]:
    """Return inputs and labels of a set or of an item: labels are the last, or have that name."""
    if isinstance(part, Mapping):
        inputs = {name: values for name, values in part.items() if name != _LABELS}
        return inputs, part[_LABELS]
    *inputs, labels = part
    return (inputs[0] if len(inputs) == 1 else tuple(inputs)), labels


def _is_several(values: Any) -> bool:
    """Return whether inputs or labels are several arrays."""
    if isinstance(values, Mapping):
        return True
    return isinstance(values, tuple) and any(
        _is_array(part) and not isinstance(part, np.generic) for part in values
    )


def _each(function: Callable[[Any], np.ndarray], values: Any) -> Parts:
    """Return what a function makes of one array, or of each of several."""
    if isinstance(values, Mapping):
        return {name: function(part) for name, part in values.items()}
    if _is_several(values):
        return tuple(function(part) for part in values)
    return function(values)


def _stacked(items: Sequence[Any]) -> Parts:
    """Return what items hold, each array of theirs with the items as first dimension."""
    first = items[0]
    if isinstance(first, Mapping):
        return {name: np.stack([_array(item[name]) for item in items]) for name in first}
    if _is_several(first):
        return tuple(
            np.stack([_array(part) for part in parts]) for parts in zip(*items, strict=True)
        )
    return np.stack([_array(item) for item in items])


def _array(values: Any) -> np.ndarray:
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)


def _inputs(values: np.ndarray, where: str) -> np.ndarray:
    _check_any(values, f"{where}: inputs")
    if values.dtype == np.uint8:
        return np.asarray(values.astype(np.float32) / _LEVELS)
    if values.dtype.kind in "iu":
        return values.astype(np.int64)
    if values.dtype.kind == "b":
        return values
    if values.dtype.kind != "f":
        raise DataError(f"{where}: inputs of type {values.dtype}; valid: real or whole numbers")
    return _finite(values, f"{where}: inputs")


def _labels(values: np.ndarray, where: str) -> np.ndarray:
    _check_any(values, f"{where}: labels")
    if values.dtype.kind in "iub":
        whole = values.astype(np.int64)
        if whole.min() < 0:
            raise DataError(f"{where}: a label of {whole.min()}; valid: whole numbers from 0")
        return whole[:, 0] if whole.ndim == 2 and whole.shape[1] == 1 else whole
    if values.dtype.kind != "f":
        raise DataError(f"{where}: labels of type {values.dtype}; valid: real or whole numbers")
    return _finite(values[:, None] if values.ndim == 1 else values, f"{where}: labels")


def _check_any(values: np.ndarray, what: str) -> None:
    if not values.ndim or not values.size:
        raise DataError(f"{what} of shape {values.shape}; valid: (N, ...)")


def _finite(values: np.ndarray, what: str) -> np.ndarray:
    single = values.astype(np.float32)
    if not np.isfinite(single).all():
        raise DataError(f"{what} have NaN or infinity; valid: finite numbers")
    return single

"""Training samples vary by a function of the user's own, from streams that only samples decide."""

from collections.abc import Callable
from typing import Any

import numpy as np

from repast_dist.ground.errors import DataError, SettingsError
from repast_dist.ground.global_streams import kept
from repast_dist.ground.rng import generator
from repast_dist.ground.user_code import described, resolve_callable
from repast_dist.training.datasets.records import Parts, apart, as_record

Augmentation = Callable[[Parts, np.random.Generator], Any]
_SETTING = "dataset.augmentation"


def chosen_augmentation(reference: str | None, inputs: np.ndarray) -> Augmentation | None:
    """Return the function that a setting names, after a try with the first sample.

    Raises
    ------
    SettingsError
        There is none, it fails, or it returns another shape.
    """
    if reference is None:
        return None
    function: Augmentation = resolve_callable(reference, _SETTING)
    try:
        augmented(function, inputs[:1], 0, 0, np.arange(1))
    except DataError as error:
        raise SettingsError(f"{_SETTING}: {reference}: {error}") from error
    return function


def augmented(
    function: Augmentation, inputs: np.ndarray, seed: int, step: int, samples: np.ndarray
) -> np.ndarray:
    """Return samples anew, (N, ...) like the inputs.

    Parameters
    ----------
    function : callable
        Sample and generator -> sample; a sample of several arrays is a tuple or a dict. The
        streams of Python, NumPy and PyTorch that it may draw from instead begin at the same
        address.
    inputs : (N, ...) ndarray
        The samples.
    seed, step : int
        The run's seed and the training step.
    samples : (N,) integer ndarray
        Their numbers in the data set.

    Raises
    ------
    DataError
        It fails, or returns another shape.
    """
    result = np.empty_like(inputs)
    with kept() as begin:
        for place, number in enumerate(samples.tolist()):
            address = ("augmentation", step, number)
            begin(seed, *address)
            try:
                made = function(apart(np.array(inputs[place])), generator(seed, *address))
                made = as_record(made, inputs) if inputs.dtype.names else np.asarray(made)
            except DataError:
                raise
            except Exception as error:
                raise DataError(described(error)) from error
            if made.shape != inputs.shape[1:]:
                raise DataError(
                    f"it made {made.shape} of a sample of {inputs.shape[1:]}; valid: the same shape"
                )
            result[place] = made
    return result

"""Dropout whose masks depend on the step and on the sample, not on who runs the micro-batch."""

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from repast_dist.ground.rng import generator

_WHOLE_CHANNELS = (F.dropout1d, F.dropout2d, F.dropout3d, F.feature_alpha_dropout)
_ALPHA = (F.alpha_dropout, F.feature_alpha_dropout)
_ALL = (F.dropout, F.alpha_dropout, *_WHOLE_CHANNELS)
_ONE_SAMPLE = {F.dropout1d: 2, F.dropout3d: 4}
"""Dropout of whole channels -> dimensions of an input that is one sample, channels first."""

_SATURATION = -1.7580993408473766
"""-alpha * scale of SELU (Klambauer et al. 2017), as in PyTorch."""


class KeyedDropout(TorchFunctionMode):
    """While it is entered, every dropout draws from streams of its samples.

    The n-th dropout of a call draws the mask of a sample from the stream (seed, "dropout", step,
    sample, n). Where the first dimension is not that of samples, nor of samples with their tokens
    behind each other, the stream is that of the micro-batch.

    Parameters
    ----------
    seed, step : int
        The run's seed and the training step.
    micro_batch : int
        Number of the micro-batch in its step.
    samples : (N,) integer ndarray
        Numbers of the samples in the data set.
    before : int
        Dropouts that were computed before, where a call is one of several that follow each other.
    """

    def __init__(
        self, seed: int, step: int, micro_batch: int, samples: np.ndarray, before: int = 0
    ) -> None:
        super().__init__()
        self._seed, self._step, self._micro_batch = seed, step, micro_batch
        self._samples = samples
        self._calls = before

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Replace dropouts, and call all other functions."""
        if func in _ALL:
            return self._drop(func, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _drop(
        self,
        func: Any,
        input: torch.Tensor,
        p: float = 0.5,
        training: bool | None = None,
        inplace: bool = False,
    ) -> torch.Tensor:
        if not _drawn(func, input, p, training):
            return input
        if not 0 <= p <= 1:
            result: torch.Tensor = func(input, p)  # PyTorch says what is wrong.
            return result
        shape = tuple(input.shape)
        if func in _WHOLE_CHANNELS:
            channels = 1 if len(shape) == _ONE_SAMPLE.get(func) else 2
            shape = shape[:channels] + (1,) * (len(shape) - channels)
        kept = torch.from_numpy(self._uniform(shape) >= p).to(input.device)
        if func in _ALPHA:
            a = 1 / math.sqrt((1 - p) * (1 + p * _SATURATION**2)) if p < 1 else 0.0
            mask = kept.to(input.dtype)
            result = (input * mask + _SATURATION * (1 - mask)) * a - a * p * _SATURATION
        else:
            result = input * (kept.to(input.dtype) / (1 - p if p < 1 else 1.0))
        return input.copy_(result) if inplace else result

    def _uniform(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return numbers in 0..1, each sample's from its own stream."""
        call, count = self._calls, len(self._samples)
        self._calls += 1
        if not shape or shape[0] % count:
            address = ("dropout", self._step, "micro_batch", self._micro_batch, call)
            return generator(self._seed, *address).random(shape)
        each = (shape[0] // count, *shape[1:])
        return np.concatenate(
            [
                generator(self._seed, "dropout", self._step, number, call).random(each)
                for number in self._samples.tolist()
            ]
        )


class DropoutCounter(TorchFunctionMode):
    """Counts the dropouts that draw while it is entered.

    Attributes
    ----------
    calls : int
        How many there were.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Count, and call."""
        if func in _ALL:
            self.calls += _drawn(func, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _drawn(
    func: Any,
    input: torch.Tensor,
    p: float = 0.5,
    training: bool | None = None,
    inplace: bool = False,
) -> bool:
    """Return whether a dropout draws; alpha dropouts do not unless they are told to, others do."""
    active = func not in _ALPHA if training is None else training
    return bool(active and p != 0 and input.numel())

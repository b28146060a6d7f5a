"""Single micro-batches through a loaded network."""

from typing import Any

import numpy as np

from repast_dist.training.network import FactorsAsked, LoadedNetwork, MicroBatch, MicroBatchResult
from repast_dist.training.optimizers import SecondOrder


def run_micro_batch(
    loaded: LoadedNetwork,
    inputs: np.ndarray,
    labels: np.ndarray,
    samples: np.ndarray,
    number: int,
    optimizer: SecondOrder | None = None,
    **asked: Any,
) -> MicroBatchResult:
    """Return what one micro-batch leaves; `asked` as of `FactorsAsked`."""
    factors = None if optimizer is None else FactorsAsked(optimizer, **asked)
    (result,) = loaded.run_micro_batches([MicroBatch(number, inputs, labels, samples)], factors)
    return result

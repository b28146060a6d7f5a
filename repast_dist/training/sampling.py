"""Every epoch permutes the samples and cuts them into batches and micro-batches."""

import functools

import numpy as np

from repast_dist.ground.numbers import ceil_div
from repast_dist.ground.rng import generator
from repast_dist.training.specs import TrainSpec


def steps_per_epoch(samples: int, train: TrainSpec) -> int:
    """Return the number of full batches in the training set; an epoch omits the rest."""
    return samples // train.batch_size


def total_steps(samples: int, train: TrainSpec) -> int:
    """Return the number of steps of a run."""
    steps = train.epochs * steps_per_epoch(samples, train)
    return steps if train.max_steps is None else min(steps, train.max_steps)


def tested_after(step: int, samples: int, train: TrainSpec) -> bool:
    """Return whether a test follows once so many steps are done."""
    every = train.test_every * steps_per_epoch(samples, train)
    return step % every == 0 or step == total_steps(samples, train)


def tests_after(step: int, samples: int, train: TrainSpec) -> int:
    """Return how many tests a run has in all after so many steps."""
    every, total = train.test_every * steps_per_epoch(samples, train), total_steps(samples, train)
    return ceil_div(total, every) - step // every


def micro_batch_samples(
    seed: int, samples: int, train: TrainSpec, step: int, micro_batch: int
) -> np.ndarray:
    """Return the sample numbers of one micro-batch, (micro_batch_size,) int64."""
    epoch, batch = divmod(step, steps_per_epoch(samples, train))
    first = batch * train.batch_size + micro_batch * train.micro_batch_size
    return _order(seed, samples, epoch)[first : first + train.micro_batch_size]


@functools.lru_cache(maxsize=2)
def _order(seed: int, samples: int, epoch: int) -> np.ndarray:
    return generator(seed, "order", epoch).permutation(samples)

"""FOOF (Benzing 2022, "Gradient descent on neurons") inverts the moment of the inputs alone."""

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np

from repast_dist.ground.numbers import Fraction, NonNegative
from repast_dist.ground.spec import spec
from repast_dist.training.kfac import average_decay
from repast_dist.training.optimizers.base import (
    OPTIMIZERS,
    Arrays,
    LayerStatistics,
    SecondOrder,
    Side,
    Update,
    heavy_ball,
    zeros,
)


@OPTIMIZERS.register
@spec
class Foof(SecondOrder):
    """FOOF follows ``(A + damping)^-1 dW``, A the moment of a layer's inputs.

    It forms and inverts no matrix of output gradients. Layers without a direction follow the
    plain gradient.

    Attributes
    ----------
    momentum : float
        Heavy-ball momentum.
    factor_decay : float
        Decay of the running average, or its limit.
    averaging : {"growing", "unbiased"}
        ``growing``: update k uses a decay of min(1 - 1/k, factor_decay), as K-FAC does.
        ``unbiased``: the same decay always, and the average over its weights 1 - factor_decay^k.
    first_moment : float
        The average begins with so many times the identity, which has weight factor_decay^k; of
        ``averaging=unbiased``. Not 0, blocks cannot be fused.
    """

    title: ClassVar[str] = "FOOF"

    method: Literal["foof"] = "foof"
    momentum: Fraction = 0.9
    factor_decay: Fraction = 0.95
    averaging: Literal["growing", "unbiased"] = "growing"
    first_moment: NonNegative = 0.0

    def __post_init__(self) -> None:
        if self.first_moment and self.averaging == "growing":
            raise ValueError(
                f"first_moment={self.first_moment:g} with averaging=growing: the first update "
                "forgets it; valid: 0, or averaging=unbiased"
            )

    @property
    def fusible(self) -> bool:
        """Moments are products of rows, if averages begin with nothing else."""
        return not self.first_moment

    @property
    def first_diagonal(self) -> float:
        """What the average begins with."""
        return self.first_moment

    @property
    def sides(self) -> tuple[Side, ...]:
        """The side of the inputs."""
        return ("A",)

    def statistic(self, side: Side, layer: LayerStatistics) -> np.ndarray:
        """Return the moment of the inputs."""
        return layer.input_moment()

    def average_weights(self, update: int) -> tuple[float, float]:
        """Return the weights of the old average and of the new moment."""
        decay = self.factor_decay
        if self.averaging == "growing":
            past = average_decay(update, decay)
            return past, 1.0 - past
        # The first one comes upon the identity, which has not been divided by its weight.
        before = 1.0 - decay ** (update - 1) if update > 1 else 1.0
        whole = 1.0 - decay**update
        return decay * before / whole, (1.0 - decay) / whole

    def initial_state(self, weights: Mapping[str, np.ndarray]) -> Arrays:
        """Return momentum of zeros."""
        return zeros(weights, ["momentum"])

    def update(self, given: Update) -> tuple[Arrays, Arrays]:
        """Return the new weights and momentum."""
        found = {**given.gradients, **given.directions}
        directions = {name: found[name].astype(np.float64) for name in given.weights}
        return heavy_ball(self, self.momentum, given, directions)

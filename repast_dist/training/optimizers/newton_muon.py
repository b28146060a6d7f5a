"""Newton-Muon (Du and Su 2026) solves with the moment of the inputs before it orthogonalises."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Gt

from repast_dist.ground.numbers import Fraction, NonNegative
from repast_dist.ground.spec import spec
from repast_dist.training.optimizers.base import OPTIMIZERS, LayerStatistics, SecondOrder, Side
from repast_dist.training.optimizers.muon import Orthogonalising


@OPTIMIZERS.register
@spec
class NewtonMuon(Orthogonalising, SecondOrder):
    """Newton-Muon follows the orthogonal factor of ``(A + ridge)^-1 dW``, A the moment of a
    layer's inputs (Du and Su, arXiv 2604.01472).

    Blocks of A are averaged when factors are due (``soi.factor_interval``), inverted when
    inversions are (``soi.interval``, 32 both as published) and solved with in every step by the
    inversion scheme; one chip then does with the solved gradient of a matrix what Muon does with
    the gradient. The one that stands for a bias among the inputs belongs to A. A rate of theirs is
    five times as large here, with ``rate_scale=match_rms_adamw``.

    Attributes
    ----------
    damping : float
        Added to the diagonal of a block beside its ridge.
    ridge : float
        Share of the mean of its diagonal that is added to the diagonal of a block.
    factor_decay : float
        Decay of the running average.
    first_moment : float
        The average begins with so many times the identity.
    """

    title: ClassVar[str] = "Newton-Muon"
    damps_blocks: ClassVar[bool] = True

    method: Literal["newton_muon"] = "newton_muon"
    damping: Annotated[float, Gt(0)] = 1e-8
    ridge: NonNegative = 0.2
    factor_decay: Fraction = 0.95
    first_moment: NonNegative = 0.001

    @property
    def sides(self) -> tuple[Side, ...]:
        """The side of the inputs."""
        return ("A",)

    @property
    def first_diagonal(self) -> float:
        """What the average begins with."""
        return self.first_moment

    def statistic(self, side: Side, layer: LayerStatistics) -> np.ndarray:
        """Return the moment of the inputs."""
        return layer.input_moment()

    def average_weights(self, update: int) -> tuple[float, float]:
        """Return the weights of the old average and of the new moment, the same in all updates."""
        return self.factor_decay, 1.0 - self.factor_decay

    def dampings(self, sizes: Mapping[Side, tuple[float, int]]) -> dict[Side, float]:
        """Return the ridge of a block, and what is added beside it."""
        return {
            side: self.ridge * trace / size + self.damping for side, (trace, size) in sizes.items()
        }

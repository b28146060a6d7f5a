"""K-FAC (Martens and Grosse 2015) uses the formulas in `training.kfac`."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Gt

from repast_dist.ground.numbers import Fraction
from repast_dist.ground.spec import spec
from repast_dist.training.kfac import average_decay, damping_split, kl_clip_scale
from repast_dist.training.optimizers.base import (
    OPTIMIZERS,
    Arrays,
    Fisher,
    LayerStatistics,
    SecondOrder,
    Side,
    Update,
    heavy_ball,
    zeros,
)


@OPTIMIZERS.register
@spec
class Kfac(SecondOrder):
    """K-FAC follows natural gradients of a Kronecker-factored Fisher matrix.

    Attributes
    ----------
    momentum : float
        Heavy-ball momentum.
    damping_form : {"plain", "pi"}
        ``plain`` adds lambda to both factors. ``pi`` adds pi sqrt(lambda) to A and
        sqrt(lambda) / pi to G, pi = sqrt((tr A / dim A) / (tr G / dim G)) (Martens and Grosse
        2015, section 6.3); only A (x) G matters then, not how its scale is split.
    fisher : {"sampled", "exact", "empirical"}
        Output gradients that make G: of one label drawn from the model per sample; of all labels
        weighted by their probability; of the true label.
    factor_decay : float
        Limit of the running average's decay; step k uses min(1 - 1/k, factor_decay).
    kl_clip : float or None
        Bound on the step's predicted KL divergence; None: no bound.
    """

    title: ClassVar[str] = "K-FAC"

    method: Literal["kfac"] = "kfac"
    momentum: Fraction = 0.9
    damping_form: Literal["plain", "pi"] = "pi"
    fisher: Fisher = "sampled"
    factor_decay: Fraction = 0.95
    kl_clip: Annotated[float, Gt(0)] | None = 0.01

    @property
    def fusible(self) -> bool:
        """Factors are products of rows."""
        return True

    @property
    def output_gradients(self) -> Fisher:
        """The kind of output gradients from which the Fisher matrix is formed."""
        return self.fisher

    @property
    def needs_gradients(self) -> bool:
        """Whether a bound on the KL divergence is set, which needs the gradients."""
        return self.clips

    @property
    def clips(self) -> bool:
        """Whether a bound on the KL divergence is set."""
        return self.kl_clip is not None

    def statistic(self, side: Side, layer: LayerStatistics) -> np.ndarray:
        """Return the moment of the inputs (A) or of the output gradients (G)."""
        return layer.input_moment() if side == "A" else layer.error_moment()

    def average_weights(self, update: int) -> tuple[float, float]:
        """Return the weights of the old average and of the new factor."""
        past = average_decay(update, self.factor_decay)
        return past, 1.0 - past

    def dampings(self, sizes: Mapping[Side, tuple[float, int]]) -> dict[Side, float]:
        """Return the damping that is added to the diagonals of A and of G."""
        for_a, for_g = damping_split(self.damping_form, self.damping, *sizes["A"], *sizes["G"])
        return {"A": for_a, "G": for_g}

    def initial_state(self, weights: Mapping[str, np.ndarray]) -> Arrays:
        """Return momentum of zeros."""
        return zeros(weights, ["momentum"])

    def update(self, given: Update) -> tuple[Arrays, Arrays]:
        """Return the new weights and momentum; other layers follow the plain gradient."""
        rate = self.learning_rate_at(given.step, given.total_steps)
        scale = kl_clip_scale(given.gradients, given.directions, rate, self.kl_clip)
        directions = {
            name: scale * given.directions[name].astype(np.float64)
            if name in given.directions
            else given.gradients[name].astype(np.float64)
            for name in given.weights
        }
        return heavy_ball(self, self.momentum, given, directions)

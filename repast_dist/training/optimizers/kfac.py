"""K-FAC (Martens and Grosse 2015) uses the formulas in `training.kfac`."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Gt, Lt

from repast_dist.ground.numbers import Count, Fraction
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

_PREDICTED = "predicted/loss"


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
    adapt_damping_every : int
        Steps after which the damping is adapted as Levenberg and Marquardt do (Martens and Grosse
        2015, section 6.5): the samples of a step pass forward once more with the weights that it
        made, and what their loss changed by is compared with what the quadratic model of the
        preconditioned loss predicted. 0: the damping stays as it is.
    adapt_damping_by : float
        Factor per step of that change: damping is multiplied by it, to the power of the steps
        between, where the loss fell by more than 3/4 of the prediction, and divided where it fell
        by less than 1/4.
    """

    title: ClassVar[str] = "K-FAC"

    method: Literal["kfac"] = "kfac"
    momentum: Fraction = 0.9
    damping_form: Literal["plain", "pi"] = "pi"
    fisher: Fisher = "sampled"
    factor_decay: Fraction = 0.95
    kl_clip: Annotated[float, Gt(0)] | None = 0.01
    adapt_damping_every: Count = 0
    adapt_damping_by: Annotated[float, Gt(0), Lt(1)] = 0.95

    @property
    def damping_every(self) -> int:
        """Steps between changes of the damping."""
        return self.adapt_damping_every

    @property
    def damping_change(self) -> float:
        """The factor by which the damping changes then, or its inverse."""
        return float(self.adapt_damping_by**self.adapt_damping_every)

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
        """Whether a bound on the KL divergence is set or the damping is adapted."""
        return self.clips or self.damping_every > 0

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
        """Return momentum of zeros, and of its image where the damping is adapted."""
        if not self.damping_every:
            return zeros(weights, ["momentum"])
        return zeros(weights, ["momentum", "image"]) | {_PREDICTED: np.zeros((1, 1))}

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
        new, state = heavy_ball(self, self.momentum, given, directions)
        if self.damping_every:
            state |= self._model(given, scale, rate, state)
        return new, state

    def _model(self, given: Update, scale: float, rate: float, state: Arrays) -> Arrays:
        """Return what the quadratic model of the loss predicts of a step along the momentum, and
        the momentum's image under its matrix. The damped factors map a direction back to its
        gradient; they are taken to change little while the momentum lasts.
        """
        images: Arrays = {}
        predicted = 0.0
        for name, gradient in given.gradients.items():
            clipped = scale if name in given.directions else 1.0
            image = self.momentum * given.state[f"image/{name}"].astype(np.float64)
            image = image + clipped * gradient
            moved = state[f"momentum/{name}"].astype(np.float64)
            predicted += rate * (0.5 * rate * np.vdot(moved, image) - np.vdot(moved, gradient))
            images[f"image/{name}"] = image.astype(given.weights[name].dtype)
        return images | {_PREDICTED: np.full((1, 1), predicted)}

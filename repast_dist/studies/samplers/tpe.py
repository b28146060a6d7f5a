"""Points that a model of the good and the bad ones expects to be better."""

from typing import TYPE_CHECKING, ClassVar, Literal

from repast_dist.ground.numbers import PositiveInt
from repast_dist.ground.spec import spec
from repast_dist.studies.sampler import SAMPLERS, Sampler

if TYPE_CHECKING:
    import optuna


@SAMPLERS.register
@spec
class Tpe(Sampler):
    """Tree-structured Parzen estimator: one density of the better points, one of the others.

    Attributes
    ----------
    first : int
        Random points before the model is asked.
    together : bool
        Whether the densities know of parameters that matter together.
    """

    kind: Literal["tpe"] = "tpe"
    knows_constraints: ClassVar[bool] = True
    first: PositiveInt = 20
    together: bool = True

    def made(self, seed: int) -> "optuna.samplers.BaseSampler":
        """Return Optuna's sampler; points under way count as poor, so that workers spread out."""
        from optuna.samplers import TPESampler

        return TPESampler(
            seed=seed, n_startup_trials=self.first, multivariate=self.together, constant_liar=True
        )

"""Generations of points that cross and mutate."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from annotated_types import Ge, Le

from repast_dist.ground.spec import spec
from repast_dist.studies.sampler import SAMPLERS, Sampler

if TYPE_CHECKING:
    import optuna


@SAMPLERS.register
@spec
class Nsga2(Sampler):
    """NSGA-II (Deb et al., 2002): generations that keep what is not dominated, spread out.

    Attributes
    ----------
    population : int
        Points of a generation.
    crossed : float
        Share of points that have two parents.
    """

    kind: Literal["nsga2"] = "nsga2"
    knows_constraints: ClassVar[bool] = True
    population: Annotated[int, Ge(2)] = 50
    crossed: Annotated[float, Ge(0), Le(1)] = 0.9

    def made(self, seed: int) -> "optuna.samplers.BaseSampler":
        """Return Optuna's sampler."""
        from optuna.samplers import NSGAIISampler

        return NSGAIISampler(
            seed=seed, population_size=self.population, crossover_prob=self.crossed
        )

"""Points of a normal distribution that follows the better ones."""

import warnings
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from annotated_types import Ge

from repast_dist.ground.errors import SettingsError
from repast_dist.ground.spec import spec
from repast_dist.studies.sampler import SAMPLERS, Sampler

if TYPE_CHECKING:
    import optuna


@SAMPLERS.register
@spec
class CmaEs(Sampler):
    """CMA-ES (Hansen and Ostermeier, 2001) with margins, which keep it moving in whole numbers.

    Parameters that are names, not numbers, are drawn at random beside it.

    Attributes
    ----------
    population : int or None
        Points of a generation; None: 4 + 3 ln(parameters).
    """

    kind: Literal["cmaes"] = "cmaes"
    most_objectives: ClassVar[int | None] = 1
    population: Annotated[int, Ge(2)] | None = None

    def made(self, seed: int) -> "optuna.samplers.BaseSampler":
        """Return Optuna's sampler, which needs the package ``cmaes``."""
        try:
            import cmaes  # noqa: F401
        except ModuleNotFoundError as error:
            raise SettingsError(
                "study.sampler.kind=cmaes needs the cmaes package: "
                "pip install 'repast-dist[search]'"
            ) from error
        from optuna.exceptions import ExperimentalWarning
        from optuna.samplers import CmaEsSampler

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return CmaEsSampler(
                seed=seed,
                popsize=self.population,
                with_margin=True,
                warn_independent_sampling=False,
            )

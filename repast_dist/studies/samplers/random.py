"""Independent random points."""

from typing import TYPE_CHECKING, Literal

from repast_dist.ground.spec import spec
from repast_dist.studies.sampler import SAMPLERS, Sampler

if TYPE_CHECKING:
    import optuna


@SAMPLERS.register
@spec
class Random(Sampler):
    """Independent random points: the same ones however many workers there are."""

    kind: Literal["random"] = "random"

    def made(self, seed: int) -> "optuna.samplers.BaseSampler":
        """Return Optuna's random sampler."""
        from optuna.samplers import RandomSampler

        return RandomSampler(seed=seed)

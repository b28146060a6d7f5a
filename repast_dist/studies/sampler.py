"""Who proposes the points of a search."""

import abc
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from repast_dist.ground.registry import Registry

if TYPE_CHECKING:
    import optuna


class Sampler(abc.ABC):
    """Proposes points from what is known of those before.

    A sampler of your own is one file that ``plugins=[my_sampler.py]`` names: a class decorated by
    ``@SAMPLERS.register`` and ``@spec``, with a field ``kind: Literal["mine"] = "mine"``. Any
    sampler of Optuna, or one that derives from ``optuna.samplers.BaseSampler``, can be behind it.

    Attributes
    ----------
    kind : str
        The sampler's name.
    needs_points : bool
        Whether it goes on until it is stopped.
    knows_constraints : bool
        Whether it reads the constraints of finished points. To others, a point outside of them is
        told as worse than any other.
    most_objectives : int or None
        Objectives it can have; None: any number.
    """

    kind: str
    needs_points: ClassVar[bool] = True
    knows_constraints: ClassVar[bool] = False
    most_objectives: ClassVar[int | None] = None

    @abc.abstractmethod
    def made(self, seed: int) -> "optuna.samplers.BaseSampler | None":
        """Return Optuna's sampler with a seed; None: points come from `listed`.

        It is made anew for every point, with a seed of the point's own, so that it must keep what
        it knows where Optuna's own samplers do: in the points.
        """

    def listed(self, levels: Mapping[str, Sequence[Any]]) -> Sequence[Mapping[str, Any]]:
        """Return all points, for a sampler that lists them: parameter -> one of its levels."""
        return ()

    def check(self, objectives: int) -> None:
        """Refuse more objectives than it can have.

        Raises
        ------
        ValueError
            Says what is valid.
        """
        if self.most_objectives is not None and objectives > self.most_objectives:
            raise ValueError(
                f"sampler.kind={self.kind} has one objective, got {objectives}; valid: "
                "study.sampler.kind=nsga2, tpe, random or grid, or one objective"
            )


SAMPLERS: Registry[Sampler] = Registry(
    "sampler",
    Sampler,  # type: ignore[type-abstract]
    tag="kind",
    home="repast_dist.studies.samplers",
)

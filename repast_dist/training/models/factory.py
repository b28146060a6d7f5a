"""``factory``: a PyTorch module that a function of the user's own returns."""

from dataclasses import field
from typing import Any, Literal

from repast_dist.ground.spec import spec
from repast_dist.ground.user_code import resolve_callable
from repast_dist.training.models.base import MODELS
from repast_dist.training.models.modules import ModuleModel

Argument = str | int | float | bool | None


@MODELS.register
@spec
class FactoryModel(ModuleModel):
    """A PyTorch module that a function of one's own returns; ``model.factory=my_lab:make_model``.

    Its products run on the arrays as `docs/pytorch.md` says, all else in float64. Its first weights
    are those that the function gives it; what it draws depends on the seed.

    Attributes
    ----------
    source : {"factory"}
        A function makes it.
    factory : str
        The function or class, ``module:function`` or ``folder/my_lab.py:function``. The module is
        called with (N, ...) inputs.
    arguments : dict
        Arguments of the function by name.
    """

    source: Literal["factory"] = "factory"
    factory: str
    arguments: dict[str, Argument] = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash(repr(self))

    @property
    def origin(self) -> tuple[str, str]:
        """The function."""
        return "model.factory", self.factory

    @property
    def code(self) -> tuple[str, ...]:
        """The functions and the mapping that it names."""
        return (self.factory, *super().code)

    def make(self) -> Any:
        """Return what the function returns."""
        return resolve_callable(self.factory, "model.factory")(**self.arguments)

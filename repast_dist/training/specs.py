"""Settings of the length and of the arithmetic of a training run."""

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt

from repast_dist.ground.numbers import PositiveInt
from repast_dist.ground.spec import spec

Fraction = Annotated[float, Ge(0), Lt(1)]


@spec
class TrainSpec:
    """The length of a training run and the sizes of its batches.

    Attributes
    ----------
    epochs : int
        Passes over the training set.
    batch_size : int
        Samples per step.
    micro_batch_size : int
        Samples that a chip processes together. It does not depend on the number of chips, so
        that sums do not either.
    max_steps : int or None
        Stop after this many steps; None trains all epochs.
    target_accuracy : float or None
        Training ends after the first test whose accuracy reaches this; None: no target.
    test_every : int
        Epochs from one test to the next; what is trained last is always tested.
    """

    epochs: PositiveInt = 6
    batch_size: PositiveInt = 128
    micro_batch_size: PositiveInt = 16
    max_steps: PositiveInt | None = None
    target_accuracy: Annotated[float, Gt(0), Le(1)] | None = None
    test_every: PositiveInt = 1

    def __post_init__(self) -> None:
        if self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"batch_size={self.batch_size} is no multiple of "
                f"micro_batch_size={self.micro_batch_size}"
            )

    @property
    def micro_batches(self) -> int:
        """The number of micro-batches per step."""
        return self.batch_size // self.micro_batch_size


Arithmetic = Literal["float64", "fixed", "analog"]


@spec
class EngineSpec:
    """The arithmetic of every kind of product.

    Attributes
    ----------
    forward, backward : {"float64", "fixed", "analog"}
        Layer products with the weights and with their transpose.
    gradient : {"float64", "fixed", "analog"}
        Weight gradients: activations by errors.
    factor : {"float64", "fixed", "analog"}
        Kronecker factors: activations by activations, errors by errors.
    inverse : {"float64", "fixed", "analog"}
        Solves with the damped SOI blocks. ``fixed`` rounds the damped block and its inverse.
    fixed_bits : int
        Bits, sign included, of each operand of a ``fixed`` product, on a scale of its own
        largest magnitude; sums are exact.
    fixed_inverse_bits : int
        Bits of the damped block and of its inverse in a ``fixed`` solve.
    """

    forward: Arithmetic = "analog"
    backward: Arithmetic = "analog"
    gradient: Arithmetic = "analog"
    factor: Arithmetic = "analog"
    inverse: Arithmetic = "analog"
    fixed_bits: Annotated[int, Ge(2), Le(24)] = 16
    fixed_inverse_bits: Annotated[int, Ge(2), Le(32)] = 16

    def uses_analog(self) -> bool:
        """Return whether any operation runs on crossbars."""
        return "analog" in (self.forward, self.backward, self.gradient, self.factor, self.inverse)

"""Settings of the method and the arithmetic of a training run."""

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt

from repast_dist.ground.spec import spec

Fraction = Annotated[float, Ge(0), Lt(1)]


@spec
class OptimizerSpec:
    """How weights are updated.

    Attributes
    ----------
    method : {"kfac", "sgd", "adam"}
        K-FAC; gradient descent with momentum; Adam.
    learning_rate : float
        Of the first step after the warm-up.
    schedule : {"constant", "linear", "cosine"}
        Course of the learning rate down to ``final_rate`` times its value.
    final_rate : float
        Share of the learning rate that is left at the last step.
    warmup_steps : int
        Steps over which the rate rises linearly.
    momentum : float
        Heavy-ball momentum of K-FAC and SGD.
    weight_decay : float
        Added to the (preconditioned) direction as ``weight_decay * w``; biases are left out.
    adam_beta1, adam_beta2, adam_epsilon : float
        Adam (Kingma and Ba 2015).
    damping : float
        K-FAC's lambda.
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

    method: Literal["kfac", "sgd", "adam"] = "kfac"
    learning_rate: Annotated[float, Gt(0)] = 0.1
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    final_rate: Annotated[float, Ge(0), Le(1)] = 0.0
    warmup_steps: Annotated[int, Ge(0)] = 0
    momentum: Fraction = 0.9
    weight_decay: Annotated[float, Ge(0)] = 0.0
    adam_beta1: Fraction = 0.9
    adam_beta2: Fraction = 0.999
    adam_epsilon: Annotated[float, Gt(0)] = 1e-8
    damping: Annotated[float, Gt(0)] = 0.1
    damping_form: Literal["plain", "pi"] = "pi"
    fisher: Literal["sampled", "exact", "empirical"] = "sampled"
    factor_decay: Fraction = 0.95
    kl_clip: Annotated[float, Gt(0)] | None = 0.01


Arithmetic = Literal["float64", "fixed", "analog"]


@spec
class EngineSpec:
    """Which arithmetic does which product.

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
        """Whether any operation runs on crossbars."""
        return "analog" in (self.forward, self.backward, self.gradient, self.factor, self.inverse)

"""The kinds of layers of a workload, declared once: what each of them makes the hardware do."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class LayerKind:
    """What a kind of layer makes the hardware do; without any mark it runs in the digital units.

    Attributes
    ----------
    name : str
        Its name in tables.
    has_weights : bool
        Its weights lie in crossbars.
    has_factors : bool
        Its gradient has Kronecker factors, so a second-order method can treat it.
    operand_written : bool
        Its matrix is made of activations and is written anew for every sample.
    normalizes : bool
        It is a normalisation, which gets a first-order update.
    """

    name: str
    has_weights: bool = False
    has_factors: bool = False
    operand_written: bool = False
    normalizes: bool = False


DENSE = LayerKind("dense", has_weights=True, has_factors=True)
CONV = LayerKind("conv", has_weights=True, has_factors=True)
DEPTHWISE_CONV = LayerKind("depthwise_conv", has_weights=True)
GROUPED_CONV = LayerKind("grouped_conv", has_weights=True)
"""Convolutions side by side, each of several channels."""

MATMUL = LayerKind("matmul", operand_written=True)
"""The product of two activations, as in attention: it has no weights."""

EMBEDDING = LayerKind("embedding")
"""A table look-up: parameters without multiplications."""

NORMALIZATION = LayerKind("normalization", normalizes=True)
ELEMENTWISE = LayerKind("elementwise")

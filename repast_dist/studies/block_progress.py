"""How much of the progress of a step with whole factors one makes whose factors are cut.

A step along d whose predicted KL divergence is bounded, as ``optimizer.kl_clip`` does (Ba, Grosse
and Martens 2017, section 5), is as long as ``1 / sqrt(<d, F d>)`` allows, and lowers the loss by
its length times ``<g, d>``, to first order, g the gradient and F the damped Fisher matrix. Of all
directions ``F^-1 g`` lowers it most, by ``sqrt(<g, F^-1 g>)``; the share of that which a direction
by inverted blocks reaches is its *progress*. F is the product of both factors of every layer.
"""

import functools
from collections.abc import Mapping

import numpy as np

from repast_dist.ground.numbers import ceil_div
from repast_dist.planning.blocks import even_ranges
from repast_dist.studies.factors import Factor
from repast_dist.training.optimizers import SecondOrder, Side

Layers = Mapping[str, Mapping[Side, Factor]]
"""Layer -> side -> factor."""
Widths = Mapping[tuple[str, Side], int]
"""Layer and side -> widest block; factors that are not named are whole."""


class Progress:
    """The progress of steps whose factors are cut, of that with whole ones.

    Parameters
    ----------
    layers : mapping
        Layer -> side -> factor with the last gradient; a side that the optimizer does not have is
        the identity.
    optimizer : SecondOrder
        Damps the factors.
    """

    def __init__(self, layers: Layers, optimizer: SecondOrder) -> None:
        self._layers = layers
        self._damped = {
            (layer, side): factor.matrix + factor.damping(optimizer) * np.eye(len(factor.matrix))
            for layer, sides in layers.items()
            for side, factor in sides.items()
        }
        self._inverse = functools.cache(self._inverse_of_blocks)
        self._terms = functools.cache(self._terms_of)

    def of(self, widths: Widths) -> float:
        """Return the progress with such blocks, in (0, 1]."""
        along = curved = best = 0.0
        for layer, sides in self._layers.items():
            whole = [(side, self.rows(layer, side)) for side in sides]
            cut = [(side, widths.get((layer, side), rows)) for side, rows in whole]
            along_layer, curved_layer = self._terms(layer, tuple(cut))
            along, curved = along + along_layer, curved + curved_layer
            best += self._terms(layer, tuple(whole))[0]
        return along / float(np.sqrt(curved * best))

    def rows(self, layer: str, side: Side) -> int:
        """Return the rows of a factor."""
        return len(self._damped[layer, side])

    def _terms_of(self, layer: str, cut: tuple[tuple[Side, int], ...]) -> tuple[float, float]:
        """Return ``<g, d>`` and ``<d, F d>`` of a layer with such widths of its sides."""
        some = next(iter(self._layers[layer].values()))
        gradient = some.gradient if some.kind == "A" else some.gradient.T
        direction = gradient
        for side, width in cut:
            direction = _times(self._inverse(layer, side, width), direction, side)
        image = direction
        for side, _ in cut:
            image = _times(self._damped[layer, side], image, side)
        return float(np.vdot(gradient, direction)), float(np.vdot(direction, image))

    def _inverse_of_blocks(self, layer: str, side: Side, width: int) -> np.ndarray:
        """Return the inverses of the diagonal blocks, (n, n), cut as training cuts them."""
        matrix = self._damped[layer, side]
        inverse = np.zeros_like(matrix)
        for start, stop in even_ranges(len(matrix), ceil_div(len(matrix), width)):
            inverse[start:stop, start:stop] = np.linalg.inv(matrix[start:stop, start:stop])
        return inverse


def _times(matrix: np.ndarray, gradient: np.ndarray, side: Side) -> np.ndarray:
    product: np.ndarray = matrix @ gradient if side == "A" else gradient @ matrix
    return product

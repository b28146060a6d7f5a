"""How noisy the mean gradients of layers are, and the residual that this leaves to a solve.

A batch of M micro-batches has mean gradient g, the mean of theirs, g_k. If G is what g is without
noise, and N the expected square of what noise adds to it,

    E |g|^2 = |G|^2 + N,        mean over k of E |g_k|^2 = |G|^2 + M N

(McCandlish et al. 2018, "An Empirical Model of Large-Batch Training", appendix A), so that the
difference of both, over M - 1, tells N. Both squares are averaged over steps.

A solve of ``A x = b`` that leaves a residual r is an exact one for b - r (Rigal and Gaches 1967):
to training it is as if the gradient were off by r. Where |r| is at most a share s of the noise, it
adds at most s^2 to the square of it, as a batch would that is smaller by that share. Damping, and
what the inverse makes of an error, change noise and residual alike.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

FEWEST_BITS = 2
"""Of a target: with fewer, more than half of a right-hand side may be left."""


class GradientNoise:
    """The running averages of squared gradients of layers, and the bits that solves need.

    Parameters
    ----------
    layers : sequence of str
        The layers.
    micro_batches, micro_batch_size : int
        Micro-batches of a batch, at least 2, and samples in each.
    share : float
        Largest residual of a solve, as a share of the noise of its layer's gradient.
    decay : float
        Weight of the old averages in later steps; the first steps count alike.
    """

    def __init__(
        self,
        layers: Sequence[str],
        micro_batches: int,
        micro_batch_size: int,
        share: float,
        decay: float,
    ) -> None:
        self.layers = tuple(layers)
        self._micro_batches, self._size = micro_batches, micro_batch_size
        self._share, self._decay = share, decay
        self._averages, self._steps = np.zeros((len(self.layers), 2)), 0

    def squares(self, sums: Mapping[str, np.ndarray], layers: Sequence[str]) -> np.ndarray:
        """Return the squared norms of gradients of a micro-batch, (layers,), summed over samples.

        Parameters
        ----------
        sums : mapping
            Layer -> sum of the gradients of the samples' losses.
        layers : sequence of str
            The layers that are asked for.
        """
        return np.array([np.vdot(sums[layer], sums[layer]) for layer in layers], np.float64)

    def add(self, parts: Mapping[str, float], wholes: Mapping[str, float]) -> None:
        """Add a batch to the averages.

        Parameters
        ----------
        parts : mapping
            Layer -> sum of `squares` over the micro-batches, over the samples of the batch.
        wholes : mapping
            Layer -> squared norm of the batch's mean gradient.
        """
        self._steps += 1
        past = min(1.0 - 1.0 / self._steps, self._decay)
        fresh = [[parts[layer] / self._size, wholes[layer]] for layer in self.layers]
        self._averages = past * self._averages + (1.0 - past) * np.array(fresh)

    def relative(self) -> dict[str, float]:
        """Return layer -> norm of the noise over that of the mean gradient, at most 1; 0 where none
        was found yet.
        """
        found = {}
        for layer, (part, whole) in zip(self.layers, self._averages.tolist(), strict=True):
            noise = max(0.0, part - whole) / (self._micro_batches - 1)
            found[layer] = math.sqrt(min(1.0, noise / whole)) if whole > 0 else 0.0
        return found

    def bits(self, most: int) -> dict[str, int]:
        """Return layer -> bits of the residual that its solves need, from 2 to so many."""
        return {
            layer: most if noise == 0.0 else self._bits(noise, most)
            for layer, noise in self.relative().items()
        }

    def _bits(self, noise: float, most: int) -> int:
        wanted = math.ceil(-math.log2(self._share * noise))
        return min(most, max(FEWEST_BITS, wanted))

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the averages as arrays, for a checkpoint."""
        return {"squares": self._averages, "steps": np.array(self._steps)}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Load what `arrays` returned; without any, begin anew."""
        none = np.zeros((len(self.layers), 2))
        self._averages = np.array(arrays.get("squares", none), np.float64)
        self._steps = int(arrays.get("steps", 0))

"""The formulas of K-FAC as functions of arrays, for one process or many chips.

The Fisher block of a layer with weights W (in[+1], out) is approximated by A (x) G, and its
natural gradient is ``A^-1 dW G^-1``: solves with A act on rows, solves with G on columns.

**Normalisation.** With N samples, S positions per sample, a the layer's input with the
homogeneous coordinate 1 where there is a bias, and g the derivative of one sample's loss
(not of the batch mean) by the layer's output:

=======  ==========================================  ========================================
sharing  A                                           G
=======  ==========================================  ========================================
expand   1 / (N S) sum over n, s of a a^T            1 / N sum over n, s of g g^T
reduce   1 / N sum over n of mean_s(a) mean_s(a)^T   1 / N sum over n of sum_s(g) sum_s(g)^T
=======  ==========================================  ========================================

For dense layers (S = 1) this is the standard one (Martens and Grosse 2015). For convolutions
A (x) G equals that of KFC (Grosse and Martens 2016), ASDL and MPD-KFAC, and the scale is split
between the factors as in ASDL. Plain damping values do not transfer between codes that split or
scale otherwise; `convention_scales` tells the conversion.
"""

from collections.abc import Mapping

import numpy as np


def average_decay(update: int, limit: float) -> float:
    """Return the weight of the old average in an update: ``min(1 - 1 / update, limit)``.

    The first update takes the fresh factor as it is, the next ones the mean of all so far, until
    the limit makes it an exponential average (Martens and Grosse 2015, section 5).
    """
    return min(1.0 - 1.0 / update, limit)


def damping_split(
    form: str, damping: float, trace_a: float, size_a: int, trace_g: float, size_g: int
) -> tuple[float, float]:
    """Return the damping that is added to the diagonals of A and of G.

    Parameters
    ----------
    form : {"plain", "pi"}
        As in `Kfac.damping_form`.
    damping : float
        lambda.
    trace_a, trace_g : float
        Traces of the full, undamped factors, not of single blocks.
    size_a, size_g : int
        Widths of the full factors.

    Notes
    -----
    ``pi`` is 1 where a trace is not positive: a layer without activity has no scale to balance.
    """
    if form == "plain":
        return damping, damping
    ratio = 1.0
    if trace_a > 0 and trace_g > 0:
        ratio = float(np.sqrt((trace_a / size_a) / (trace_g / size_g)))
    root = float(np.sqrt(damping))
    return ratio * root, root / ratio


def damped_block(factor: np.ndarray, start: int, stop: int, damping: float) -> np.ndarray:
    """Return a damped copy of the rows and columns ``start:stop`` of a factor."""
    block = np.array(factor[start:stop, start:stop], np.float64)
    block[np.diag_indices_from(block)] += damping
    return block


def kl_clip_scale(
    gradients: Mapping[str, np.ndarray],
    directions: Mapping[str, np.ndarray],
    learning_rate: float,
    kl_clip: float | None,
) -> float:
    """Return the factor that scales the preconditioned gradients.

    ``min(1, sqrt(kl_clip / (rate^2 * sum <gradient, direction>)))``: the sum approximates the
    squared Fisher norm of the direction (Osawa et al. 2019; kfac-pytorch).

    Parameters
    ----------
    gradients, directions : mapping
        Layer -> gradient of the mean loss and its preconditioned form; only layers that are
        preconditioned.
    learning_rate : float
        Learning rate of this step.
    kl_clip : float or None
        Bound on the KL divergence; None returns 1.
    """
    if kl_clip is None:
        return 1.0
    product = sum(float(np.vdot(gradients[name], directions[name])) for name in directions)
    predicted = learning_rate**2 * abs(product)
    return min(1.0, float(np.sqrt(kl_clip / predicted))) if predicted > 0 else 1.0


def convention_scales(convention: str, samples: int, positions: int) -> tuple[float, float]:
    """Return (a, g) such that another code's factors are ``a * A`` and ``g * G`` (expand).

    Parameters
    ----------
    convention : {"kfc", "asdl", "curvlinops", "mpd", "kfac-jax", "kfac-pytorch"}
        KFC (Grosse and Martens 2016); asdfghjkl 0.1; curvlinops 3; lzhangbv/kfac_pytorch
        (MPD-KFAC); kfac-jax 0.0.8, whose blocks carry a factor S of their own beside A and G;
        gpauloski/kfac-pytorch 0.4.
    samples, positions : int
        N of the batch and S of the layer. The codes derive G from the gradient of the *mean* loss.

    Raises
    ------
    ValueError
        Unknown convention.

    Notes
    -----
    Damping lambda on our A is damping ``a * lambda`` on theirs, and likewise for G. Under ``pi``
    only ``a * g`` matters: 1 for KFC, ASDL, curvlinops and MPD (and for kfac-jax with its factor
    S), so there lambda transfers as it is.
    """
    n, s = float(samples), float(positions)
    scales = {
        "kfc": (s, 1.0 / s),
        "asdl": (1.0, 1.0),
        "curvlinops": (1.0, 1.0),
        "mpd": (1.0 / s, s),
        "kfac-jax": (1.0, 1.0 / s),
        "kfac-pytorch": (1.0 / s**2, 1.0 / (n**2 * s**3)),
    }
    if convention not in scales:
        raise ValueError(f"convention={convention!r}; valid: {', '.join(scales)}")
    return scales[convention]

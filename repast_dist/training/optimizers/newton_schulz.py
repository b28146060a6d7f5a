"""The Newton-Schulz iteration towards the orthogonal factor of a matrix, of products alone.

For X = U S V' it brings the singular values close to one and leaves U and V alone: with A = X X',
X <- a X + (b A + c A A) X, begun with X over its Frobenius norm (Jordan et al. 2024, "Muon: An
optimizer for hidden layers in neural networks", https://kellerjordan.github.io/posts/muon/).
"""

from repast_dist.training.optimizers.matrix_unit import MatrixUnit

Coefficients = tuple[float, float, float]

PUBLISHED: Coefficients = (3.4445, -4.7750, 2.0315)
"""a, b, c of Jordan et al., with which singular values end between 0.7 and 1.2 in five rounds."""

_LEAST_NORM = 1e-7
"""What the norm counts as at least; as in `torch.optim.Muon`."""


def orthogonal_factor[M](
    unit: MatrixUnit[M], matrix: M, iterations: int, coefficients: Coefficients
) -> M:
    """Return about U V' of a matrix U S V', in its shape.

    Arrays hold X' and A, both written in every iteration; A multiplies X' twice, so that
    b A + c A A need not be written as well. The digital unit, which writes no cells, forms that
    matrix as published: for long matrices it takes fewer multiplications.
    """
    a, b, c = coefficients
    rows, columns = unit.shape(matrix)
    tall = rows > columns
    x = unit.transposed(matrix) if tall else matrix
    x = unit.combine((1.0 / max(unit.norm(x), _LEAST_NORM), x))
    for number in range(iterations):
        across = unit.transposed(x)
        gram = unit.product(x, across, f"x{number}")
        held = unit.hold(gram, f"gram{number}")
        if unit.where == "arrays":
            once = held.multiply(across)
            twice = held.multiply(once)
            x = unit.transposed(unit.combine((a, across), (b, once), (c, twice)))
        else:
            polynomial = unit.combine((b, gram), (c, held.multiply(gram)))
            x = unit.combine((a, x), (1.0, unit.product(polynomial, x, f"p{number}")))
    return unit.transposed(x) if tall else x

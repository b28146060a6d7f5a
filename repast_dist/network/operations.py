"""Digital operations that layers cost, per element and sample.

A digital unit adds, multiplies, compares or looks a value up in a table in one operation; a
function of one variable (rectifier, sigmoid, GELU) is one look-up, as in ISAAC's sigmoid units
(Shafiee et al. 2016). Trained networks, tables of published ones and ONNX files all count by
these figures, once for the forward and once for the backward pass.

A function of one variable, and the softmax of a product, run where the unit has the results at
hand: they are counted in the row of what they follow. Pooling, additions and normalisations are
rows of their own, whose results pass through the buffer. A multiplication by one constant changes
the scale that numbers have anyway, and costs nothing.
"""

FUNCTION = 1
"""Per output element: one look-up or comparison."""

ADDITION = 1
"""Per output element of a sum of two."""

POOL = 1
"""Per element that is compared or added up."""

NORMALIZATION = 5
"""Per element: sum, sum of squares, subtraction of the mean, scale, shift."""

SOFTMAX = 3
"""Per element: exponential, sum, division."""

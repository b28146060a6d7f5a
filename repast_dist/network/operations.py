"""Digital operations that layers cost, per element and sample.

A digital unit adds, multiplies, compares or looks a value up in a table in one operation; a
function of one variable (rectifier, sigmoid, GELU) is one look-up, as in ISAAC's sigmoid units
(Shafiee et al. 2016). Trained networks, tables of published ones and ONNX files all count by
these figures, once for the forward and once for the backward pass.
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

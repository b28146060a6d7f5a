"""Products on the simulated arrays as functions that PyTorch differentiates.

Weights take part in a product through a token: one number that stands for them in the graph. When
every use of a matrix in a micro-batch has had its errors, the token's own backward forms the
gradient, in one product, as crossbars do: the inputs of all uses are the matrix, the errors of all
outputs drive it. A backward pass that ends at the tokens finds errors without forming gradients.
"""

import functools
from typing import Any

import numpy as np
import torch

from repast_dist.ground.errors import DataError
from repast_dist.network.node import Product, Role
from repast_dist.torch.matrices import Matrix, to_float64
from repast_dist.torch.simulation import (
    LOSS,
    Event,
    MicroBatch,
    Simulation,
    Uses,
    operand_products,
    product_call,
)


def multiply(simulation: Simulation, matrix: Matrix, rows: torch.Tensor) -> torch.Tensor:
    """Return ``rows @ weights + bias`` as the arrays compute it.

    Parameters
    ----------
    simulation : Simulation
        The arrays.
    matrix : Matrix
        The weights (in, out).
    rows : Tensor
        (R, in), any float dtype, samples first.

    Returns
    -------
    Tensor
        (R, out) in the dtype of `rows`.
    """
    micro_batch = simulation.running
    uses = micro_batch.uses.get(matrix.name)
    if uses is None:
        uses = micro_batch.uses[matrix.name] = Uses(matrix)
        micro_batch.events.append(Event(matrix.name, "matrix"))
        # Other uses may be differentiated where the first one is not.
        with torch.set_grad_enabled(micro_batch.differentiable):
            token = _Gradient.apply(matrix.weights, matrix.biases, micro_batch, uses)
        micro_batch.tokens[matrix.name] = token
    token, use = micro_batch.tokens[matrix.name], uses.next(rows)
    product: torch.Tensor = _WeightProduct.apply(rows, token, micro_batch, uses, use)
    return product


def multiply_operands(
    simulation: Simulation, name: str, left: torch.Tensor, right: torch.Tensor
) -> torch.Tensor:
    """Return ``left @ right`` of two activations; `right` is written to the arrays.

    Parameters
    ----------
    simulation : Simulation
        The arrays.
    name : str
        Name of the product in the network.
    left, right : Tensor
        (N, H, T, K) and (N, H, K, M): samples, heads, and one matrix each.
    """
    micro_batch = simulation.running
    use = micro_batch.operand_use(name)
    shape = (*left.shape, right.shape[-1])
    micro_batch.events.append(Event(name, "operands", tuple(map(int, shape))))
    product: torch.Tensor = _OperandProduct.apply(left, right, micro_batch, name, use)
    return product


def _like(values: np.ndarray, tensor: torch.Tensor) -> torch.Tensor:
    made: torch.Tensor = torch.from_numpy(np.ascontiguousarray(values))
    return made.to(device=tensor.device, dtype=tensor.dtype)


def _refuse_second() -> None:
    """Refuse to be differentiated again: what arrays compute is no function of PyTorch's."""
    if torch.is_grad_enabled():
        raise DataError(
            "second derivatives of products on arrays are not modelled (create_graph=True asks "
            "for them); valid: a loss without gradients of the network in it"
        )


class _Gradient(torch.autograd.Function):
    """Makes a matrix' token; its backward is the gradient of the weights and the bias."""

    @staticmethod
    def forward(
        ctx: Any,
        weights: torch.Tensor,
        bias: torch.Tensor | None,
        micro_batch: MicroBatch,
        uses: Uses,
    ) -> torch.Tensor:
        ctx.micro_batch, ctx.uses, ctx.like = micro_batch, uses, weights
        return weights.new_zeros(1)

    @staticmethod
    def backward(ctx: Any, token: torch.Tensor) -> Any:
        _refuse_second()
        micro_batch, uses = ctx.micro_batch, ctx.uses
        uses.check_inputs()
        engine, name = micro_batch.simulation.engine, uses.matrix.name
        errors = uses.take_errors(LOSS)
        loaded: dict[str, Product] = {}

        def load(role: Role) -> Product:
            """Load the inputs, once per arithmetic."""
            kind = engine.arithmetic(role)
            if kind not in loaded:
                address = micro_batch.address("activations", name)
                loaded[kind] = engine.load(role, uses.inputs(), address)
            return loaded[kind].serving(role)

        has_bias = uses.matrix.bias is not None
        if micro_batch.simulation.native("gradient"):
            parts = list(uses.rows.values())
            rows = parts[0] if len(parts) == 1 else torch.cat(parts)
            weights, bias = rows.t() @ errors, errors.sum(dim=0) if has_bias else None
            weights = weights.to(ctx.like.dtype)
        else:
            call = micro_batch.address("gradient", name)
            formed = load("gradient").multiply(to_float64(errors).T, call).T
            weights = _like(formed[: uses.matrix.inputs], ctx.like)
            bias = _like(formed[-1], ctx.like) if has_bias else None

        def gradient() -> np.ndarray:
            """Return it with the bias as the last row."""
            parts = [weights] if bias is None else [weights, bias[None]]
            return to_float64(torch.cat(parts))

        for watcher in micro_batch.simulation.watchers:
            watcher.differentiated(micro_batch, uses, errors, gradient, load)
        uses.forget_inputs()
        return weights, bias, None, None


class _WeightProduct(torch.autograd.Function):
    """Multiplies rows by weights; backward multiplies errors by their transpose."""

    @staticmethod
    def forward(
        ctx: Any,
        rows: torch.Tensor,
        token: torch.Tensor,
        micro_batch: MicroBatch,
        uses: Uses,
        use: int,
    ) -> torch.Tensor:
        simulation, matrix = micro_batch.simulation, uses.matrix
        ctx.micro_batch, ctx.uses, ctx.use = micro_batch, uses, use
        ctx.save_for_backward(token)
        uses.errors_pass = uses.errors_pass or ctx.needs_input_grad[0]
        if simulation.native("forward"):
            bias = matrix.biases
            y = rows @ matrix.weights.to(rows.dtype)
            return y if bias is None else y + bias.to(rows.dtype)
        call = product_call(micro_batch, "forward", matrix.name, use)
        y = simulation.weights("forward", matrix.name).multiply(to_float64(rows), call)
        if matrix.bias is not None:
            y = y + to_float64(matrix.biases)
        return _like(y, rows)

    @staticmethod
    def backward(ctx: Any, error: torch.Tensor) -> Any:
        _refuse_second()
        micro_batch, uses = ctx.micro_batch, ctx.uses
        simulation, name = micro_batch.simulation, uses.matrix.name
        uses.errors.setdefault(simulation.backward, {})[ctx.use] = error
        (token,) = ctx.saved_tensors
        for_token = token.new_zeros(1) if ctx.needs_input_grad[1] else None
        if not ctx.needs_input_grad[0]:
            return None, for_token, None, None, None
        if simulation.native("backward"):
            weights = uses.matrix.weights.detach().to(error.dtype)
            return error @ weights.t(), for_token, None, None, None
        call = product_call(micro_batch, "backward", name, ctx.use)
        back = simulation.weights("backward", name).multiply(to_float64(error), call)
        return _like(back, error), for_token, None, None, None


class _OperandProduct(torch.autograd.Function):
    """Multiplies two activations; see `simulation.operand_products`."""

    @staticmethod
    def forward(
        ctx: Any,
        left: torch.Tensor,
        right: torch.Tensor,
        micro_batch: MicroBatch,
        name: str,
        use: int,
    ) -> torch.Tensor:
        ctx.save_for_backward(left, right)
        ctx.multiply = functools.partial(_multiply, micro_batch, name, use)
        return ctx.multiply("forward", left, right)

    @staticmethod
    def backward(ctx: Any, error: torch.Tensor) -> Any:
        _refuse_second()
        left, right = ctx.saved_tensors
        for_left = for_right = None
        if ctx.needs_input_grad[0]:
            for_left = ctx.multiply("backward", error, right.swapaxes(2, 3)).to(left.dtype)
        if ctx.needs_input_grad[1]:
            # The arrays hold what drove the product, errors drive them.
            back = ctx.multiply("gradient", error.swapaxes(2, 3), left)
            for_right = back.swapaxes(2, 3).to(right.dtype)
        return for_left, for_right, None, None, None


def _multiply(
    micro_batch: MicroBatch,
    name: str,
    use: int,
    role: Role,
    left: torch.Tensor,
    right: torch.Tensor,
) -> torch.Tensor:
    if micro_batch.simulation.native(role):
        return left @ right
    values = operand_products(micro_batch, role, name, use, to_float64(left), to_float64(right))
    return _like(values, left)

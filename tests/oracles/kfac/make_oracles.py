"""Run three independent K-FAC implementations on real digits and store what they compute.

Needs an environment of its own (Python 3.11), apart from the project's::

    pip install torch==2.13.0 asdfghjkl==0.1a5 curvlinops-for-pytorch==3.0.1 kfac-jax==0.0.8 \
        scikit-learn
    python make_oracles.py

Writes ``kfac_oracles.npz`` beside this script: names are ``case/what/...``; weights and gradients
are in PyTorch's layout (out, in, kernel rows, kernel columns).
"""

import contextlib
from pathlib import Path

import asdl
import curvlinops
import jax
import jax.numpy as jnp
import kfac_jax
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

jax.config.update("jax_enable_x64", True)
torch.set_default_dtype(torch.float64)
# asdfghjkl marks its work for the CUDA profiler, which builds without CUDA do not have.
torch.cuda.nvtx.range_push = torch.cuda.nvtx.range_pop = lambda *_: None

SAMPLES, DAMPING = 24, 0.03


def mlp(bias: bool) -> nn.Sequential:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 12, bias=bias), nn.Tanh(), nn.Linear(12, 10, bias=bias)
    )


def cnn(bias: bool) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=bias), nn.Tanh(), nn.AvgPool2d(2),
        nn.Conv2d(4, 5, 3, bias=bias), nn.Tanh(), nn.Flatten(), nn.Linear(20, 10, bias=bias),
    )  # fmt: skip


class Tokens(nn.Module):
    """Two weight-sharing dense layers over 16 patches of 2x2 pixels, mean pooling, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.hidden, self.head = nn.Linear(4, 6), nn.Linear(6, 7), nn.Linear(7, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        patches = x.reshape(-1, 4, 2, 4, 2).permute(0, 1, 3, 2, 4).reshape(-1, 16, 4)
        hidden = torch.tanh(self.hidden(torch.tanh(self.embed(patches))))
        return self.head(hidden.mean(dim=1))


def weighted(model: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(n, m) for n, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))]


def data() -> tuple[torch.Tensor, torch.Tensor]:
    digits = load_digits()
    images = torch.tensor(digits.images[:SAMPLES, None] / 16.0)
    return images, torch.tensor(digits.target[:SAMPLES])


def store_case(out: dict, case: str, model: nn.Module) -> None:
    x, y = data()
    loss = nn.functional.cross_entropy(model(x), y)
    grads = torch.autograd.grad(loss, list(model.parameters()))
    out[f"{case}/inputs"], out[f"{case}/labels"] = x.numpy(), y.numpy()
    out[f"{case}/loss"] = loss.item()
    by_id = {id(p): g for p, g in zip(model.parameters(), grads, strict=True)}
    for index, (_, module) in enumerate(weighted(model)):
        for kind, parameter in module.named_parameters():
            out[f"{case}/{kind}/{index}"] = parameter.detach().numpy().copy()
            out[f"{case}/gradient_{kind}/{index}"] = by_id[id(parameter)].numpy()


def run_curvlinops(out: dict, case: str, model: nn.Module, fisher: str, approx: str) -> None:
    """A and G with the bias joined, and preconditioned gradients of plain and pi damping."""
    params = list(model.parameters())
    loss = nn.CrossEntropyLoss()
    x, y = data()
    kind = {"exact": "type-2", "empirical": "empirical"}[fisher]
    kfac = curvlinops.KFACLinearOperator(
        model, loss, params, [(x, y)], fisher_type=kind, kfac_approx=approx,
        separate_weight_and_bias=False, check_deterministic=False,
    )  # fmt: skip
    gradient = torch.autograd.grad(loss(model(x), y), params)
    kfac @ [g.clone() for g in gradient]
    prefix = f"{case}/curvlinops_{fisher}_{approx}"
    for index, (name, _) in enumerate(weighted(model)):
        out[f"{prefix}/A/{index}"] = kfac._input_covariances[name].numpy().copy()
        out[f"{prefix}/G/{index}"] = kfac._gradient_covariances[name].numpy().copy()
    by_id = {id(p): position for position, p in enumerate(params)}
    for form, settings in {
        "plain": {"damping": (DAMPING, DAMPING)},
        "pi": {"damping": DAMPING, "use_heuristic_damping": True, "min_damping": 0.0},
    }.items():
        inverse = curvlinops.KFACInverseLinearOperator(kfac, **settings)
        result = inverse @ [g.clone() for g in gradient]
        for index, (_, module) in enumerate(weighted(model)):
            for kind_, parameter in module.named_parameters():
                value = result[by_id[id(parameter)]].detach().numpy()
                out[f"{prefix}/{form}_{kind_}/{index}"] = value


def run_asdl(out: dict, case: str, model: nn.Module, fisher: str) -> None:
    """A, G and pi-damped preconditioned gradients; without biases, which ASDL treats apart."""
    x, y = data()
    config = asdl.PreconditioningConfig(data_size=SAMPLES, damping=DAMPING, ema_decay=1.0)
    kind = {"exact": asdl.FISHER_EXACT, "empirical": asdl.FISHER_EMP}[fisher]
    maker = asdl.KfacGradientMaker(model, config, fisher_type=kind)
    model.zero_grad()
    dummy = maker.setup_model_call(model, x)
    maker.setup_loss_call(nn.functional.cross_entropy, dummy, y)
    maker.forward_and_backward()
    prefix = f"{case}/asdl_{fisher}"
    for index, (_, module) in enumerate(weighted(model)):
        kron = module.fisher.kron
        out[f"{prefix}/A/{index}"] = kron.A.detach().numpy().copy()
        out[f"{prefix}/G/{index}"] = kron.B.detach().numpy().copy()
        out[f"{prefix}/pi_weight/{index}"] = module.weight.grad.numpy().copy()


def run_kfac_jax(out: dict, case: str, model: nn.Module, fisher: str) -> None:
    """Factors and pi-damped preconditioned gradients of the same network written in JAX."""
    x, y = (jnp.asarray(t.numpy()) for t in data())
    params = []
    for _, module in weighted(model):
        weight, bias = module.weight.detach().numpy(), module.bias.detach().numpy()
        if weight.ndim == 4:
            params.append((jnp.asarray(weight.transpose(2, 3, 1, 0)), jnp.asarray(bias)))
        else:
            params.append((jnp.asarray(weight.T), jnp.asarray(bias)))

    def dense(p: tuple, h: jax.Array) -> jax.Array:
        return h @ p[0] + p[1]

    def conv(p: tuple, h: jax.Array, padding: str) -> jax.Array:
        y = jax.lax.conv_general_dilated(
            h, p[0], (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return y + p[1][None, None, None]

    def logits(p: list, x: jax.Array) -> jax.Array:
        if case.startswith("mlp"):
            return dense(p[1], jnp.tanh(dense(p[0], x.reshape(len(x), -1))))
        h = jnp.tanh(conv(p[0], x.transpose(0, 2, 3, 1), "SAME"))
        h = h.reshape(len(x), 4, 2, 4, 2, 4).mean(axis=(2, 4))
        h = jnp.tanh(conv(p[1], h, "VALID"))
        # PyTorch flattens channels first.
        return dense(p[2], h.transpose(0, 3, 1, 2).reshape(len(x), -1))

    def loss(p: list, batch: tuple) -> jax.Array:
        z = logits(p, batch[0])
        kfac_jax.register_softmax_cross_entropy_loss(z, targets=batch[1])
        return -jnp.mean(jax.nn.log_softmax(z)[jnp.arange(len(z)), batch[1]])

    kfac_jax.set_default_eigen_decomposition_threshold(10**9)
    mode = {"exact": "fisher_exact", "empirical": "fisher_empirical"}[fisher]
    estimator = kfac_jax.BlockDiagonalCurvature(loss, params_index=0)
    rng = jax.random.PRNGKey(0)
    state = estimator.init(
        rng, (params, (x, y)), exact_powers_to_cache=None, approx_powers_to_cache=-1,
        cache_eigenvalues=False,
    )  # fmt: skip
    state = estimator.update_curvature_matrix_estimate(
        state, 0.0, 1.0, 1.0, SAMPLES, rng, (params, (x, y)), estimation_mode=mode
    )
    state = estimator.update_cache(
        state,
        identity_weight=DAMPING,
        exact_powers=None,
        approx_powers=-1,
        eigenvalues=False,
        pmap_axis_name=None,
    )
    gradient = jax.grad(loss)(params, (x, y))
    result = estimator.multiply_inverse(
        state,
        gradient,
        identity_weight=DAMPING,
        exact_power=False,
        use_cached=True,
        pmap_axis_name=None,
    )
    prefix = f"{case}/kfac_jax_{fisher}"
    for index, block in enumerate(state.blocks_states):
        for number, factor in enumerate(block.factors):
            out[f"{prefix}/factor_{number}/{index}"] = np.asarray(factor.value)
        weight, bias = (np.asarray(part) for part in result[index])
        order = (3, 2, 0, 1) if weight.ndim == 4 else (1, 0)
        out[f"{prefix}/pi_weight/{index}"] = weight.transpose(order)
        out[f"{prefix}/pi_bias/{index}"] = bias


def main() -> None:
    out: dict[str, np.ndarray] = {"damping": np.array(DAMPING)}
    for case, build in {"mlp": mlp, "cnn": cnn}.items():
        torch.manual_seed(0)
        model = build(bias=True)
        store_case(out, case, model)
        for fisher in ("exact", "empirical"):
            run_curvlinops(out, case, model, fisher, "expand")
            run_kfac_jax(out, case, model, fisher)
        torch.manual_seed(0)
        bare = build(bias=False)
        store_case(out, f"{case}_nobias", bare)
        for fisher in ("exact", "empirical"):
            run_asdl(out, f"{case}_nobias", bare, fisher)
    torch.manual_seed(0)
    tokens = Tokens()
    store_case(out, "tokens", tokens)
    for fisher in ("exact", "empirical"):
        for approx in ("expand", "reduce"):
            run_curvlinops(out, "tokens", tokens, fisher, approx)
    np.savez_compressed(Path(__file__).with_name("kfac_oracles.npz"), **out)
    print(len(out), "arrays")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()

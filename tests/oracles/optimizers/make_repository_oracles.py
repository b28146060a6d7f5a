"""Steps of published optimizers that no package has, in double precision, stored for
`tests/training/test_training_repositories.py`.

Run in an environment with PyTorch 2.14, with the files of github.com/zhehangdu/Newton-Muon at
df78af0, of github.com/hseung88/mac at f3a5e94 and of github.com/facebookresearch/optimizers at
f606606 in three folders::

    python make_repository_oracles.py repository_oracles.npz NEWTON_MUON MAC OPTIMIZERS
"""

import ast
import sys
from pathlib import Path

import numpy as np
import torch

RATE, STEPS = 0.03, 5


# Newton-Muon --------------------------------------------------------------------------------------

WIDTH, MICRO_BATCHES, VECTORS = 6, 2, 9

KINDS = {"o": (WIDTH, WIDTH), "c_fc": (4 * WIDTH, WIDTH), "c_proj": (WIDTH, 4 * WIDTH)}
"""Outputs and inputs of what the published code tells apart; it cuts the inputs of the last into
four blocks.
"""

CHANGED = {
    "t % 32 == 0": "t % 2 == 0",  # renewals within five steps
    "torch.float32": "torch.float64",
    ".bfloat16()": ".clone()",
    "@torch.compile\n": "",
}
# A product that overwrites its own operand is another one on processors.
CHANGED |= {
    f'torch.bmm(G, plan["inv_{kind}"], out=G)': f'G.copy_(torch.bmm(G, plan["inv_{kind}"]))'
    for kind in ("o", "fc")
}

LARGE = 1e5
"""Scale of gradients, beside which the 1e-7 that is added to norms is nothing."""


def newton_muon(folder):
    """Return the class, its products by PyTorch in place of Triton."""
    source = (Path(folder) / "train_gpt_newton_muon_1.py").read_text()
    for old, new in CHANGED.items():
        assert old in source, old
        source = source.replace(old, new)
    wanted = ("zeropower_via_newtonschulz5", "Muon")
    parts = [node for node in ast.parse(source).body if getattr(node, "name", None) in wanted]

    def gram(x, out):
        torch.matmul(x, x.mT, out=out)

    def polynomial(a, beta, alpha, out):
        torch.add(beta * a, a @ a, alpha=alpha, out=out)

    names = {"torch": torch, "Tensor": torch.Tensor, "XXT": gram, "ba_plus_cAA": polynomial}
    exec(compile(ast.Module(parts, []), "newton_muon", "exec"), names)
    return names["Muon"]


def newton_muon_steps(folder):
    made = newton_muon(folder)
    found = {}
    for number, (kind, (outputs, inputs)) in enumerate(KINDS.items()):
        random = np.random.default_rng(100 + number)
        start = random.standard_normal((outputs, inputs))
        gradients = LARGE * random.standard_normal((STEPS, outputs, inputs))
        scale = 1 + np.arange(inputs) % 5
        vectors = scale * random.standard_normal((STEPS, MICRO_BATCHES, VECTORS, inputs))
        weights = torch.nn.Parameter(torch.tensor(start))
        moment = (4, WIDTH, WIDTH) if kind == "c_proj" else (WIDTH, WIDTH)
        stats = {
            "accum": torch.zeros(moment),
            "count": torch.zeros(()),
        }
        weights._stats_ref = {"kind": kind, "d": WIDTH, **stats}
        optimizer = made([weights], lr=RATE)
        optimizer.attach_preconditioner()
        optimizer._regime_step = -1  # the first step renews
        for step in range(STEPS):
            optimizer.global_step = step
            if optimizer.precond_flag_for_step(step):
                for rows in torch.tensor(vectors[step]):
                    blocks = rows.reshape(VECTORS, -1, WIDTH).permute(1, 0, 2)
                    found_here = blocks.mT @ blocks / VECTORS
                    stats["accum"] += found_here if kind == "c_proj" else found_here[0]
                    stats["count"] += 1
            weights.grad = torch.tensor(gradients[step])
            optimizer.step()
        found |= {
            f"newton_muon/{kind}/start": start,
            f"newton_muon/{kind}/gradients": gradients,
            f"newton_muon/{kind}/vectors": vectors,
            f"newton_muon/{kind}/weights": weights.detach().numpy(),
        }
    return found


# FOOF ---------------------------------------------------------------------------------------------


def foof_steps(folder):
    """Steps of two layers, with and without a bias, that learn something together."""
    sys.path.insert(0, str(Path(folder) / "cifar10"))
    from optimizers.foof import FOOF

    torch.manual_seed(3)
    layers = [torch.nn.Linear(7, 5), torch.nn.Linear(5, 3, bias=False)]
    network = torch.nn.Sequential(layers[0], torch.nn.Tanh(), layers[1])
    optimizer = FOOF(
        network.parameters(), lr=RATE, momentum=0.8, stat_decay=0.9, damping=0.05, weight_decay=0.0,
        Tcov=1, Tinv=2,
    )  # fmt: skip
    optimizer.model = network
    inputs, targets = torch.randn(STEPS, 11, 7), torch.randn(STEPS, 11, 3)
    found = {}

    def with_bias(layer, weight, bias):
        parts = [weight.T] + ([] if layer.bias is None else [bias[None]])
        return torch.cat(parts).detach().numpy().copy()

    for number, layer in enumerate(layers):
        found[f"foof/{number}/start"] = with_bias(layer, layer.weight, layer.bias)
    for step in range(STEPS):
        with torch.no_grad():  # its hooks see no such call
            hidden = torch.tanh(layers[0](inputs[step]))
        network.zero_grad()
        torch.nn.functional.mse_loss(network(inputs[step]), targets[step]).backward()
        ones = torch.ones(11, 1)
        rows = (torch.cat([inputs[step], ones], 1), hidden)
        for number, layer in enumerate(layers):
            bias = None if layer.bias is None else layer.bias.grad
            gradient = with_bias(layer, layer.weight.grad, bias)
            found[f"foof/{number}/gradient{step}"] = gradient
            found[f"foof/{number}/rows{step}"] = rows[number].numpy().copy()
        optimizer.step()
    for number, layer in enumerate(layers):
        found[f"foof/{number}/weights"] = with_bias(layer, layer.weight, layer.bias)
    return found


# Shampoo ------------------------------------------------------------------------------------------

SHAPES = {"wide": (5, 9), "tall": (7, 4), "square": (6, 6)}
"""Outputs and inputs, as PyTorch stores weights."""

EXACT_RATE = 1 / 32
"""It is kept in single precision."""

SHAMPOO = {
    # Few rounds, whose roots are not exact.
    "rounds": {"betas": (0.8, 0.9), "weight_decay": 0.1, "epsilon": 0.02, "rounds": 7},
    "sums": {"betas": (0.9, 1.0), "weight_decay": 0.0, "epsilon": 0.5, "rounds": 30},
    "eigenvalues": {"betas": (0.0, 0.95), "weight_decay": 0.0, "epsilon": 0.01, "rounds": None},
    "grafted sgd": {
        "betas": (0.8, 0.9),
        "weight_decay": 0.1,
        "epsilon": 0.02,
        "rounds": None,
        "grafting": "sgd",
    },
    "grafted adam": {
        "betas": (0.8, 0.9),
        "weight_decay": 0.1,
        "epsilon": 0.02,
        "rounds": None,
        "grafting": "adam",
    },
}


def shampoo_steps(folder):
    sys.path.insert(0, str(folder))
    from distributed_shampoo import DistributedShampoo
    from distributed_shampoo.preconditioner.matrix_functions_types import (
        CoupledNewtonConfig,
        EigenConfig,
    )
    from distributed_shampoo.shampoo_types import (
        AdamPreconditionerConfig,
        RootInvShampooPreconditionerConfig,
        SGDPreconditionerConfig,
    )

    found = {}
    for number, (shape, size) in enumerate(SHAPES.items()):
        random = np.random.default_rng(200 + number)
        start, gradients = random.standard_normal(size), random.standard_normal((STEPS, *size))
        found |= {f"shampoo/{shape}/start": start, f"shampoo/{shape}/gradients": gradients}
        for kind, settings in SHAMPOO.items():
            options = dict(settings)
            rounds = options.pop("rounds")
            grafting = {
                None: None,
                "sgd": SGDPreconditionerConfig(),
                "adam": AdamPreconditionerConfig(beta2=0.95, epsilon=0.01),
            }[options.pop("grafting", None)]
            root = EigenConfig()
            if rounds:
                root = CoupledNewtonConfig(max_iterations=rounds, tolerance=0.0)
            weights = torch.nn.Parameter(torch.tensor(start))
            optimizer = DistributedShampoo(
                [weights],
                lr=EXACT_RATE,
                max_preconditioner_dim=max(size),  # wider ones have their sides merged
                **options,
                grafting_config=grafting,
                preconditioner_config=RootInvShampooPreconditionerConfig(
                    amortized_computation_config=root,
                    factor_matrix_dtype=torch.float64,
                    inv_factor_matrix_dtype=torch.float64,
                ),
            )
            for gradient in gradients:
                weights.grad = torch.tensor(gradient)
                optimizer.step()
            found[f"shampoo/{shape}/{kind}"] = weights.detach().numpy()
    return found


def main(path, newton_muon_folder, mac_folder, optimizers_folder):
    torch.set_default_dtype(torch.float64)
    found = newton_muon_steps(newton_muon_folder) | foof_steps(mac_folder)
    np.savez(path, **found, **shampoo_steps(optimizers_folder))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Writes a run directory like the one a training run leaves, without training anything."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from repast_dist.trace import PHASES, TraceWriter, read_trace, solve_batch, totals, trace_batch

OPS = (
    "vmm_forward",
    "vmm_backward",
    "weight_gradient",
    "factor_product",
    "inv_solve",
    "residual_vmm",
    "kl_clip",
    "weight_update",
    "write_weights",
    "write_factor",
    "reduce_gradients",
    "broadcast_weights",
)
LAYERS = (("conv1", 9, 8), ("conv2", 72, 16), ("fc1", 256, 64), ("fc2", 64, 10))
PLAN = {  # phase -> (op, seconds, joules)
    "forward": [("vmm_forward", 4e-6, 2e-7)],
    "backward": [("vmm_backward", 4e-6, 2e-7), ("weight_gradient", 3e-6, 3e-7)],
    "soi": [("factor_product", 6e-6, 5e-7)],
    "inversion": [("inv_solve", 5e-6, 1e-7), ("residual_vmm", 3e-6, 1.5e-7)],
    "precondition": [("kl_clip", 0.4e-6, 2e-9)],
    "update": [("weight_update", 0.6e-6, 4e-9)],
    "program": [("write_weights", 3e-6, 2e-6), ("write_factor", 5e-6, 3e-6)],
    "communicate": [("reduce_gradients", 2e-6, 4e-8), ("broadcast_weights", 2e-6, 4e-8)],
}
ORDER = ("forward", "backward", "soi", "communicate", "program", "inversion", "precondition",
         "update")  # fmt: skip


def blocks(n_chips: int) -> list[dict[str, Any]]:
    listed = []
    for layer, (name, inputs, outputs) in enumerate(LAYERS):
        for factor, size in (("A", inputs + 1), ("G", outputs)):
            for start in range(0, size, 128):
                stop = min(start + 128, size)
                index = len(listed)
                listed.append(
                    {"index": index, "layer": layer, "layer_name": name, "factor": factor,
                     "start": start, "stop": stop, "n": stop - start, "chip": index % n_chips}
                )  # fmt: skip
    return listed


def write_example_run(
    run_dir: Path, *, n_chips: int = 4, steps: int = 120, diverging: bool = False, seed: int = 1
) -> Path:
    """Write result.json, trace/ and solves/ of a made-up run; deterministic."""
    random = np.random.default_rng(seed)
    run_dir.mkdir(parents=True, exist_ok=True)
    listed = blocks(n_chips)
    clock = 0.0
    with TraceWriter(run_dir / "trace", n_chips=n_chips) as writer:
        for step in range(steps):
            rows, clock = _step_rows(step, n_chips, clock, random)
            solves = solve_batch(_solves(step, listed, diverging, random))
            batches = [trace_batch(columns, OPS) for columns in rows]
            writer.append(range(step, step + 1), batches, solves)
            if step % 40 == 39:
                writer.cut()
    result = _result(run_dir, n_chips, steps, listed, diverging, random)
    (run_dir / "result.json").write_text(json.dumps(result))
    return run_dir


def _step_rows(
    step: int, n_chips: int, clock: float, random: np.random.Generator
) -> tuple[list[dict[str, Any]], float]:
    rows, ends = [], []
    for chip in range(n_chips):
        now, columns = (
            clock,
            {
                name: []
                for name in (
                    "phase",
                    "op",
                    "bank",
                    "layer",
                    "block",
                    "start_s",
                    "duration_s",
                    "energy_j",
                )
            },
        )
        for phase in ORDER:
            if phase == "soi" and step % 5:
                continue
            for layer in range(len(LAYERS)):
                for bank, (op, seconds, joules) in enumerate(PLAN[phase]):
                    if op == "write_factor" and step % 5:
                        continue
                    took = seconds * (1 + 0.15 * chip) * (1 + 0.2 * random.random())
                    columns["phase"].append(PHASES.index(phase))
                    columns["op"].append(OPS.index(op))
                    columns["bank"].append(bank)
                    columns["layer"].append(layer)
                    # Each chip works on blocks of its own.
                    solving = phase == "inversion" or op == "write_factor"
                    columns["block"].append(layer * n_chips + chip if solving else -1)
                    columns["start_s"].append(now)
                    columns["duration_s"].append(took)
                    columns["energy_j"].append(joules * (1 + 0.2 * random.random()))
                    # Banks of a phase overlap, as solves and residual products do.
                    now += took * (0.6 if phase == "inversion" else 1.0)
        n = len(columns["phase"])
        arrays = {name: np.array(values) for name, values in columns.items()}
        rows.append({**arrays, "chip": np.full(n, chip), "step": np.full(n, step),
                     "adc_conversions": np.full(n, 4096),
                     "link_bytes": np.full(n, 64)})  # fmt: skip
        ends.append(float((arrays["start_s"] + arrays["duration_s"]).max()))
    return rows, max(ends)


def _solves(
    step: int, listed: list[dict[str, Any]], diverging: bool, random: np.random.Generator
) -> list[dict[str, Any]]:
    rows = []
    for block in listed:
        fails = diverging and block["n"] > 100 and step % 17 == 3
        iterations = 40 if fails else int(3 + block["n"] / 20 + random.integers(4) + step / 60)
        rows.append(
            {"step": step, "block": block["index"], "layer": block["layer"],
             "factor": block["factor"], "method": "fcg", "target_bits": 16,
             "iterations": iterations, "mean_iterations": iterations * 0.9,
             "converged": not fails, "stable": True, "saturated": False, "chip": block["chip"],
             "residual": 0.3 if fails else 10 ** (-5 - random.random()),
             "action": "damp" if fails else "none"}
        )  # fmt: skip
    return rows


def _result(
    run_dir: Path,
    n_chips: int,
    steps: int,
    listed: list[dict[str, Any]],
    diverging: bool,
    random: np.random.Generator,
) -> dict[str, Any]:
    losses = 2.3 * np.exp(-np.arange(steps) / 25) + 0.05 + 0.06 * random.random(steps)
    accuracy = np.clip(0.98 - 0.88 * np.exp(-np.arange(steps) / 18), 0, 1)
    per_epoch = 20
    epochs = [
        {"epoch": epoch + 1, "step": last + 1, "train_loss": losses[last],
         "train_accuracy": accuracy[last], "test_loss": losses[last] + 0.04,
         "test_accuracy": accuracy[last] - 0.01}
        for epoch in range(steps // per_epoch)
        for last in [(epoch + 1) * per_epoch - 1]
    ]  # fmt: skip
    return {
        "study": "train",
        "status": "finished",
        "settings": {
            "model": {"name": "digits_cnn"},
            "dataset": {"name": "digits"},
            "optimizer": {"name": "kfac", "damping": 0.01, "soi_interval": 5},
            "farm": {"chips": n_chips, "backend": "ray"},
            "inversion": {"method": "fcg", "target_bits": 16},
            "components": {
                "adc": {"value": 1.6e-12, "unit": "J", "source": "ISAAC, table 6 (B)"},
                "cell_write": {"value": 3.91e-9, "unit": "J", "source": "PipeLayer (B)"},
            },
        },
        "seed": 1,
        "versions": {"repast-dist": "0.1.0", "numpy": "2.3.0", "pyarrow": "20.0.0"},
        "command": f"repast-dist farm.chips={n_chips}",
        "started": "2026-01-31T12:00:00",
        "finished": "2026-01-31T12:00:48",
        "wall_s": 48.2,
        "epochs": epochs,
        "steps": [
            {"step": i, "loss": float(losses[i]), "accuracy": float(accuracy[i])}
            for i in range(steps)
        ],
        "layers": [
            {"name": name, "kind": "conv" if "conv" in name else "dense",
             "shape": [inputs + 1, outputs], "positions": 16 if "conv" in name else 1,
             "preconditioned": True, "reason": "K-FAC"}
            for name, inputs, outputs in LAYERS
        ],
        "blocks": listed,
        "wear": {
            "first": "activations", "lifetime_s": 583_200.0, "lifetime_epochs": 22.7e6,
            "endurance": 1e9,
            "cells": {
                name: {"writes_per_step": writes, "writes": writes * steps,
                       "worn": writes * steps / 1e9, "lifetime_epochs": 90.8e6 / writes}
                for name, writes in (("weights", 1.0), ("activations", 4.0), ("inverses", 0.2))
            },
        },
        "totals": totals(read_trace(run_dir / "trace")).to_dict(),
        "events": [{"step": 3, "kind": "diverged", "message": "block 4: residual 0.3, damped"}]
        if diverging
        else [],
    }  # fmt: skip

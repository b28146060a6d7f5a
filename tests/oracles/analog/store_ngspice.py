"""Write `ngspice.json` and `waveforms.npz`: operating points and transients, by ngspice.

    python tests/oracles/analog/store_ngspice.py

For machines on which ngspice is not installed. A case is its settings; `circuits` programs it.
"""

import dataclasses
import json
import re
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from repast_dist.analog import (
    CurveSpec,
    DeviceSpec,
    InvSpec,
    OpAmpSpec,
    Reram,
    VmmSpec,
    WireSpec,
    program_inv,
)
from repast_dist.analog.arrays.dynamics import Loop
from repast_dist.analog.arrays.fused import program_fused
from repast_dist.analog.spice import Circuit, fused_circuit, inv_circuit, run_ngspice, vmm_circuits

VMM = {
    "ideal wires": {"cell": {"bits": 4}},
    "resistive wires": {"cell": {"bits": 2}, "wire": {"row_ohm": 3.0, "column_ohm": 11.0}},
    "curved cells": {"cell": {"bits": 4}, "curve": {"v0_volts": 0.25}},
    "resistive rows": {"cell": {"bits": 4}, "wire": {"row_ohm": 20.0}},
    "all errors": {
        "cell": {
            "bits": 3,
            "programming_sigma": 0.03,
            "stuck_on_rate": 0.05,
            "stuck_off_rate": 0.05,
            "drift_exponent": 0.02,
        },
        "age_s": 1e4,
        "wire": {"row_ohm": 1.0, "column_ohm": 1.0},
    },
}
INV = {
    "ideal amplifiers": {"inv_cell": {"bits": 8}},
    "finite gain": {"inv_cell": {"bits": 8}, "opamp": {"gain": 300.0, "input_siemens": 2e-5}},
    "curved cells": {
        "inv_cell": {"bits": 8, "programming_sigma": 0.01},
        "curve": {"v0_volts": 0.1},
        "opamp": {"gain": 300.0, "offset_v": 0.003, "input_siemens": 2e-5},
    },
    "offsets": {"inv_cell": {"bits": 6}, "opamp": {"gain": 1e4, "offset_v": 0.003}},
    "resistive wires": {"inv_cell": {"bits": 8}, "wire": {"row_ohm": 5.0, "column_ohm": 2.0}},
    "all errors": {
        "inv_cell": {"bits": 8, "programming_sigma": 0.01, "clip": False},
        "wire": {"row_ohm": 2.0, "column_ohm": 2.0},
        "opamp": {"gain": 1e4, "offset_v": 0.001, "input_siemens": 1e-6},
    },
}
FUSED = {
    "ideal amplifiers": {"inv_cell": {"bits": 8}},
    "curved cells": {
        "inv_cell": {"bits": 6, "programming_sigma": 0.01},
        "curve": {"v0_volts": 0.15},
        "opamp": {"gain": 500.0, "offset_v": 0.002, "input_siemens": 1e-5},
    },
    "all errors": {
        "inv_cell": {"bits": 6, "programming_sigma": 0.01},
        "opamp": {"gain": 500.0, "offset_v": 0.002, "input_siemens": 1e-5},
    },
}
TRANSIENT = {
    "settling": ({"gain": 1e4, "offset_v": 0.001, "gbw_hz": 1e8}, None),
    "settling, small gain": ({"gain": 100.0, "input_siemens": 1e-5, "gbw_hz": 1e9}, None),
    "read early": ({"gbw_hz": 1e8}, 3.0),
    "second pole": ({"gain": 1e3, "gbw_hz": 1e8, "second_pole_hz": 1e8}, None),
    "second pole, read early": ({"gbw_hz": 1e8, "second_pole_hz": 4e7}, 3.0),
}
KINDS = {
    "vmm": VMM,
    "inv": INV,
    "fused": FUSED,
    "inv transient": TRANSIENT,
    "fused transient": TRANSIENT,
}
WAVES = {
    "inv 16, one pole": (16, 0, {"gain": 1e4, "gbw_hz": 1e8}),
    "inv 16, second pole": (16, 0, {"gain": 1e4, "gbw_hz": 1e8, "second_pole_hz": 5e7}),
    "inv 64, one pole": (64, 0, {"gain": 1e4, "gbw_hz": 1e8}),
    "inv 64, second pole": (64, 0, {"gain": 1e4, "gbw_hz": 1e8, "second_pole_hz": 3e7}),
    "fused 16, one pole": (16, 8, {"gain": 1e4, "gbw_hz": 1e8}),
    "fused 16, second pole": (16, 8, {"gain": 1e4, "gbw_hz": 1e8, "second_pole_hz": 1e8}),
}
"""Rows, columns of a fused circuit's array, and amplifiers."""
SAMPLES = 12
SEED = 11


def circuits(kind: str, case: str) -> list[Circuit]:
    """Return the circuits of a case with what we calculate for them."""
    random = np.random.default_rng(SEED)
    if kind == "vmm":
        device = _device(VMM[case])
        spec = VmmSpec(device=device, rows=10, columns=12, weight_bits=6)
        weights, vector = random.normal(size=(14, 4)), random.uniform(-1, 1, size=14)
        return vmm_circuits(weights, vector, spec, 0.2, SEED, "spice")
    transient = kind.endswith("transient")
    if transient:
        opamp, read_cycles = TRANSIENT[case]
        cell = {"bits": 8, "programming_sigma": 0.01}
        spec = InvSpec(device=_device({"inv_cell": cell, "opamp": opamp}), read_cycles=read_cycles)
    else:
        spec = InvSpec(device=_device({"inv": INV, "fused": FUSED}[kind][case]))
    if kind.startswith("fused"):
        rows, diagonal = random.normal(size=(9, 5)), random.uniform(0.5, 2.0, size=9)
        right = random.normal(size=9)
        return [fused_circuit(rows, diagonal, right, spec, 0.2, SEED, "spice", transient=transient)]
    root = random.normal(size=(12, 30))
    matrix = root @ root.T / 30 + 0.1 * np.eye(12)
    right = random.normal(size=12)
    return [inv_circuit(matrix, right, spec, 0.2, SEED, "spice", transient=transient)]


def wave(name: str) -> tuple[Circuit, Loop, float]:
    """Return a circuit that is run until it has settled for long, its loop, and what is half a
    step of its converter.
    """
    n, held, opamp = WAVES[name]
    random = np.random.default_rng(SEED)
    cell = {"bits": 8, "programming_sigma": 0.01}
    spec = InvSpec(device=_device({"inv_cell": cell, "opamp": opamp}))
    right = random.normal(size=n)
    if held:
        rows, diagonal = random.normal(size=(n, held)), random.uniform(0.5, 2.0, size=n)
        array = program_fused(rows, diagonal, spec, SEED, "spice")
        late = 2.0 * array.settling_cycles / spec.device.opamp.compensation
        long = dataclasses.replace(spec, read_cycles=late)
        circuit = fused_circuit(rows, diagonal, right, long, 0.2, SEED, "spice", transient=True)
    else:
        root = random.normal(size=(n, 3 * n))
        matrix = root @ root.T / (3 * n) + 0.1 * np.eye(n)
        array = program_inv(matrix, spec, SEED, "spice")
        long = dataclasses.replace(spec, read_cycles=2.0 * array.settling_cycles)
        circuit = inv_circuit(matrix, right, long, 0.2, SEED, "spice", transient=True)
    return circuit, array.circuit.loop, 1.0 / (2.0**spec.adc_bits - 2.0)


def run_wave(text: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the times, (t,) in seconds, and outputs, (t, n), of a transient by ngspice."""
    names = re.findall(r"^print (v\(out\d+\))\[last\]$", text, re.MULTILINE)
    kept = [line for line in text.splitlines() if not line.startswith(("print", "let last"))]
    end = kept.index("quit")
    kept[end:end] = ["set wr_singlescale", f"wrdata wave.txt {' '.join(names)}"]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "circuit.cir").write_text("\n".join(kept) + "\n")
        subprocess.run(
            ["ngspice", "-b", "circuit.cir"], cwd=folder, capture_output=True, check=True
        )
        table = np.loadtxt(Path(folder) / "wave.txt")
    return table[:, 0], table[:, 1:]


def settled_after(times: np.ndarray, outputs: np.ndarray, share: float) -> float:
    """Return when all outputs are within a share of the largest for good."""
    last = outputs[-1]
    off = np.abs(outputs - last).max(axis=1) > share * np.abs(last).max()
    return float(times[np.flatnonzero(off)[-1] + 1])


def _device(parts: Mapping[str, Any]) -> DeviceSpec:
    kinds = {
        "cell": Reram,
        "inv_cell": Reram,
        "wire": WireSpec,
        "curve": CurveSpec,
        "opamp": OpAmpSpec,
    }
    made = {name: kinds[name](**values) for name, values in parts.items() if name in kinds}
    return DeviceSpec(**{**parts, **made})


def main() -> None:
    """Solve and write all cases."""
    stored = {
        f"{kind}: {case}": [run_ngspice(item.text).tolist() for item in circuits(kind, case)]
        for kind, cases in KINDS.items()
        for case in cases
    }
    Path(__file__).with_name("ngspice.json").write_text(json.dumps(stored, indent=1) + "\n")
    waves = {}
    for name in WAVES:
        circuit, _, share = wave(name)
        times, outputs = run_wave(circuit.text)
        # Evenly over the logarithm of time, from where outputs begin to move.
        picked = np.searchsorted(times, times[-1] * np.geomspace(0.002, 1.0, SAMPLES))
        picked = np.minimum(picked, len(times) - 1)
        waves[f"{name}/times"], waves[f"{name}/outputs"] = times[picked], outputs[picked]
        waves[f"{name}/settled"] = settled_after(times, outputs, share)
    np.savez_compressed(Path(__file__).with_name("waveforms.npz"), **waves)


if __name__ == "__main__":
    main()

"""Write `ngspice.json`: operating points and transients of circuits, by ngspice.

    python tests/oracles/analog/store_ngspice.py

For machines on which ngspice is not installed. A case is its settings; `circuits` programs it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from repast_dist.analog import DeviceSpec, InvSpec, OpAmpSpec, Reram, VmmSpec, WireSpec
from repast_dist.analog.spice import Circuit, fused_circuit, inv_circuit, run_ngspice, vmm_circuits

VMM = {
    "ideal wires": {"cell": {"bits": 4}},
    "resistive wires": {"cell": {"bits": 2}, "wire": {"row_ohm": 3.0, "column_ohm": 11.0}},
    "resistive rows": {"cell": {"bits": 4}, "wire": {"row_ohm": 20.0}},
    "all errors": {
        "cell": {
            "bits": 3,
            "programming_sigma": 0.03,
            "stuck_on_rate": 0.05,
            "stuck_off_rate": 0.05,
            "drift_exponent": 0.02,
            "drift_time_s": 1e4,
        },
        "wire": {"row_ohm": 1.0, "column_ohm": 1.0},
    },
}
INV = {
    "ideal amplifiers": {"inv_cell": {"bits": 8}},
    "finite gain": {"inv_cell": {"bits": 8}, "opamp": {"gain": 300.0, "input_siemens": 2e-5}},
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
    "all errors": {
        "inv_cell": {"bits": 6, "programming_sigma": 0.01},
        "opamp": {"gain": 500.0, "offset_v": 0.002, "input_siemens": 1e-5},
    },
}
TRANSIENT = {
    "settling": ({"gain": 1e4, "offset_v": 0.001, "gbw_hz": 1e8}, None),
    "settling, small gain": ({"gain": 100.0, "input_siemens": 1e-5, "gbw_hz": 1e9}, None),
    "read early": ({"gbw_hz": 1e8}, 3.0),
}
KINDS = {
    "vmm": VMM,
    "inv": INV,
    "fused": FUSED,
    "inv transient": TRANSIENT,
    "fused transient": TRANSIENT,
}
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


def _device(parts: Mapping[str, Any]) -> DeviceSpec:
    kinds = {"cell": Reram, "inv_cell": Reram, "wire": WireSpec, "opamp": OpAmpSpec}
    return DeviceSpec(**{name: kinds[name](**values) for name, values in parts.items()})


def main() -> None:
    """Solve and write all cases."""
    stored = {
        f"{kind}: {case}": [run_ngspice(item.text).tolist() for item in circuits(kind, case)]
        for kind, cases in KINDS.items()
        for case in cases
    }
    Path(__file__).with_name("ngspice.json").write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()

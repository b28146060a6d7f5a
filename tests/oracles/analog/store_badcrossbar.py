"""Write `badcrossbar.json`: currents of arrays with resistive wires, by badcrossbar.

    python tests/oracles/analog/store_badcrossbar.py

For machines on which badcrossbar is not installed.
"""

import json
from pathlib import Path

import badcrossbar
import numpy as np

CASES = [
    {"name": "square", "rows": 24, "columns": 24, "row_ohm": 2.0, "column_ohm": 3.0, "seed": 1},
    {"name": "wide", "rows": 8, "columns": 30, "row_ohm": 50.0, "column_ohm": 1.0, "seed": 2},
    {"name": "tall", "rows": 30, "columns": 8, "row_ohm": 0.5, "column_ohm": 200.0, "seed": 3},
]


def main() -> None:
    """Solve and write all cases."""
    for case in CASES:
        size = (case["rows"], case["columns"])
        cells = np.random.default_rng(case["seed"]).uniform(1e-6, 1e-4, size=size)
        volts = np.linspace(-1, 1, case["rows"])[:, None]
        solution = badcrossbar.compute(
            volts, 1.0 / cells, r_i_word_line=case["row_ohm"], r_i_bit_line=case["column_ohm"]
        )
        case["currents"] = np.ravel(solution.currents.output).tolist()
    target = Path(__file__).with_name("badcrossbar.json")
    target.write_text(json.dumps(CASES, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Writes the tables of this folder from published fits.

Run it as ``python -m repast_dist.analog.tables.make_tables``. The fits are AIHWKit's
(``src/aihwkit/inference/noise/reram.py``, MIT licence) of the figures that the papers print; what
the papers measured are the times and targets named below.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent
_HOUR, _DAY = 3600.0, 86400.0

_WAN = {
    1.0: (0.348, 16.030, -43.853, 45.393, -16.815),
    _DAY: (0.701, 22.086, -50.773, 47.095, -16.458),
    2 * _DAY: (0.782, 20.274, -43.507, 37.062, -11.934),
}
"""Spread in microsiemens: coefficients of the conductance over 40 uS, the constant first."""

_WAN_TEXT = """\
ReRAM of NeuRRAM one second, one day and two days after write-verify.
Wan et al., "A compute-in-memory chip based on resistive random-access memory", Nature 608, 504
(2022). Spread: AIHWKit's fits of the paper's figure (ReRamWan2022NoiseModel, MIT licence),
evaluated every 2.5 uS; their means are the targets. Read noise: 1 % of the largest conductance,
AIHWKit's note in the same place."""

_CMO_TEXT = """\
Conductive-metal-oxide/HfOx ReRAM of IBM Research Zurich, written to within 0.2 % of the target.
Falcone et al., "All-in-One Analog AI Accelerator: On-Chip Training and Inference with
Conductive-Metal-Oxide/HfOx ReRAM Devices", arXiv 2502.04524 (2025). AIHWKit's fits
(ReRamCMONoiseModel, MIT licence): spread when written 0.00107 G + 0.00081 uS; from then on the mean
falls by 0.0890 ln(t / s) uS and a spread of 0.0420 ln(t / s) + 0.4118 uS is added, measured at
50 uS and found not to depend on the target. Times are those of the measurement.
Read noise: 1 % of the largest conductance, AIHWKit's note in the same place."""


def wan_rows() -> Iterable[tuple[float, float, float, float, float]]:
    """Yield (time, target, mean, sigma, read sigma) of NeuRRAM's cells, in microsiemens."""
    for time, coefficients in _WAN.items():
        for target in np.arange(0.0, 40.1, 2.5):
            sigma = np.polynomial.polynomial.polyval(target / 40.0, coefficients)
            yield time, target, target, float(sigma), 0.4


def cmo_rows() -> Iterable[tuple[float, float, float, float, float]]:
    """Yield the same of conductive-metal-oxide/HfOx cells, written to within 0.2 %."""
    for time in (1.0, _HOUR, _DAY, 2 * _DAY, 7 * _DAY):
        fallen = 0.08900206 * np.log(time)
        relaxed = 0.04201137 * np.log(time) + 0.41183342
        for target in (9.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 88.19):
            written = 0.00106879 * target + 0.00081107
            yield time, target, target - fallen, float(np.hypot(written, relaxed)), 0.8819


def write(name: str, text: str, rows: Iterable[tuple[float, ...]]) -> None:
    """Write one table with its source."""
    lines = [f"# {line}" for line in text.splitlines()]
    quantities = ("target", "mean", "sigma", "read_sigma")
    lines.append(",".join(("time_s", *(f"{name}_microsiemens" for name in quantities))))
    lines += [",".join(f"{number:.6g}" for number in row) for row in rows]
    (FOLDER / name).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    write("wan2022_aged.csv", _WAN_TEXT, wan_rows())
    write("cmo_hfox.csv", _CMO_TEXT, cmo_rows())

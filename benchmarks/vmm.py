"""Wall time of the analog product over NumPy's float64 product of the same shape.

    python benchmarks/vmm.py [--repeats 25]

One thread, batch 256, 8-bit signed inputs as 7 one-bit passes, 8-bit weights in two 4-bit slices,
8-bit calibrated ADC per pass, slice and 256-row tile. Both are timed in turn in the same process;
the ratio is between the fastest of each, which other work on the machine disturbs least.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from repast_dist.analog import AdcSpec, DeviceSpec, Reram, VmmSpec, WireSpec, program_vmm
from repast_dist.analog.arrays.wires import transfer_matrix

BATCH = 256


def _spec(adc_range: str = "calibrated", wire_ohm: float = 0.0, **cell: float) -> VmmSpec:
    wire = WireSpec(row_ohm=wire_ohm, column_ohm=wire_ohm)
    device = DeviceSpec(cell=Reram(bits=4, **cell), wire=wire)
    return VmmSpec(device=device, adc=AdcSpec(bits=8, range=adc_range), rows=256)


CASES = {
    "ideal cells": (_spec(), 8.0),
    "programming noise 1 %": (_spec(programming_sigma=0.01), 8.0),
    "read noise 1 %": (_spec(read_sigma=0.01), 20.0),
    "lossless, ideal cells": (_spec("lossless"), 2.0),
    "wires, 1 ohm per cell": (_spec(wire_ohm=1.0), 8.0),
}
"""What is timed, and the ratio it must not exceed."""

WIRES_LIMIT_S = 1.0


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=25)
    repeats = parser.parse_args().repeats
    table = Table(title="Analog product over NumPy float64", title_justify="left")
    for name in ("size", "case", "NumPy ms", "ours ms", "ratio", "limit", "error", "program"):
        table.add_column(name, justify="left" if name == "case" else "right", no_wrap=True)
    with threadpool_limits(1):
        for size in (256, 1024):
            for case, (spec, limit) in CASES.items():
                if size == 256 or spec.device.wire.ideal:
                    table.add_row(str(size), case, *_measure(size, spec, repeats, limit))
    Console(width=100).print(table)
    with threadpool_limits(1):
        cells = np.random.default_rng(1).uniform(1e-6, 1e-4, size=(256, 256))
        wire = WireSpec(row_ohm=1.0, column_ohm=1.0)
        wires_s, _ = _in_turn(lambda: transfer_matrix(cells, wire), lambda: None, 3)
    Console().print(
        f"Programming one 256x256 array with wires: {wires_s:.2f} s, at most {WIRES_LIMIT_S:.0f} s"
    )


def _measure(size: int, spec: VmmSpec, repeats: int, limit: float) -> list[str]:
    random = np.random.default_rng(0)
    weights = random.normal(size=(size, size))
    inputs = random.uniform(-1, 1, size=(BATCH, size))
    started = time.perf_counter()
    array = program_vmm(weights, spec, 1, "benchmark")
    program_s = time.perf_counter() - started
    if array.planes is not None:
        array.calibrate(inputs)
    ours_s, numpy_s = _in_turn(lambda: array.multiply(inputs), lambda: inputs @ weights, repeats)
    exact = inputs @ weights
    error = np.linalg.norm(array.multiply(inputs).values - exact) / np.linalg.norm(exact)
    return [
        f"{numpy_s * 1e3:.2f}",
        f"{ours_s * 1e3:.2f}",
        f"{ours_s / numpy_s:.1f}",
        f"{limit:.0f}",
        f"{error:.4f}",
        f"{program_s:.3f} s",
    ]


def _in_turn(
    first: Callable[[], object], second: Callable[[], object], repeats: int
) -> tuple[float, float]:
    """Return the shortest times of two functions timed alternately, after one call of each."""
    first(), second()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for function, kept in zip((first, second), times, strict=True):
            started = time.perf_counter()
            function()
            kept.append(time.perf_counter() - started)
    return min(times[0]), min(times[1])


if __name__ == "__main__":
    main()

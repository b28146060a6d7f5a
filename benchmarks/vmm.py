"""Time of the analog product over NumPy's float64 product of the same shape.

    python benchmarks/vmm.py [--repeats 25]

One thread, batch 256, 8-bit signed inputs as 7 one-bit passes, 8-bit weights in two 4-bit slices,
8-bit ADC per pass, slice and 256-row tile; with all kernels that the machine has, and by CrossSim
where its package is on the path. Product and NumPy are timed in turn in the same process, in
processor time; the ratio is between the fastest of each, which other work on the machine disturbs
least.
"""

import argparse
import importlib.util
import time
from collections.abc import Callable, Iterator

import numpy as np
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from repast_dist.analog import AdcSpec, DeviceSpec, Reram, VmmSpec, WireSpec, program_vmm
from repast_dist.analog.arrays.wires import transfer_matrix
from repast_dist.analog.kernels.chosen import available, using

BATCH = 256


def _spec(adc_range: str = "calibrated", wire_ohm: float = 0.0, **cell: float) -> VmmSpec:
    wire = WireSpec(row_ohm=wire_ohm, column_ohm=wire_ohm)
    device = DeviceSpec(cell=Reram(bits=4, **cell), wire=wire)
    return VmmSpec(device=device, adc=AdcSpec(bits=8, range=adc_range), rows=256)


IDEAL, PROGRAMMED, READ = "ideal cells", "programming noise 1 %", "read noise 1 %"
CASES = {
    IDEAL: (_spec(), {"int8": 2.0, "float32": 6.0}),
    PROGRAMMED: (_spec(programming_sigma=0.01), {"int8": 2.5, "float32": 9.0}),
    READ: (_spec(read_sigma=0.01), {"int8": 5.0, "float32": 10.0}),
    "lossless, ideal cells": (_spec("lossless"), {"int8": 1.0, "float32": 1.0}),
    "wires, 1 ohm per cell": (_spec(wire_ohm=1.0), {"int8": 2.5, "float32": 9.0}),
}
"""What is timed, and the ratio that it is to stay below on a machine without other work."""

WIRES_LIMIT_S = 0.1
_FEW = 3


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=25)
    repeats = parser.parse_args().repeats
    console = Console(width=110)
    table = Table(title="Analog product over NumPy float64", title_justify="left")
    columns = (
        "size",
        "case",
        "by",
        "NumPy ms",
        "product ms",
        "ratio",
        "limit",
        "error",
        "program s",
    )
    for name in columns:
        table.add_column(name, justify="left" if name in ("case", "by") else "right", no_wrap=True)
    others = importlib.util.find_spec("simulator") is not None
    with threadpool_limits(1):
        for size in (256, 1024):
            for case, (spec, limits) in CASES.items():
                if size != 256 and not spec.device.wire.ideal:
                    continue
                for name in available():
                    with using(name):
                        found = _measure(size, _ours(size, spec), repeats)
                    table.add_row(
                        str(size), case, name, *found[:3], f"{limits[name]:g}", *found[3:]
                    )
                if others and case in (IDEAL, PROGRAMMED):
                    found = _measure(size, _cross_sim(size, spec), _FEW)
                    table.add_row(str(size), case, "CrossSim", *found[:3], "", *found[3:])
    console.print(table)
    if not others:
        console.print("CrossSim is not here: its package `simulator` has to be on PYTHONPATH.")
    console.print(f"Kernels of this machine: {', '.join(available())}.")
    with threadpool_limits(1):
        cells = np.random.default_rng(1).uniform(1e-6, 1e-4, size=(256, 256))
        wire = WireSpec(row_ohm=1.0, column_ohm=1.0)
        wires_s, _ = _in_turn(lambda: transfer_matrix(cells, wire), lambda: None, _FEW)
    console.print(
        f"Programming one 256x256 array with wires: {wires_s:.3f} s, at most {WIRES_LIMIT_S:g} s"
    )


Subject = Iterator[Callable[[np.ndarray], np.ndarray]]
"""Programs when asked for the product."""


def _operands(size: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return random.normal(size=(size, size)), random.uniform(-1, 1, size=(BATCH, size))


def _ours(size: int, spec: VmmSpec) -> Subject:
    weights, inputs = _operands(size)
    program_vmm(weights, spec, 1, "compiled before")
    yield lambda _: weights
    array = program_vmm(weights, spec, 1, "benchmark")
    if array.planes is not None:
        array.calibrate(inputs)
    yield lambda x: array.multiply(x).values


def _cross_sim(size: int, spec: VmmSpec) -> Subject:
    """CrossSim at the same design point, with ADC ranges of its own, which take no time."""
    from simulator import AnalogCore, CrossSimParameters
    from simulator.parameters.core_parameters import CoreStyle
    from simulator.parameters.xbar_parameters import ADCRangeLimits

    weights, _ = _operands(size)
    chosen = CrossSimParameters()
    chosen.core.style = CoreStyle.BITSLICED
    chosen.core.weight_bits, chosen.core.rows_max, chosen.core.cols_max = 8, spec.rows, size
    chosen.xbar.device.cell_bits = spec.device.cell.bits
    dac, adc = chosen.xbar.dac.mvm, chosen.xbar.adc.mvm
    dac.model, dac.bits, dac.input_bitslicing, dac.slice_size = "SignMagnitudeDAC", 8, True, 1
    adc.model, adc.bits, adc.adc_range_option = "SignMagnitudeADC", 8, ADCRangeLimits.MAX
    if spec.device.cell.programming_spread:
        error = chosen.xbar.device.programming_error
        error.enable, error.model = True, "NormalIndependentDevice"
        error.magnitude = spec.device.cell.programming_spread
    yield lambda _: weights
    core = AnalogCore(weights.T, chosen)
    yield lambda x: (core @ x.T).T


def _measure(size: int, subject: Subject, repeats: int) -> list[str]:
    weights, inputs = _operands(size)
    next(subject)
    started = time.process_time()
    multiply = next(subject)
    program_s = time.process_time() - started
    ours_s, numpy_s = _in_turn(lambda: multiply(inputs), lambda: inputs @ weights, repeats)
    exact = inputs @ weights
    error = np.linalg.norm(multiply(inputs) - exact) / np.linalg.norm(exact)
    return [
        f"{numpy_s * 1e3:.2f}",
        f"{ours_s * 1e3:.2f}",
        f"{ours_s / numpy_s:.1f}",
        f"{error:.4f}",
        f"{program_s:.3f}",
    ]


def _in_turn(
    first: Callable[[], object], second: Callable[[], object], repeats: int
) -> tuple[float, float]:
    """Return the shortest times of two functions timed alternately, after one call of each."""
    first(), second()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for function, kept in zip((first, second), times, strict=True):
            started = time.process_time()
            function()
            kept.append(time.process_time() - started)
    return min(times[0]), min(times[1])


if __name__ == "__main__":
    main()

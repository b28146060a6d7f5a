"""Time of the analog product over NumPy's float64 product of the same shape.

    python benchmarks/vmm.py [--repeats 25]

One thread, batch 256, 8-bit signed inputs as 7 one-bit passes, 8-bit weights in two 4-bit slices,
8-bit ADC per pass, slice and 256-row tile; with all kernels that the machine has, by CrossSim where
its package is on the path, and by AIHWKit where it is installed. AIHWKit does not slice weights and
inputs: a tile per slice takes all passes as one batch, and NumPy shifts and adds. Product and NumPy
are timed in turn in the same process, in processor time (with a GPU in time that passes); the ratio
is between the fastest of each, which other work on the machine disturbs least.
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
from repast_dist.analog.fixed_point import shared_step
from repast_dist.analog.kernels.chosen import available, using

BATCH = 256


def _spec(adc_range: str = "calibrated", wire_ohm: float = 0.0, **cell: float) -> VmmSpec:
    wire = WireSpec(row_ohm=wire_ohm, column_ohm=wire_ohm)
    device = DeviceSpec(cell=Reram(bits=4, **cell), wire=wire)
    return VmmSpec(device=device, adc=AdcSpec(bits=8, range=adc_range), rows=256)


IDEAL, PROGRAMMED, READ = "ideal cells", "programming noise 1 %", "read noise 1 %"
CASES = {
    IDEAL: (_spec(), {"amx": 2.0, "int8": 2.0, "float32": 4.0}),
    PROGRAMMED: (_spec(programming_sigma=0.01), {"amx": 2.5, "int8": 2.5, "float32": 6.0}),
    READ: (_spec(read_sigma=0.01), {"amx": 5.0, "int8": 5.0, "float32": 10.0}),
    "lossless, ideal cells": (_spec("lossless"), {"amx": 1.0, "int8": 1.0, "float32": 1.0}),
    "wires, 1 ohm per cell": (_spec(wire_ohm=1.0), {"amx": 2.5, "int8": 2.5, "float32": 6.0}),
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
    others = {
        name: subject
        for name, (package, subject) in OTHERS.items()
        if importlib.util.find_spec(package) is not None
    }
    with threadpool_limits(1):
        for size in (256, 1024):
            for case, (spec, limits) in CASES.items():
                if size != 256 and not spec.device.wire.ideal:
                    continue
                for name in available():
                    clock = time.perf_counter if name == "cuda" else time.process_time
                    with using(name):
                        found = _measure(size, _ours(size, spec), repeats, clock)
                    limit = f"{limits[name]:g}" if name in limits else ""
                    table.add_row(str(size), case, name, *found[:3], limit, *found[3:])
                for name, subject in others.items():
                    if case in (IDEAL, PROGRAMMED):
                        found = _measure(size, subject(size, spec), _FEW, time.process_time)
                        table.add_row(str(size), case, name, *found[:3], "", *found[3:])
    console.print(table)
    for name, (package, _) in OTHERS.items():
        if name not in others:
            console.print(f"{name} is not here: its package `{package}` has to be on the path.")
    console.print(f"Kernels of this machine: {', '.join(available())}.")
    with threadpool_limits(1):
        cells = np.random.default_rng(1).uniform(1e-6, 1e-4, size=(256, 256))
        wire = WireSpec(row_ohm=1.0, column_ohm=1.0)
        wires_s, _ = _in_turn(
            lambda: transfer_matrix(cells, wire), lambda: None, _FEW, time.process_time
        )
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
    if array.contents is not None:
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


def _aihwkit(size: int, spec: VmmSpec) -> Subject:
    """AIHWKit's tiles, holding what our arrays hold."""
    import torch
    from aihwkit.nn import AnalogLinear
    from aihwkit.simulator.configs import TorchInferenceRPUConfig
    from aihwkit.simulator.parameters.enums import BoundManagementType, NoiseManagementType

    torch.set_num_threads(1)
    weights, inputs = _operands(size)
    top = 2.0 ** (spec.adc.bits - 1) - 1
    yield lambda _: weights
    array = program_vmm(weights, spec, 1, "benchmark")
    array.calibrate(inputs)
    slices = []
    for number in range(spec.slices):
        config = TorchInferenceRPUConfig()
        # Digits are applied and held levels added as they are; an ADC per tile of rows and slice.
        forward, mapping = config.forward, config.mapping
        forward.inp_res, forward.out_noise = -1.0, 0.0
        forward.out_res, forward.out_bound = 1.0 / (2.0 * top), float(array.ranges[number])
        forward.noise_management = NoiseManagementType.NONE
        forward.bound_management = BoundManagementType.NONE
        mapping.max_input_size, mapping.max_output_size = spec.rows, 0
        mapping.weight_scaling_omega = 0.0
        layer = AnalogLinear(size, size, bias=False, rpu_config=config)
        layer.set_weights(torch.from_numpy(array.planes[:, number].T.copy()))
        slices.append(layer)
    shifts = np.arange(spec.passes)[:, None, None]
    worth = 2.0 ** np.arange(spec.passes)

    def multiply(x: np.ndarray) -> np.ndarray:
        step = shared_step(float(np.abs(x).max()), spec.input_bits)
        integers = np.rint(x / step).astype(np.int32)
        digits = np.sign(integers) * (np.abs(integers) >> shifts & 1)
        driven = torch.from_numpy(digits.reshape(-1, size).astype(np.float32))
        total = np.zeros((len(x), size))
        with torch.no_grad():
            for number, layer in enumerate(slices):
                codes = layer(driven).numpy().reshape(spec.passes, len(x), size)
                total += spec.device.cell.levels**number * np.tensordot(worth, codes, 1)
        return total * (step * array.weight_scale)

    yield multiply


OTHERS = {"CrossSim": ("simulator", _cross_sim), "AIHWKit": ("aihwkit", _aihwkit)}
"""Programs beside ours, the packages that they are in, and what they are timed by."""


def _measure(size: int, subject: Subject, repeats: int, clock: Callable[[], float]) -> list[str]:
    weights, inputs = _operands(size)
    next(subject)
    started = time.process_time()
    multiply = next(subject)
    program_s = time.process_time() - started
    ours_s, numpy_s = _in_turn(lambda: multiply(inputs), lambda: inputs @ weights, repeats, clock)
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
    first: Callable[[], object],
    second: Callable[[], object],
    repeats: int,
    clock: Callable[[], float],
) -> tuple[float, float]:
    """Return the shortest times of two functions timed alternately, after one call of each."""
    first(), second()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for function, kept in zip((first, second), times, strict=True):
            started = clock()
            function()
            kept.append(clock() - started)
    return min(times[0]), min(times[1])


if __name__ == "__main__":
    main()

"""Circuits of programmed arrays for ngspice, with the values we calculate beside.

A netlist holds every cell as a resistor, every wire segment, and amplifiers as voltage-controlled
sources of finite gain; sources hold the inputs. ``ngspice -b FILE.cir`` prints the operating
point. What converters round is no circuit of resistors and left out.
"""

import dataclasses
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from repast_dist.analog.arrays.fused import program_fused
from repast_dist.analog.arrays.inv import program_inv
from repast_dist.analog.arrays.programming import (
    offset_voltages,
    pair_conductances,
    quantize_symmetric,
    to_siemens,
)
from repast_dist.analog.arrays.vmm import physical_arrays
from repast_dist.analog.arrays.wires import transfer_matrix
from repast_dist.analog.specs import InvSpec, OpAmpSpec, VmmSpec, WireSpec
from repast_dist.ground.errors import DataError

_LONGEST_RUN_S = 600.0
_FINE_BITS = 24


@dataclasses.dataclass(frozen=True)
class Circuit:
    """A netlist and what we calculate for it.

    Attributes
    ----------
    name : str
        For a file's name.
    text : str
        The netlist.
    unit : {"A", "V"}
        Of the outputs: column currents or amplifier voltages.
    labels : tuple of str
        What each output is.
    calculated : ndarray
        (outputs,) float64.
    """

    name: str
    text: str
    unit: str
    labels: tuple[str, ...]
    calculated: np.ndarray


def vmm_circuits(
    weights: np.ndarray,
    vector: np.ndarray,
    spec: VmmSpec,
    full_scale_v: float,
    seed: int = 0,
    *address: int | str,
) -> list[Circuit]:
    """Return the arrays `program_vmm` programs with these arguments, driven by one vector.

    Parameters
    ----------
    weights : ndarray
        (K, M).
    vector : ndarray
        (K,); its largest entry becomes `full_scale_v`.
    spec : VmmSpec
        How the multiplier is built.
    full_scale_v : float
        Volts.
    seed, *address
        Address of the programming errors.

    Returns
    -------
    list of Circuit
        One per array, columns in their physical order: weight, slice, positive and negative.
    """
    if vector.shape != weights.shape[:1]:
        raise DataError(f"weights of {weights.shape} take {weights.shape[:1]}, got {vector.shape}")
    volts = full_scale_v * vector / (np.max(np.abs(vector), initial=0.0) or 1.0)
    wire = spec.device.wire
    circuits = []
    for array in physical_arrays(weights, spec, seed, *address):
        driven = volts[array.first_row : array.first_row + len(array.siemens)]
        labels = []
        for column in range(array.first_column, array.first_column + array.siemens.shape[1]):
            weight, slice_and_sign = divmod(column, 2 * spec.slices)
            sign = "-" if slice_and_sign % 2 else "+"
            labels.append(f"weight {weight} slice {slice_and_sign // 2} {sign}")
        name = f"vmm_row{array.first_row}_column{array.first_column}"
        circuits.append(
            Circuit(
                name,
                vmm_netlist(array.siemens, driven, wire, name),
                "A",
                tuple(labels),
                driven @ transfer_matrix(array.siemens, wire),
            )
        )
    return circuits


def inv_circuit(
    matrix: np.ndarray,
    right: np.ndarray,
    spec: InvSpec,
    full_scale_v: float,
    seed: int = 0,
    *address: int | str,
) -> Circuit:
    """Return the array `program_inv` programs with these arguments, solving for one vector.

    Parameters
    ----------
    matrix : ndarray
        (n, n), at most ``spec.size``.
    right : ndarray
        (n,).
    spec : InvSpec
        How the array is built, with one slice and one copy.
    full_scale_v : float
        Volts of the largest output, as calculated without offsets.
    seed, *address
        Address of the programming errors.

    Raises
    ------
    DataError
        The matrix needs more than one array.
    """
    n = len(matrix)
    if n > spec.size or spec.slices * spec.copies > 1:
        raise DataError(
            f"one inverting circuit holds matrices up to {spec.size} in one slice and copy, got "
            f"{n} in {spec.slices} and {spec.copies}"
        )
    device, cell = spec.device, spec.device.inv_cell
    volt, solved = _fine_solution(
        lambda fine: program_inv(matrix, fine, seed, *address).solve(right[:, None]),
        spec,
        full_scale_v,
    )
    positive, negative = _pair_siemens(matrix, spec, seed, *address)
    span = cell.span_siemens
    siemens = span / (np.max(np.abs(matrix), initial=0.0) or 1.0)
    text = inv_netlist(
        positive,
        negative,
        right * siemens * volt,
        device.opamp,
        device.wire,
        full_scale_v * offset_voltages(n, device.opamp, seed, *address),
        "inv",
    )
    labels = tuple(f"output {k}" for k in range(n))
    return Circuit("inv", text, "V", labels, solved[:, 0] * volt)


def fused_circuit(
    rows: np.ndarray,
    diagonal: np.ndarray,
    right: np.ndarray,
    spec: InvSpec,
    full_scale_v: float,
    seed: int = 0,
    *address: int | str,
) -> Circuit:
    """Return the arrays `program_fused` programs with these arguments, solving for one vector.

    Parameters
    ----------
    rows, diagonal : ndarray
        (n, N) and (n,).
    right : ndarray
        (n,).
    spec : InvSpec
        How the arrays are built, with one slice and one copy and ideal wires.
    full_scale_v : float
        Volts of the largest output, as calculated without offsets.
    seed, *address
        Address of the programming errors.
    """
    device, cell = spec.device, spec.device.inv_cell
    if spec.slices * spec.copies > 1 or not device.wire.ideal:
        raise DataError("a fused circuit has one slice and copy and no resistive wires")
    right = right[:, None]
    volt, solved = _fine_solution(
        lambda fine: program_fused(rows, diagonal, fine, seed, *address).solve(right),
        spec,
        full_scale_v,
    )
    # Siemens per unit of `rows`: a whole cell, also the feedback's, holds the largest entry.
    span = cell.span_siemens
    unit = float(np.max(np.abs(rows)))
    forth = _pair_siemens(rows, spec, seed, *address, "fused", "a")
    back = _pair_siemens(rows.T, spec, seed, *address, "fused", "transpose")
    damping = _pair_siemens(diagonal[:, None], spec, seed, *address, "fused", "damping")
    # The damping cells are as large as the product of both arrays asks for.
    larger = float(np.max(np.abs(diagonal))) / unit**2
    n, held = rows.shape
    opamp = device.opamp
    outer = full_scale_v * offset_voltages(n, opamp, seed, *address)
    middle = full_scale_v * offset_voltages(held, opamp, seed, *address, "between")
    outputs, inverted = [f"out{k}" for k in range(n)], [f"inv{k}" for k in range(n)]
    inputs, means = [f"in{k}" for k in range(n)], [f"min{j}" for j in range(held)]
    cards = [f"i{k} in{k} 0 {right[k, 0] * volt * span / unit**2:.17g}" for k in range(n)]
    cards += _amplifiers("", opamp, outer)
    cards += _amplifiers("m", opamp, middle)
    cards += [f"rfeedback{j} mout{j} min{j} {1.0 / span:.17g}" for j in range(held)]
    # The middle outputs are -y, so the positive array is driven through their inverters.
    drivers = ([f"minv{j}" for j in range(held)], [f"mout{j}" for j in range(held)])
    for sign, name in enumerate("pn"):
        cards += _array(f"b{name}", back[sign].T, (outputs, inverted)[sign], means, 0.0, 0.0)
        cards += _array(f"f{name}", forth[sign].T, drivers[sign], inputs, 0.0, 0.0)
        for k in range(n):
            ohm = 1.0 / (larger * damping[sign][k, 0])
            cards.append(f"rd{name}{k} {(outputs, inverted)[sign][k]} in{k} {ohm:.17g}")
    text = _netlist("fused", cards, [f"v(out{k})" for k in range(n)])
    labels = tuple(f"output {k}" for k in range(n))
    return Circuit("fused", text, "V", labels, solved[:, 0] * volt)


def _fine_solution(
    solve: Callable[[InvSpec], np.ndarray], spec: InvSpec, full_scale_v: float
) -> tuple[float, np.ndarray]:
    """Return volts per unit of the solution, and the solution, with converters at their finest.

    Full scale is the largest output without offsets.
    """
    device = spec.device
    fine = dataclasses.replace(spec, dac_bits=_FINE_BITS, adc_bits=_FINE_BITS)
    still = dataclasses.replace(device, opamp=dataclasses.replace(device.opamp, offset_v=0.0))
    largest = np.max(np.abs(solve(dataclasses.replace(fine, device=still))), initial=0.0)
    return float(full_scale_v / (largest or 1.0)), solve(fine)


def _pair_siemens(
    matrix: np.ndarray, spec: InvSpec, seed: int, *address: int | str
) -> tuple[np.ndarray, np.ndarray]:
    """Return what `held_matrix` programs: sign by the pair, magnitudes over all levels."""
    cell = spec.device.inv_cell
    digits, _ = quantize_symmetric(matrix, cell.bits + 1)
    positive, negative = pair_conductances(digits.astype(np.int64), cell, seed, "inv", *address)
    return to_siemens(positive, cell), to_siemens(negative, cell)


def vmm_netlist(siemens: np.ndarray, volts: np.ndarray, wire: WireSpec, title: str) -> str:
    """Return an array whose rows are driven and whose columns are held at ground.

    Parameters
    ----------
    siemens : ndarray
        (K, M) conductances.
    volts : ndarray
        (K,) on the rows' left ends.
    wire : WireSpec
        Ohm per segment.
    title : str
        First line.
    """
    rows, columns = siemens.shape
    driven, read = [f"in{k}" for k in range(rows)], [f"out{m}" for m in range(columns)]
    cards = [f"vin{k} in{k} 0 {volts[k]:.17g}" for k in range(rows)]
    # A source of zero volts is SPICE's ammeter.
    cards += [f"vout{m} out{m} 0 0" for m in range(columns)]
    cards += _array("", siemens, driven, read, wire.row_ohm, wire.column_ohm)
    return _netlist(title, cards, [f"i(vout{m})" for m in range(columns)])


def inv_netlist(
    positive: np.ndarray,
    negative: np.ndarray,
    amperes: np.ndarray,
    opamp: OpAmpSpec,
    wire: WireSpec,
    offset_v: np.ndarray,
    title: str,
) -> str:
    """Return a pair of arrays in the feedback of amplifiers (Sun et al., PNAS 2019).

    Row k ends in the inverting input of amplifier k, whose output drives column k of the positive
    array and, through an ideal inverter, that of the negative one. Drawing the currents i from
    the inputs, the outputs settle at ``(G+ - G-)^-1 i`` for large gain.

    Parameters
    ----------
    positive, negative : ndarray
        (n, n) siemens.
    amperes : ndarray
        (n,) drawn from the inputs.
    opamp : OpAmpSpec
        Gain (none: 1e10) and input conductance.
    wire : WireSpec
        Ohm per segment of both arrays.
    offset_v : ndarray
        (n,) volts.
    title : str
        First line.
    """
    n = len(positive)
    inputs = [f"in{k}" for k in range(n)]
    outputs, inverted = [f"out{k}" for k in range(n)], [f"inv{k}" for k in range(n)]
    cards = [f"i{k} in{k} 0 {amperes[k]:.17g}" for k in range(n)]
    cards += _amplifiers("", opamp, offset_v)
    ohms = (wire.column_ohm, wire.row_ohm)
    cards += _array("p", positive.T, outputs, inputs, *ohms)
    cards += _array("n", negative.T, inverted, inputs, *ohms)
    return _netlist(title, cards, [f"v(out{k})" for k in range(n)])


def ngspice_installed() -> bool:
    """Whether there is an ``ngspice`` to run."""
    return shutil.which("ngspice") is not None


def run_ngspice(text: str) -> np.ndarray:
    """Return the outputs of a netlist of this module by ngspice, (outputs,) float64.

    Raises
    ------
    DataError
        ngspice is not installed, did not find an operating point, or not in ten minutes.
    """
    if not ngspice_installed():
        raise DataError("ngspice is not installed")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "circuit.cir"
        path.write_text(text)
        try:
            done = subprocess.run(
                ["ngspice", "-b", path.name],
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=_LONGEST_RUN_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise DataError(f"ngspice was given up after {_LONGEST_RUN_S:.0f} s") from None
    printed = re.findall(r"^[iv]\(\w+\) = (\S+)$", done.stdout, re.MULTILINE)
    expected = len(re.findall(r"^print ", text, re.MULTILINE))
    if len(printed) != expected:
        last = (done.stderr or done.stdout).strip()[-500:]
        raise DataError(f"ngspice printed {len(printed)} of {expected} outputs: {last}")
    return np.array([float(value) for value in printed])


def _amplifiers(name: str, opamp: OpAmpSpec, offset_v: np.ndarray) -> Iterator[str]:
    """Yield amplifiers with offset, input conductance, and an ideal inverter behind each."""
    # Ideal amplifiers have a gain that no digit of the result shows.
    gain = opamp.gain if opamp.gain is not None else 1e10
    for k, offset in enumerate(offset_v):
        yield f"v{name}off{k} {name}off{k} 0 {offset:.17g}"
        yield f"e{name}amp{k} {name}out{k} 0 {name}off{k} {name}in{k} {gain:.17g}"
        yield f"e{name}inv{k} {name}inv{k} 0 0 {name}out{k} 1"
        if opamp.input_siemens:
            yield f"r{name}in{k} {name}in{k} 0 {1.0 / opamp.input_siemens:.17g}"


def _array(
    name: str,
    siemens: np.ndarray,
    driven: Sequence[str],
    read: Sequence[str],
    driven_ohm: float,
    read_ohm: float,
) -> Iterator[str]:
    """Yield the cells and wires of an array in the geometry of `transfer_matrix`.

    Every cell has a segment of the driven wire before it and one of the read wire behind it.
    """
    rows, columns = siemens.shape
    for k in range(rows):
        for m in range(columns):
            left, below = driven[k], read[m]
            if driven_ohm:
                before = f"{name}d{k}_{m - 1}" if m else driven[k]
                left = f"{name}d{k}_{m}"
                yield f"r{name}d{k}_{m} {before} {left} {driven_ohm:.17g}"
            if read_ohm:
                behind = f"{name}r{k + 1}_{m}" if k + 1 < rows else read[m]
                below = f"{name}r{k}_{m}"
                yield f"r{name}r{k}_{m} {below} {behind} {read_ohm:.17g}"
            if siemens[k, m]:
                yield f"r{name}c{k}_{m} {left} {below} {1.0 / siemens[k, m]:.17g}"


def _netlist(title: str, cards: Sequence[str], outputs: Sequence[str]) -> str:
    control = [".control", "set numdgt=15", "op", *(f"print {name}" for name in outputs)]
    return "\n".join([f"* {title}", *cards, *control, "quit", ".endc", ".end", ""])

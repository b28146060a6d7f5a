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
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from repast_dist.analog.inv import program_inv
from repast_dist.analog.programming import (
    offset_voltages,
    pair_conductances,
    quantize_symmetric,
    to_siemens,
)
from repast_dist.analog.specs import InvSpec, OpAmpSpec, VmmSpec, WireSpec
from repast_dist.analog.vmm import physical_arrays
from repast_dist.analog.wires import transfer_matrix
from repast_dist.errors import DataError

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
    # Without offsets, to know what full scale is worth; converters as fine as they get.
    fine = dataclasses.replace(spec, dac_bits=_FINE_BITS, adc_bits=_FINE_BITS)
    still = dataclasses.replace(device, opamp=dataclasses.replace(device.opamp, offset_v=0.0))
    unshifted = program_inv(matrix, dataclasses.replace(fine, device=still), seed, *address)
    largest = np.max(np.abs(unshifted.solve(right[:, None])), initial=0.0)
    volt = full_scale_v / (largest or 1.0)
    solved = program_inv(matrix, fine, seed, *address).solve(right[:, None])[:, 0]
    # What `program_inv` programs: sign by the pair, magnitudes over all levels.
    digits, scale = quantize_symmetric(matrix, cell.bits + 1)
    pair = pair_conductances(digits.astype(np.int64), cell, seed, "inv", *address)
    positive, negative = (to_siemens(held, cell) for held in pair)
    siemens = (cell.g_on_siemens - cell.g_off_siemens) / (cell.levels - 1) / scale
    text = inv_netlist(
        positive,
        negative,
        right * siemens * volt,
        device.opamp,
        device.wire,
        full_scale_v * offset_voltages(n, device.opamp, seed, *address),
        "inv",
    )
    return Circuit("inv", text, "V", tuple(f"output {k}" for k in range(n)), solved * volt)


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
    # Ideal amplifiers have a gain that no digit of the result shows.
    gain = opamp.gain if opamp.gain is not None else 1e10
    inputs = [f"in{k}" for k in range(n)]
    outputs, inverted = [f"out{k}" for k in range(n)], [f"inv{k}" for k in range(n)]
    cards = []
    for k in range(n):
        cards.append(f"i{k} in{k} 0 {amperes[k]:.17g}")
        cards.append(f"voff{k} off{k} 0 {offset_v[k]:.17g}")
        cards.append(f"eamp{k} out{k} 0 off{k} in{k} {gain:.17g}")
        cards.append(f"einv{k} inv{k} 0 0 out{k} 1")
        if opamp.input_siemens:
            cards.append(f"rin{k} in{k} 0 {1.0 / opamp.input_siemens:.17g}")
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
        ngspice is not installed, or did not find an operating point.
    """
    if not ngspice_installed():
        raise DataError("ngspice is not installed")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "circuit.cir"
        path.write_text(text)
        done = subprocess.run(
            ["ngspice", "-b", path.name],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=_LONGEST_RUN_S,
            check=False,
        )
    printed = re.findall(r"^[iv]\(\w+\) = (\S+)$", done.stdout, re.MULTILINE)
    expected = len(re.findall(r"^print ", text, re.MULTILINE))
    if len(printed) != expected:
        last = (done.stderr or done.stdout).strip()[-500:]
        raise DataError(f"ngspice printed {len(printed)} of {expected} outputs: {last}")
    return np.array([float(value) for value in printed])


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

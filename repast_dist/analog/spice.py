"""Circuits of programmed arrays for ngspice, with the values we calculate beside.

A netlist holds every cell as a resistor, or, where its current is no multiple of the voltage, as a
source that follows its curve, every wire segment, and amplifiers, the inverters among
them, as voltage-controlled sources of finite gain; sources hold the inputs. ``ngspice -b FILE.cir``
prints the operating point, or, of a transient, the outputs at the time when they are read: there
amplifiers have one pole or two, and inputs step up from zero. What converters round, and what
cells fluctuate by from read to read, is left out.
"""

import dataclasses
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from repast_dist.analog.arrays.curve import steeper
from repast_dist.analog.arrays.drivers import driver_gains
from repast_dist.analog.arrays.fused import FusedInv, program_fused
from repast_dist.analog.arrays.held import held_pairs
from repast_dist.analog.arrays.inv import Inverse, OneLoop, program_inv
from repast_dist.analog.arrays.planes import physical_arrays
from repast_dist.analog.arrays.programming import (
    offset_voltages,
    quantize_symmetric,
    to_siemens,
)
from repast_dist.analog.arrays.wires import transfer_matrix
from repast_dist.analog.specs import (
    IDEAL_CONVERTERS,
    LINEAR,
    CurveSpec,
    InvSpec,
    OpAmpSpec,
    VmmSpec,
    WireSpec,
)
from repast_dist.ground.errors import DataError

_LONGEST_RUN_S = 600.0
_FINE_BITS = 24
_TIME_STEPS = 2000
_SMALL_DRIVE = 2.0**-4
_STEP_SHARE = 1e-6
"""Of the time until reading, in which inputs step up."""


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
        How the multiplier is built. Inputs are no digits here: its DACs have a gain alone.
    full_scale_v : float
        Volts.
    seed, *address
        Address of the programming errors.

    Returns
    -------
    list of Circuit
        One per array, columns in their physical order: weight, slice, positive and negative; or
        weight, slice, and behind them the references.
    """
    if vector.shape != weights.shape[:1]:
        raise DataError(f"weights of {weights.shape} take {weights.shape[:1]}, got {vector.shape}")
    volts = full_scale_v * vector / (np.max(np.abs(vector), initial=0.0) or 1.0)
    wire, curve = spec.device.wire, spec.device.curve
    gains = driver_gains((len(weights), weights.shape[1] * spec.slices), spec, seed, *address)
    # Through wires flows what full inputs draw; other inputs are answered by the curve.
    more = steeper(curve, full_scale_v)
    circuits = []
    for array in physical_arrays(weights, spec, seed, *address):
        part = slice(array.first_row, array.first_row + len(array.siemens))
        width = 2 * spec.weight_columns if spec.differential else spec.columns
        side = array.first_column // width
        driven = volts[part] * gains[part, side]
        answered = driven
        if curve.v0_volts is not None:
            answered = curve.v0_volts * np.sinh(driven / curve.v0_volts)
        labels = _column_labels(side, array.siemens.shape[1], spec)
        name = f"vmm_row{array.first_row}_column{array.first_column}"
        circuits.append(
            Circuit(
                name,
                vmm_netlist(array.siemens, driven, wire, name, curve),
                "A",
                labels,
                answered @ transfer_matrix(array.siemens * more, wire) / more,
            )
        )
    return circuits


def _column_labels(side: int, columns: int, spec: VmmSpec) -> tuple[str, ...]:
    """Return what the columns of an array hold, of which so many are to the left of it."""
    first = side * spec.weight_columns
    if not spec.differential:
        places = (divmod(first + column, spec.slices) for column in range(columns - 1))
        return (*(f"weight {weight} slice {part}" for weight, part in places), "references")
    places = (divmod(first + column // 2, spec.slices) for column in range(columns))
    signs = "+-" * columns
    return tuple(
        f"weight {weight} slice {part} {sign}"
        for (weight, part), sign in zip(places, signs, strict=False)
    )


def inv_circuit(
    matrix: np.ndarray,
    right: np.ndarray,
    spec: InvSpec,
    full_scale_v: float,
    seed: int = 0,
    *address: int | str,
    transient: bool = False,
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
        Volts of the largest output, as calculated without offsets and with linear cells.
    seed, *address
        Address of the programming errors.
    transient : bool
        Outputs at the time when they are read, not at rest.

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
    name = "inv_transient" if transient else "inv"
    solution = _Fine.of(
        lambda fine: program_inv(matrix, fine, seed, *address), right, spec, full_scale_v, transient
    )
    positive, negative = _pair_siemens(matrix, spec, seed, *address)
    siemens = cell.span_siemens / (np.max(np.abs(matrix), initial=0.0) or 1.0)
    amplifiers = _Amplifiers(device.opamp, cell.span_siemens, solution.read_s)
    inputs = [f"in{k}" for k in range(n)]
    outputs, inverted = [f"out{k}" for k in range(n)], [f"inv{k}" for k in range(n)]
    cards = _sources(inputs, right * siemens * solution.volt, solution.read_s)
    cards += amplifiers.cards("", *_offsets(n, full_scale_v, spec, seed, *address))
    ohms = (device.wire.column_ohm, device.wire.row_ohm)
    cards += _array("p", positive.T, outputs, inputs, *ohms, device.curve)
    cards += _array("n", negative.T, inverted, inputs, *ohms, device.curve)
    text = _netlist(name, cards, [f"v(out{k})" for k in range(n)], solution.read_s)
    labels = tuple(f"output {k}" for k in range(n))
    return Circuit(name, text, "V", labels, solution.outputs)


def fused_circuit(
    rows: np.ndarray,
    diagonal: np.ndarray,
    right: np.ndarray,
    spec: InvSpec,
    full_scale_v: float,
    seed: int = 0,
    *address: int | str,
    transient: bool = False,
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
    transient : bool
        Outputs at the time when they are read, not at rest.
    """
    device, cell = spec.device, spec.device.inv_cell
    if spec.slices * spec.copies > 1 or not device.wire.ideal:
        raise DataError("a fused circuit has one slice and copy and no resistive wires")
    name = "fused_transient" if transient else "fused"
    solution = _Fine.of(
        lambda fine: program_fused(rows, diagonal, fine, seed, *address),
        right,
        spec,
        full_scale_v,
        transient,
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
    outputs, inverted = [f"out{k}" for k in range(n)], [f"inv{k}" for k in range(n)]
    inputs, means = [f"in{k}" for k in range(n)], [f"min{j}" for j in range(held)]
    amplifiers = _Amplifiers(device.opamp, span, solution.read_s)
    cards = _sources(inputs, right * solution.volt * span / unit**2, solution.read_s)
    offsets = _offsets(n, full_scale_v, spec, seed, *address)
    cards += amplifiers.cards("", *offsets, slower=device.opamp.compensation)
    middle = _offsets(held, full_scale_v, spec, seed, *address, "between")
    cards += amplifiers.cards("m", *middle)
    cards += [f"rfeedback{j} mout{j} min{j} {1.0 / span:.17g}" for j in range(held)]
    # The middle outputs are -y, so the positive array is driven through their inverters.
    drivers = ([f"minv{j}" for j in range(held)], [f"mout{j}" for j in range(held)])
    for sign, part in enumerate("pn"):
        driven = (outputs, inverted)[sign]
        cards += _array(f"b{part}", back[sign].T, driven, means, 0.0, 0.0, device.curve)
        cards += _array(f"f{part}", forth[sign].T, drivers[sign], inputs, 0.0, 0.0, device.curve)
        for k in range(n):
            siemens = larger * damping[sign][k, 0]
            cards.append(_cell(f"d{part}{k}", driven[k], f"in{k}", siemens, device.curve))
    text = _netlist(name, cards, [f"v(out{k})" for k in range(n)], solution.read_s)
    labels = tuple(f"output {k}" for k in range(n))
    return Circuit(name, text, "V", labels, solution.outputs)


@dataclasses.dataclass(frozen=True)
class _Fine:
    """What we calculate of a circuit with converters at their finest.

    Attributes
    ----------
    volt : float
        Volts per unit of the solution; full scale is the largest output without offsets.
    outputs : ndarray
        (n,) volts.
    read_s : float or None
        When they are read; None: at rest.
    """

    volt: float
    outputs: np.ndarray
    read_s: float | None

    @classmethod
    def of(
        cls,
        build: Callable[[InvSpec], Inverse],
        right: np.ndarray,
        spec: InvSpec,
        full_scale_v: float,
        transient: bool,
    ) -> "_Fine":
        def programmed(spec: InvSpec) -> OneLoop:
            array = build(spec)
            assert isinstance(array, OneLoop)
            # What differs from read to read is in no netlist.
            still = dataclasses.replace(array.circuit, read_noise=None)
            return dataclasses.replace(array, circuit=still)

        # A netlist is linear, and its full scale is ours to choose.
        opamp = dataclasses.replace(
            spec.device.opamp, swing_v=None, slew_v_per_s=None, noise_v_per_rthz=0.0
        )
        device = dataclasses.replace(spec.device, opamp=opamp)
        spec, columns = dataclasses.replace(spec, device=device), right[:, None]
        if not programmed(spec).stable:
            raise DataError(
                "this circuit is unstable: its amplifiers run into their rails; valid: a matrix of "
                "a smaller condition number, or cells with smaller errors"
            )
        cycles = _read_cycles(programmed(spec), spec) if transient else None
        fine = dataclasses.replace(
            spec,
            dac_bits=_FINE_BITS,
            adc_bits=_FINE_BITS,
            dac=IDEAL_CONVERTERS,
            adc=IDEAL_CONVERTERS,
            read_cycles=cycles,
        )
        still = dataclasses.replace(spec.device, opamp=dataclasses.replace(opamp, offset_v=0.0))
        without = programmed(dataclasses.replace(fine, device=still)).read(columns).outputs
        volt = float(full_scale_v / (np.max(np.abs(without), initial=0.0) or 1.0))
        array = programmed(fine)
        read_s = None if cycles is None else opamp.seconds(array.settling_cycles)
        if not spec.device.curve.linear:
            array = _driven_to(volt, programmed, fine, right, full_scale_v)
        return cls(volt, array.read(columns).outputs[:, 0] * volt, read_s)


def _driven_to(
    volt: float,
    programmed: Callable[[InvSpec], OneLoop],
    spec: InvSpec,
    right: np.ndarray,
    full_scale_v: float,
) -> OneLoop:
    """Return a circuit whose solutions are driven to so many volts per unit: where cells have a
    curve, what it answers depends on that.
    """

    def with_swing(swing_v: float) -> OneLoop:
        opamp = spec.device.opamp
        offset_v = opamp.offset_v * full_scale_v / swing_v
        opamp = dataclasses.replace(opamp, swing_v=swing_v, offset_v=offset_v)
        device = dataclasses.replace(spec.device, opamp=opamp)
        return programmed(dataclasses.replace(spec, device=device))

    array = with_swing(full_scale_v)
    assert array.circuit.drive is not None
    per_unit = array.circuit.drive * array.circuit.scale
    code = float(np.max(np.abs(right))) / (2 ** (spec.dac_bits - 1) - 1)
    # A small drive of a large swing: nothing saturates.
    swing_v = volt * code / (per_unit * _SMALL_DRIVE)
    circuit = dataclasses.replace(array.circuit, drive=array.circuit.drive * _SMALL_DRIVE)
    return with_swing(swing_v).driven_as(dataclasses.replace(array, circuit=circuit))


def _read_cycles(array: Inverse, spec: InvSpec) -> float:
    if spec.device.opamp.gbw_hz is None:
        raise DataError(
            "device.opamp.gbw_hz=null: amplifiers that are at rest at once have no transient; "
            "valid: a gain-bandwidth product in hertz"
        )
    if spec.read_cycles is not None:
        return spec.read_cycles
    slower = spec.device.opamp.compensation if isinstance(array, FusedInv) else 1.0
    return array.settling_cycles / slower


def _offsets(
    n: int, full_scale_v: float, spec: InvSpec, seed: int, *address: int | str
) -> tuple[np.ndarray, np.ndarray]:
    """Return the offsets of amplifiers and of the inverters behind them, in volts."""
    opamp = spec.device.opamp
    return (
        full_scale_v * offset_voltages(n, opamp, seed, *address),
        full_scale_v * offset_voltages(n, opamp, seed, *address, "inverters"),
    )


def _pair_siemens(
    matrix: np.ndarray, spec: InvSpec, seed: int, *address: int | str
) -> tuple[np.ndarray, np.ndarray]:
    """Return what `hold` programs: sign by the pair, magnitudes over all levels."""
    cell = spec.device.inv_cell
    digits, _ = quantize_symmetric(matrix, cell.bits + 1)
    positive, negative = held_pairs(
        digits.astype(np.int64), spec, seed, *address, use=spec.cell_use
    )
    return to_siemens(positive, cell), to_siemens(negative, cell)


def vmm_netlist(
    siemens: np.ndarray,
    volts: np.ndarray,
    wire: WireSpec,
    title: str,
    curve: CurveSpec = LINEAR,
) -> str:
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
    curve : CurveSpec
        Of cells.
    """
    rows, columns = siemens.shape
    driven, read = [f"in{k}" for k in range(rows)], [f"out{m}" for m in range(columns)]
    cards = [f"vin{k} in{k} 0 {volts[k]:.17g}" for k in range(rows)]
    # A source of zero volts is SPICE's ammeter.
    cards += [f"vout{m} out{m} 0 0" for m in range(columns)]
    cards += _array("", siemens, driven, read, wire.row_ohm, wire.column_ohm, curve)
    return _netlist(title, cards, [f"i(vout{m})" for m in range(columns)])


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
    printed = re.findall(r"^[iv]\(\w+\)(?:\[last\])? = (\S+)$", done.stdout, re.MULTILINE)
    expected = len(re.findall(r"^print ", text, re.MULTILINE))
    if len(printed) != expected:
        last = (done.stderr or done.stdout).strip()[-500:]
        raise DataError(f"ngspice printed {len(printed)} of {expected} outputs: {last}")
    return np.array([float(value) for value in printed])


@dataclasses.dataclass(frozen=True)
class _Amplifiers:
    """Amplifiers of one kind.

    Attributes
    ----------
    opamp : OpAmpSpec
        Gain (none: 1e10), input conductance, and poles.
    siemens : float
        Of either conductance of an inverter.
    read_s : float or None
        None: at rest, where a pole plays no part.
    """

    opamp: OpAmpSpec
    siemens: float
    read_s: float | None

    def cards(
        self, name: str, offset_v: np.ndarray, inverter_v: np.ndarray, slower: float = 1.0
    ) -> list[str]:
        """Return amplifiers ``in -> out``, perhaps slowed down, and inverters ``out -> inv``."""
        cards: list[str] = []
        for k in range(len(offset_v)):
            cards += self._amplifier(f"{name}in{k}", f"{name}out{k}", offset_v[k], slower)
            node = f"{name}ninv{k}"
            cards.append(f"ra{name}{k} {name}out{k} {node} {1.0 / self.siemens:.17g}")
            cards.append(f"rb{name}{k} {name}inv{k} {node} {1.0 / self.siemens:.17g}")
            cards += self._amplifier(node, f"{name}inv{k}", inverter_v[k])
        return cards

    def _amplifier(
        self, at_input: str, output: str, offset_v: float, slower: float = 1.0
    ) -> Iterator[str]:
        # Ideal amplifiers have a gain that no digit of the result shows.
        gain = self.opamp.gain if self.opamp.gain is not None else 1e10
        yield f"voff{output} off{output} 0 {offset_v:.17g}"
        if self.opamp.input_siemens:
            yield f"rin{output} {at_input} 0 {1.0 / self.opamp.input_siemens:.17g}"
        if self.read_s is None:
            yield f"eamp{output} {output} 0 off{output} {at_input} {gain:.17g}"
            return
        # A volt at the input drives an ampere into the pole's capacitor.
        assert self.opamp.gbw_hz is not None
        yield f"gamp{output} 0 pole{output} off{output} {at_input} 1"
        yield f"rpole{output} pole{output} 0 {gain:.17g}"
        farad = slower / (2.0 * np.pi * self.opamp.gbw_hz)
        yield f"cpole{output} pole{output} 0 {farad:.17g}"
        if self.opamp.second_pole_hz is None:
            yield f"ebuf{output} {output} 0 pole{output} 0 1"
            return
        yield f"ebuf{output} first{output} 0 pole{output} 0 1"
        yield f"rsecond{output} first{output} second{output} 1"
        farad = 1.0 / (2.0 * np.pi * self.opamp.second_pole_hz)
        yield f"csecond{output} second{output} 0 {farad:.17g}"
        yield f"eout{output} {output} 0 second{output} 0 1"


def _sources(inputs: Sequence[str], amperes: np.ndarray, read_s: float | None) -> list[str]:
    """Return currents drawn from inputs; in a transient they step up at once."""
    cards = []
    for name, current in zip(inputs, amperes, strict=True):
        drawn = f"{current:.17g}"
        if read_s is not None:
            drawn = f"pwl(0 0 {read_s * _STEP_SHARE:.17g} {current:.17g})"
        cards.append(f"i{name} {name} 0 {drawn}")
    return cards


def _array(
    name: str,
    siemens: np.ndarray,
    driven: Sequence[str],
    read: Sequence[str],
    driven_ohm: float,
    read_ohm: float,
    curve: CurveSpec,
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
                yield _cell(f"{name}c{k}_{m}", left, below, siemens[k, m], curve)


def _cell(name: str, left: str, right: str, siemens: float, curve: CurveSpec) -> str:
    """Return a cell: a resistor, or a source that follows its curve."""
    v0 = curve.v0_volts
    if v0 is None:
        return f"r{name} {left} {right} {1.0 / siemens:.17g}"
    return f"b{name} {left} {right} i={siemens * v0:.17g}*sinh(v({left},{right})/{v0:.17g})"


def _netlist(
    title: str, cards: Sequence[str], outputs: Sequence[str], read_s: float | None = None
) -> str:
    """Return a netlist that prints its outputs at rest, or at the time when they are read."""
    analysis, at = ["op"], ""
    if read_s is not None:
        step = read_s / _TIME_STEPS
        analysis = [
            "option reltol=1e-6",
            f"tran {step:.17g} {read_s:.17g} 0 {step:.17g}",
            "let last=length(time)-1",
        ]
        at = "[last]"
    control = [".control", "set numdgt=15", *analysis, *(f"print {o}{at}" for o in outputs)]
    return "\n".join([f"* {title}", *cards, *control, "quit", ".endc", ".end", ""])

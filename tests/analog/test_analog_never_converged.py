"""No solve counts as converged on an array that is unstable or whose amplifiers saturate.

Small random blocks, formed and fused, on arrays with every effect in turn: errors of cells, cells
with a curve, wires, offsets, noise and second poles of amplifiers, errors of converters. What
amplifiers are at is worked out again for every reading: by NumPy and SciPy in double precision from
the differential equations of the circuit, and with curved cells from the currents of all cells.
"""

import dataclasses
import functools
import os

import numpy as np
import pytest
from scipy.linalg import expm
from scipy.optimize import root

from repast_dist.analog import (
    LOSSLESS,
    SCHEMES,
    CurveSpec,
    DeviceSpec,
    InvSpec,
    OpAmpSpec,
    Reram,
    Rows,
    WireSpec,
    prepare,
)
from repast_dist.analog.arrays import circuit as circuits
from repast_dist.analog.arrays.programming import offset_voltages
from repast_dist.analog.fixed_point import codes_of_columns
from repast_dist.analog.specs import ConverterErrors

SWING_V = 0.5
NEAR = 1e-3
"""Of the swing: closer than this to it, rounding may decide."""
SLOWEST = 1e-4
"""Rate below which a circuit is so close to an unstable one that single precision decides."""


@dataclasses.dataclass
class Block:
    """A block with its arrays and the way it is solved."""

    number: int
    operator: object
    inv: InvSpec
    scheme: object
    right: np.ndarray


def blocks(count, seed):
    """Yield random small blocks with arrays that are more or less off."""
    random = np.random.default_rng(seed)

    def one_of(*choices):
        return choices[int(random.integers(len(choices)))]

    for number in range(count):
        n = int(random.integers(2, 7))
        rows = random.normal(size=(n, int(random.integers(1, 2 * n))))
        damping = 10 ** random.uniform(-4, -1)
        formed = rows @ rows.T / rows.shape[1] + damping * np.eye(n)
        opamp = OpAmpSpec(
            gain=1e4,
            gbw_hz=1e8,
            swing_v=SWING_V,
            drive_tests=one_of(1, 1, 4),
            second_pole_hz=one_of(None, None, None, 5e6, 1e8),
            offset_v=one_of(0.0, 0.0, 0.0, 0.03),
            noise_v_per_rthz=one_of(0.0, 0.0, 0.0, 1e-7),
        )
        device = DeviceSpec(
            inv_cell=Reram(
                bits=int(random.integers(3, 9)),
                programming_sigma=one_of(0.0, 0.05),
                g_on_siemens=35e-6,
                g_off_siemens=0.5e-6,
            ),
            curve=CurveSpec(v0_volts=one_of(None, None, None, 0.25, 0.1)),
            wire=WireSpec(row_ohm=200.0, column_ohm=200.0) if number % 5 == 0 else WireSpec(),
            opamp=opamp,
        )
        off = ConverterErrors(offset_lsb=0.5, gain_error=0.01, inl_lsb=0.3, noise_lsb=0.3)
        errors = {"dac": off, "adc": off} if number % 3 == 0 else {}
        method = one_of("single", "single", "refine", "fcg")
        settings = {"method": method, "target_bits": 6, "array_regularisation": 0.0}
        if method != "single":
            settings["max_iterations"] = 4
        yield Block(
            number,
            formed if number % 7 else Rows(rows, damping),
            InvSpec(device=device, **errors),
            SCHEMES.load(settings),
            random.normal(size=(n, 2)),
        )


class Judge:
    """Works out again what amplifiers are at, reading by reading.

    Attributes
    ----------
    beyond : bool
        Whether an amplifier was beyond its swing in a reading so far.
    """

    def __init__(self, block):
        self.block, self.beyond = block, False

    def look(self, circuit, right, reading):
        """Judge a reading of the right-hand sides (n, r)."""
        spec = self.block.inv
        codes, _ = codes_of_columns(right, spec.dac_bits)
        driven = codes if circuit.converters is None else circuit.converters.driven(codes)
        currents = driven * circuit.scale * circuit.drive
        looked_at = self._amplifiers(circuit, currents)
        if circuit.missing is not None:
            # Inverters are taken to be where outputs say, which they follow with a delay.
            looked_at = looked_at[: len(right)]
        largest = np.abs(looked_at).max(axis=0, initial=0.0)
        if circuit.curved is not None:
            largest = self._curved(circuit, currents, largest)
        noisy = spec.device.opamp.noise_v_per_rthz > 0
        margin = 0.1 if noisy else NEAR
        assert reading.saturated[largest > 1.0 + margin].all()
        exact = circuit.rising is None and circuit.curved is None and not noisy
        if exact:
            assert not reading.saturated[largest < 1.0 - margin].any()
        self.beyond |= bool((largest > 1.0 + margin).any())

    def _amplifiers(self, circuit, currents):
        """Return what all amplifiers are at when they are read, (m, r), with linear cells."""
        loop = circuit.loop
        states = loop.states.astype(float)
        n, m = len(loop.load), len(loop.matrix)
        entering = np.zeros((len(states), currents.shape[1]))
        entering[len(states) - m :][:n] = currents / loop.load[:, None]
        rest = np.linalg.solve(states, entering)
        if circuit.missing is not None:
            rest -= expm(-2.0 * np.pi * circuit.read_cycles * states) @ rest
        offsets = np.zeros(len(states))
        offsets[len(states) - m :] = self._offsets(loop)
        return (rest + np.linalg.solve(states, offsets)[:, None])[:m]

    def _offsets(self, loop):
        """Return the offsets of all amplifiers, (m,)."""
        opamp = self.block.inv.device.opamp
        n = len(loop.load)
        kinds = [(n, ()), (n, ("inverters",))]
        if len(loop.matrix) > 2 * n:
            between = len(loop.matrix) // 2 - n
            kinds = [
                (n, ()),
                (between, ("between",)),
                (n, ("inverters",)),
                (between, ("between", "inverters")),
            ]
        found = [
            offset_voltages(size, opamp, self.block.number, "block", *what) for size, what in kinds
        ]
        # Outer amplifiers of fused circuits are slower, whatever moves them.
        return np.concatenate(found) * loop.speed

    def _curved(self, circuit, currents, linear):
        """Return the largest voltage at rest, (r,), with the currents of every cell; of circuits
        that are not formed, or not found to rest, that of linear cells where it is small.
        """
        curved, droop = circuit.curved, circuit.curved.droop
        v0, m = curved.v0, len(curved.offset)
        if m > currents.shape[0] or circuit.missing is not None:
            return np.minimum(linear, 1.0)

        def into(z, wanted):
            out, inverted = z[:m], z[m:]
            at = curved.offset - droop * out
            behind = curved.inverter_offset - droop * inverted
            cells = curved.positive * v0 * np.sinh((out - at[:, None]) / v0)
            cells += curved.negative * v0 * np.sinh((inverted - at[:, None]) / v0)
            balance = cells.sum(axis=1) - curved.shunt * at - wanted
            load = curved.inverter_load - 2.0
            return np.concatenate([balance, out + inverted - 2 * behind - load * behind])

        largest = np.minimum(linear, 1.0)
        for column in range(currents.shape[1]):
            start = v0 * np.arcsinh(self._amplifiers(circuit, currents)[:m, column] / v0)
            with np.errstate(all="ignore"):
                found = root(
                    functools.partial(into, wanted=currents[:, column]),
                    np.concatenate([start, -start]),
                    tol=1e-11,
                )
            if found.success:
                largest[column] = np.abs(found.x).max()
        return largest


def solve_all(count, seed, monkeypatch):
    """Solve random blocks, judge every reading, and return how many were unstable, saturated,
    saturated although their residual is small, saturated with curved cells, with wires, and with
    errors of converters.
    """
    read, judge = circuits.Circuit.read, None

    def watched(circuit, right, spec):
        reading = read(circuit, right, spec)
        if circuit.rate > SLOWEST:
            judge.look(circuit, right, reading)
        return reading

    monkeypatch.setattr(circuits.Circuit, "read", watched)
    seen = dict.fromkeys(("unstable", "saturated", "deceptive", "curve", "wires", "converters"), 0)
    for block in blocks(count, seed):
        judge = Judge(block)
        solver = prepare(block.operator, LOSSLESS, block.inv, block.scheme, block.number, "block")
        states = solver.array.circuit.loop.states.astype(float)
        slowest = np.linalg.eigvals(states).real.min()
        solution = solver.solve(block.right)
        unstable = slowest < -SLOWEST
        assert solver.stable == (slowest > 0) or abs(slowest) < SLOWEST
        if unstable or judge.beyond or solution.saturated or not solution.stable:
            assert not solution.converged.any()
            assert not solution.usable
        seen["unstable"] += unstable
        seen["saturated"] += judge.beyond
        small = bool((solution.residual <= block.scheme.tolerance).all())
        seen["deceptive"] += judge.beyond and small
        device = block.inv.device
        seen["curve"] += judge.beyond and not device.curve.linear
        seen["wires"] += judge.beyond and not device.wire.ideal
        seen["converters"] += judge.beyond and not block.inv.dac.ideal
    return seen


@pytest.mark.slow
def test_no_solve_on_an_unstable_or_saturated_array_has_converged(monkeypatch):
    seen = solve_all(600, 1, monkeypatch)
    assert min(seen[name] for name in ("unstable", "saturated", "wires", "converters")) > 2


@pytest.mark.slow
def test_of_many_blocks_none_unstable_or_saturated_has_converged(monkeypatch):
    """Of 10,000 with ``REPAST_FUZZ=full``."""
    count = 10_000 if os.environ.get("REPAST_FUZZ") == "full" else 1_500
    seen = solve_all(count, 2, monkeypatch)
    assert seen["unstable"] > 0.03 * count
    assert seen["saturated"] > 0.03 * count
    assert min(seen.values()) > 0.001 * count

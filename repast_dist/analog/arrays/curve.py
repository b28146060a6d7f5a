"""Cells whose current is no multiple of the voltage: ``I = g v0 sinh(V / v0)``.

That is the curve of the filament's gap in Stanford's compact model, whose state multiplies all of
the current (Jiang et al., SISPAD 2014). What is held stays a conductance, that at small voltages.

Multiplying arrays see one voltage per digit of their inputs, and their converters are set by full
ones: with inputs of one bit at a time the curve is a factor that all cells share, while digits in
between are answered as if they were smaller. Wires carry the current of full inputs.

An inverting array rests where the currents into every amplifier's input cancel. With
``x = offset - z / a0`` there and z at the output, ``sinh((z - x) / v0)`` falls apart into products
of functions of z and of x, so that all currents are four products with the cells. The answer is
found from that of linear cells, by steps which would be exact for amplifiers of infinite gain, and
where these do not close in, by Newton's method. How a circuit settles and whether it is stable is
that of small voltages.
"""

import dataclasses
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from scipy.linalg import lu_factor, lu_solve

from repast_dist.analog.specs import CurveSpec, InvSpec

_MOST_STEPS, _NEWTON_AT_ONCE = 24, 8
_CLOSING_IN, _FINER_BITS = 0.5, 8
_FURTHEST = 40.0
"""Multiples of v0 that an iteration looks at; no amplifier gets there."""


def answered(volts: np.ndarray, curve: CurveSpec) -> np.ndarray:
    """Return the current of multiplying cells at voltages of any shape, relative to that of the
    largest digit, whose voltage is 1.
    """
    if curve.v0_volts is None:
        return volts
    full = curve.read_volts / curve.v0_volts
    return np.asarray(np.sinh(full * volts) / np.sinh(full))


def steeper(curve: CurveSpec, volts: float | None = None) -> float:
    """Return the current at a voltage, that of reading by default, over that of linear cells."""
    if curve.v0_volts is None:
        return 1.0
    full = (curve.read_volts if volts is None else volts) / curve.v0_volts
    return float(np.sinh(full) / full)


@dataclasses.dataclass(frozen=True)
class CurvedCircuit:
    """Amplifiers with cells of such a curve between them, each followed by an inverter.

    Voltages are in swings, conductances in any one unit.

    Attributes
    ----------
    positive, negative : ndarray
        (m, m) float64, cells from the outputs of amplifiers, and of the inverters behind them, to
        the inputs of amplifiers.
    feedback, shunt : ndarray
        (m,) linear conductance from an amplifier's output to its input, and from there to ground.
    inverter_load : ndarray
        (m,) all conductance at an inverter's input, in that of either of its two.
    offset, inverter_offset : ndarray
        (m,) of amplifiers and inverters.
    droop : float
        What an output has at the input, ``1 / a0``.
    v0 : float
        Of the curve.
    tolerance : float
        Largest step that is none, relative to the largest output.
    """

    positive: np.ndarray
    negative: np.ndarray
    feedback: np.ndarray
    shunt: np.ndarray
    inverter_load: np.ndarray
    offset: np.ndarray
    inverter_offset: np.ndarray
    droop: float
    v0: float
    tolerance: float

    @classmethod
    def of(
        cls,
        positive: np.ndarray,
        negative: np.ndarray,
        feedback: np.ndarray,
        shunt: np.ndarray,
        inverter_load: np.ndarray,
        offsets: Sequence[np.ndarray],
        spec: InvSpec,
    ) -> "CurvedCircuit | None":
        """Return the circuit for a device; None where amplifiers have no largest output in volts,
        as when nothing is looked at but the circuit at small voltages.

        Parameters
        ----------
        positive, negative, feedback, shunt, inverter_load : ndarray
            As in the class.
        offsets : sequence of ndarray
            Of amplifiers, then of inverters.
        spec : InvSpec
            Curve, amplifiers and converters.
        """
        curve, opamp = spec.device.curve, spec.device.opamp
        if curve.v0_volts is None or opamp.swing_v is None:
            return None
        half = len(offsets) // 2
        return cls(
            positive,
            negative,
            feedback,
            shunt,
            inverter_load,
            np.concatenate(offsets[:half]),
            np.concatenate(offsets[half:]),
            opamp.droop,
            curve.v0_volts / opamp.swing_v,
            2.0 ** -(spec.adc_bits + _FINER_BITS),
        )

    def rest(self, currents: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return where outputs rest.

        Parameters
        ----------
        currents : ndarray
            (n, r) drawn from the inputs of the first n amplifiers.
        start : ndarray
            (m, r) outputs with linear cells.

        Returns
        -------
        outputs : ndarray
            (m, r) of the amplifiers.
        found : ndarray
            (r,) bool; where no rest was found, no output is one.
        """
        outputs = self.v0 * np.arcsinh(start / self.v0)
        drawn = np.zeros_like(outputs)
        drawn[: len(currents)] = currents
        found = np.zeros(outputs.shape[1], bool)
        exact, last = found.copy(), np.full(outputs.shape[1], np.inf)
        # A column is left alone once it is found: what is solved beside it does not change it.
        for _ in range(_MOST_STEPS):
            left = np.flatnonzero(~found)
            if not len(left):
                break
            now = outputs[:, left]
            error = self._unbalanced(now) - drawn[:, left]
            step = np.empty_like(now)
            newton = exact[left]
            if not newton.all():
                guess = lu_solve(self._linear, error[:, ~newton], check_finite=False)
                step[:, ~newton] = guess / np.cosh(now[:, ~newton] / self.v0)
            if newton.any():
                step[:, newton] = self._newton(now[:, newton], error[:, newton])
            step = np.nan_to_num(step)
            now = np.clip(now - step, -_FURTHEST * self.v0, _FURTHEST * self.v0)
            outputs[:, left] = now
            size = np.abs(step).max(axis=0)
            exact[left] |= size > _CLOSING_IN * last[left]
            last[left] = size
            found[left] = size <= self.tolerance * np.abs(now).max(axis=0)
        return outputs, found

    def inverted(self, outputs: np.ndarray) -> np.ndarray:
        """Return the outputs of the inverters behind amplifiers, (m, r)."""
        load = self.inverter_load[:, None]
        raised = load * self.inverter_offset[:, None] - outputs
        return np.asarray(raised / (1.0 + self.droop * load))

    @cached_property
    def _linear(self) -> tuple[np.ndarray, np.ndarray]:
        """LU factors of the circuit with linear cells."""
        given = 1.0 / (1.0 + self.droop * self.inverter_load)
        at_input = (self.positive + self.negative).sum(axis=1) + self.feedback + self.shunt
        own = np.diag(self.feedback + self.droop * at_input)
        factors = lu_factor(self.positive - self.negative * given + own, check_finite=False)
        return factors[0], factors[1]

    def _inputs(self, outputs: np.ndarray) -> np.ndarray:
        inputs: np.ndarray = self.offset[:, None] - self.droop * outputs
        return inputs

    def _unbalanced(self, outputs: np.ndarray) -> np.ndarray:
        """Return the currents into the inputs, (m, r), when outputs are at (m, r)."""
        inverted, inputs = self.inverted(outputs), self._inputs(outputs)
        into = np.cosh(inputs / self.v0) * self._through(np.sinh, outputs, inverted)
        into -= np.sinh(inputs / self.v0) * self._through(np.cosh, outputs, inverted)
        into *= self.v0
        into += self.feedback[:, None] * (outputs - inputs) - self.shunt[:, None] * inputs
        return np.asarray(into)

    def _through(self, curve: np.ufunc, outputs: np.ndarray, inverted: np.ndarray) -> np.ndarray:
        direct = self.positive @ curve(outputs / self.v0)
        return np.asarray(direct + self.negative @ curve(inverted / self.v0))

    def _newton(self, outputs: np.ndarray, error: np.ndarray) -> np.ndarray:
        """Return Newton's steps, (m, r)."""
        inverted, inputs = self.inverted(outputs), self._inputs(outputs)
        given = 1.0 / (1.0 + self.droop * self.inverter_load)
        steps = np.empty_like(outputs)
        own = np.arange(len(outputs))
        for first in range(0, outputs.shape[1], _NEWTON_AT_ONCE):
            part = slice(first, first + _NEWTON_AT_ONCE)
            x = inputs[:, part].T[:, :, None]
            direct, behind = (
                cells * np.cosh((at[:, part].T[:, None, :] - x) / self.v0)
                for cells, at in ((self.positive, outputs), (self.negative, inverted))
            )
            at_input = (direct + behind).sum(axis=2) + self.feedback + self.shunt
            slopes = direct - behind * given
            slopes[:, own, own] += self.feedback + self.droop * at_input
            try:
                steps[:, part] = np.linalg.solve(slopes, error[:, part].T[:, :, None])[:, :, 0].T
            except np.linalg.LinAlgError:
                steps[:, part] = np.nan
        return steps

"""The circuit of an inverting array: what it settles to, when, and what is read from it."""

import dataclasses
from functools import cached_property
from typing import Protocol

import numpy as np
from scipy.linalg import get_lapack_funcs

from repast_dist.analog.arrays.converters import InvConverters
from repast_dist.analog.arrays.curve import CurvedCircuit
from repast_dist.analog.arrays.drive import found_drive, ranged_columns
from repast_dist.analog.arrays.dynamics import PROBE_CYCLES, Loop, settling_cycles
from repast_dist.analog.fixed_point import codes_of_columns
from repast_dist.analog.kernels.noise import addressed_normal
from repast_dist.analog.kernels.whole import FixedMatrix, hold_for_codes
from repast_dist.analog.specs import InvSpec
from repast_dist.ground.rng import generator

_FEW_BITS = 12
"""Of converters, up to which single precision is plenty for what is between them."""

_BYTE_BITS = 8
"""Of codes that a matrix unit takes as they are."""

_FAR_POLE = 8.0
"""Multiples of the gain-bandwidth product beyond which a second pole is far."""


@dataclasses.dataclass(frozen=True)
class Reading:
    """What a settling gives.

    Attributes
    ----------
    outputs : ndarray
        (n, r) the answers.
    saturated : ndarray
        (r,) bool, whether an amplifier's output is beyond its swing when it is read, or would not
        rest, or was beyond it on the way to an early reading.
    """

    outputs: np.ndarray
    saturated: np.ndarray


@dataclasses.dataclass(frozen=True)
class Circuit:
    """What amplifiers and conductances settle to, and what is read from them.

    Attributes
    ----------
    inverse : ndarray
        (n, n) what codes are multiplied with to get where outputs rest: the inverse of the
        circuit's matrix over `scale`. Settlings are many, and a product is faster than a solve.
    scale : float
        Largest entry of the circuit's matrix.
    offset : ndarray
        (n,) what constant currents add to full-scale outputs.
    raised : ndarray
        (m,) what offsets of the amplifiers behind these add to them.
    loop : Loop
        The amplifiers.
    rate : float
        The loop's; not positive: unstable.
    read_cycles : float
        When outputs are read, in multiples of the time 1 / gain-bandwidth; infinite where the
        loop is unstable and never rests.
    missing : ndarray or None
        (n, n) what settled outputs are multiplied with to get what they lack when they are read;
        None: they have settled.
    early : ndarray
        (n, n) what codes are multiplied with to get outputs when they are read.
    read_noise : ReadNoise or None
        Of its cells.
    drive : float or None
        Swings of an output per unit of the circuit's matrix and code of an input; None: outputs
        have no limit.
    amplifier_noise : AmplifierNoise or None
        Of its amplifiers.
    curved : CurvedCircuit or None
        Where it rests with the curve of its cells; None: they are linear, or nothing is driven.
    converters : InvConverters or None
        What converts its inputs and outputs, where that does more than round.
    rising : ndarray or None
        (times, n, n) what settled outputs are multiplied with to get where they are on the way;
        None: outputs have no limit, or have settled when they are read.
    """

    inverse: np.ndarray
    scale: float
    offset: np.ndarray
    raised: np.ndarray
    loop: Loop
    rate: float
    read_cycles: float
    missing: np.ndarray | None
    early: np.ndarray
    read_noise: "ReadNoise | None" = None
    drive: float | None = None
    amplifier_noise: "AmplifierNoise | None" = None
    curved: CurvedCircuit | None = None
    converters: InvConverters | None = None
    rising: np.ndarray | None = None

    @classmethod
    def of(
        cls,
        loop: Loop,
        offset_v: np.ndarray,
        spec: InvSpec,
        read_noise: "ReadNoise | None" = None,
        key: np.uint64 | None = None,
        curved: CurvedCircuit | None = None,
        converters: InvConverters | None = None,
    ) -> "Circuit":
        """Work out what a programmed circuit does.

        Parameters
        ----------
        loop : Loop
            The amplifiers.
        offset_v : ndarray
            (m,) their offsets, relative to full-scale outputs.
        spec : InvSpec
            Converters, amplifiers and the time of reading.
        read_noise : ReadNoise, optional
            Of the cells.
        key : uint64, optional
            Of the draws of the amplifiers' noise, where they have any.
        curved : CurvedCircuit, optional
            Where it rests, where its cells have a curve.
        converters : InvConverters, optional
            Of its inputs and outputs, where these do more than round.
        """
        matrix = loop.at_rest
        largest = float(np.max(np.abs(matrix), initial=0.0))
        scale = largest if largest > 0 else 1.0
        few = max(spec.dac_bits, spec.adc_bits) <= _FEW_BITS
        precision = np.float32 if few else np.float64
        inverse = _inverse((matrix / scale).astype(precision))
        offset, raised = np.zeros(len(matrix)), np.zeros(len(offset_v))
        if offset_v.any():
            raised = loop.raised(offset_v)
            offset = _applied(inverse, loop.currents(offset_v) / scale)
        # Far poles are large numbers in the loop, beside whose roundings its slow modes get lost.
        far = loop.second_pole is not None and loop.second_pole > _FAR_POLE
        loop = loop.astype(np.float64 if far else precision)
        opamp, at_times = spec.device.opamp, None
        if spec.read_cycles is not None and None not in (opamp.swing_v, opamp.gbw_hz):
            at_times = loop.left_at_doubling_times(spec.read_cycles)
        probe = loop.left_of_all(PROBE_CYCLES) if at_times is None else at_times[PROBE_CYCLES]
        rate = loop.rate_of(probe)
        cycles, missing = spec.read_cycles, None
        if cycles is None or not rate > 0:
            slew = spec.device.opamp.slew
            cycles = settling_cycles(rate, spec.adc_bits) + (1.0 / slew if slew else 0.0)
        elif spec.device.opamp.gbw_hz is not None:
            missing = loop.missing(cycles, probe)
        with np.errstate(all="ignore"):
            early = inverse if missing is None else inverse - missing @ inverse
        circuit = cls(
            inverse,
            scale,
            offset,
            raised,
            loop,
            rate,
            cycles,
            missing,
            early,
            read_noise,
            converters=converters,
        )
        if spec.device.opamp.swing_v is None or not rate > 0:
            return circuit
        slowest = scale * (2 ** (spec.dac_bits - 1) - 1) / float(loop.load.min())
        if at_times is not None:
            circuit = dataclasses.replace(circuit, rising=loop.rising(at_times, cycles))
        drive = found_drive(
            circuit._tested, loop.steady, loop.steady @ offset + raised, slowest, spec
        )
        density, noise = spec.device.opamp.noise_density, None
        if density is not None and key is not None:
            noise = AmplifierNoise(np.sqrt(density) * loop.noise_root(cycles), key)
        return dataclasses.replace(circuit, drive=drive, amplifier_noise=noise, curved=curved)

    def read(self, right: np.ndarray, spec: InvSpec) -> Reading:
        """Drive, wait and read for every right-hand side, (n, r).

        An unstable circuit runs into its rails, which say nothing of the answer: zeros are
        returned for it.
        """
        none = np.zeros(right.shape[1], bool)
        if not self.rate > 0:
            return Reading(np.zeros_like(right), none)
        codes, step = codes_of_columns(right, spec.dac_bits)
        driven = codes if self.converters is None else self.converters.driven(codes)
        driven = self._driven(driven, codes)
        if self.drive is None:
            outputs = self._early_outputs(driven, codes, spec)
            if self.offset.any():
                outputs += self.offset[:, None] * np.max(np.abs(outputs), axis=0, initial=0.0)
            read, level = codes_of_columns(outputs, spec.adc_bits)
            if self.converters is not None:
                read = self.converters.read(outputs / level, spec.adc_bits, codes)
                step = np.where(codes.any(axis=0), step, 0.0)
            return Reading(read * (level * (step / self.scale)), none)
        beyond = none
        if self.curved is None:
            outputs = self._early_outputs(driven, codes, spec)
            outputs *= self.drive
            outputs += self.offset[:, None]
            if self.rising is not None:
                settled = _applied(self.inverse, driven)
                settled *= self.drive
                settled += self.offset[:, None]
                beyond = self._beyond_on_the_way(settled)
        else:
            settled = _applied(self.inverse, driven)
            outputs, beyond = self._curved_outputs(self.curved, settled * self.drive)
        if self.amplifier_noise is not None:
            outputs += self.amplifier_noise.drawn(codes)
        amplifiers = outputs
        if self.curved is None:
            amplifiers = self.loop.steady @ outputs + self.raised[:, None]
        beyond = beyond | ~(np.abs(amplifiers) <= 1.0).all(axis=0)
        np.clip(outputs, -1.0, 1.0, out=outputs)
        read, level = ranged_columns(outputs, spec.adc_bits)
        if self.converters is not None:
            read = self.converters.read(outputs / level, spec.adc_bits, codes)
        # What amplifiers give without any input is not taken for an answer.
        step = np.where(codes.any(axis=0), step, 0.0)
        return Reading(read * (level * (step / (self.scale * self.drive))), beyond)

    def _tested(self, codes: np.ndarray) -> tuple[np.ndarray, float]:
        """Return what outputs are at when they are read, (n, r), with linear cells and without
        offsets, and the largest on the way there.
        """
        driven, way = self._driven(codes, codes), 0.0
        if self.rising is not None:
            settled = _applied(self.inverse, driven)
            way = float(np.abs(self.rising @ settled).max(initial=0.0))
        return _applied(self.early, driven), way

    @cached_property
    def _most_on_the_way(self) -> float:
        """No output is larger on the way than so many times the largest at rest."""
        assert self.rising is not None
        return float(np.abs(self.rising).sum(axis=2).max(initial=0.0))

    def _beyond_on_the_way(self, settled: np.ndarray) -> np.ndarray:
        """Return whether an output is beyond its swing on the way to rest, (r,) bool."""
        beyond = np.zeros(settled.shape[1], bool)
        assert self.rising is not None
        some = np.abs(settled).max(axis=0, initial=0.0) * self._most_on_the_way > 1.0
        if some.any():
            on_the_way = np.abs(self.rising @ settled[:, some])
            beyond[some] = (on_the_way > 1.0).any(axis=(0, 1))
        return beyond

    @cached_property
    def _early_of_codes(self) -> FixedMatrix | None:
        """What codes are multiplied with where a matrix unit does it."""
        return hold_for_codes(self.early, _BYTE_BITS)

    def _early_outputs(self, driven: np.ndarray, codes: np.ndarray, spec: InvSpec) -> np.ndarray:
        """Return what outputs are at when they are read, (n, r), of what drives them; where that is
        codes of few bits, and a matrix unit is there, to 32 bits of their range, rounded once.
        """
        few = spec.dac_bits <= _BYTE_BITS and spec.adc_bits <= _FEW_BITS
        held = self._early_of_codes if driven is codes and few else None
        return _applied(self.early, driven) if held is None else held.multiply(codes)

    def _driven(self, driven: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Return what drives outputs, (n, r), when inputs of such codes are driven so: fluctuating
        cells add to the currents, as if inputs were others.
        """
        if self.read_noise is None:
            return driven
        settled = _applied(self.inverse, driven)
        return driven + self.read_noise.currents(settled, codes) / self.scale

    def _curved_outputs(
        self, curved: CurvedCircuit, linear: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return what outputs are at when they are read, (n, r) in swings, offsets included, and
        whether an amplifier rests beyond its swing, or nowhere.

        Parameters
        ----------
        curved : CurvedCircuit
            The circuit.
        linear : ndarray
            (n, r) in swings, where outputs would rest with linear cells.
        """
        currents = self.loop.at_rest @ linear
        start = (self.loop.steady @ linear)[: len(curved.offset)]
        rest, found = curved.rest(currents, start)
        within = (np.abs(rest) <= 1.0).all(axis=0)
        within &= (np.abs(curved.inverted(rest)) <= 1.0).all(axis=0)
        outputs = rest[: len(linear)]
        if self.rising is not None:
            within &= ~self._beyond_on_the_way(outputs)
        offset = self.offset[:, None]
        if self.missing is not None:
            outputs = outputs - self.missing @ (outputs - offset)
        return outputs, ~(found & within)


class ReadNoise(Protocol):
    """What fluctuating cells add to the currents."""

    def currents(self, outputs: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Return currents (n, r), in units of matrix times outputs.

        Parameters
        ----------
        outputs : ndarray
            (n, r) that drive the cells.
        codes : ndarray
            (n, r) inputs as converted; they address the draws, so that these depend neither on
            the order of the solves nor on which are done together. The same input draws the same.
        """


@dataclasses.dataclass(frozen=True)
class CellNoise:
    """Read noise of one array, to first order: independent in every cell and settling.

    Attributes
    ----------
    sigma : float
        Standard deviation of an entry of the matrix.
    key : uint64
        Of the draws.
    """

    sigma: float
    key: np.uint64

    @classmethod
    def of(
        cls, matrix: np.ndarray, spec: InvSpec, seed: int, *address: int | str
    ) -> "CellNoise | None":
        """Return the noise of the cells a matrix is programmed on, if they have any."""
        cell = spec.device.inv_cell
        if not cell.read_spread:
            return None
        # Both cells of a pair fluctuate, whatever they hold; copies average it.
        largest = float(np.max(np.abs(matrix), initial=0.0))
        sigma = cell.read_spread * largest * float(np.sqrt(2.0 / spec.copies))
        key = generator(seed, "read", "inv", *address).bit_generator.random_raw()
        return cls(sigma, np.uint64(key))

    def currents(self, outputs: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Return what the cells add to the currents of their rows, (n, r)."""
        return self.drawn(len(outputs), outputs, codes)

    def drawn(self, rows: int, outputs: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Return the same for an array of any number of rows, (rows, r)."""
        return addressed_normal(self.key, rows, codes) * (
            self.sigma * np.linalg.norm(outputs, axis=0)
        )


@dataclasses.dataclass(frozen=True)
class AmplifierNoise:
    """White noise of all amplifiers at their inputs, as outputs have it when they are read.

    Attributes
    ----------
    root : ndarray
        (n, n) in swings, times its transpose the covariance of outputs.
    key : uint64
        Of the draws.
    """

    root: np.ndarray
    key: np.uint64

    def drawn(self, codes: np.ndarray) -> np.ndarray:
        """Return what outputs have of it, (n, r): the same for the same codes (n, r)."""
        noise: np.ndarray = self.root @ addressed_normal(self.key, len(self.root), codes)
        return noise


def noise_key(spec: InvSpec, seed: int, *address: int | str) -> np.uint64 | None:
    """Return the key of the draws of amplifiers' noise, where they have any."""
    if spec.device.opamp.noise_density is None:
        return None
    return np.uint64(generator(seed, "amplifiers", *address).bit_generator.random_raw())


def _inverse(matrix: np.ndarray) -> np.ndarray:
    """Return the inverse in the same precision; NaN where the matrix is singular."""
    factor, invert, size = get_lapack_funcs(("getrf", "getri", "getri_lwork"), (matrix,))
    factors, pivots, failed = factor(matrix.T, overwrite_a=1)
    if not failed:
        work = int(size(len(matrix))[0].real)
        inverse, failed = invert(factors, pivots, lwork=work, overwrite_lu=1)
    return np.full_like(matrix, np.nan) if failed else np.asarray(inverse.T)


def _applied(matrix: np.ndarray, currents: np.ndarray) -> np.ndarray:
    # A singular circuit saturates; the residual of the answer will tell.
    with np.errstate(all="ignore"):
        applied = (matrix @ currents.astype(matrix.dtype)).astype(np.float64)
        return applied if np.isfinite(applied).all() else np.nan_to_num(applied)

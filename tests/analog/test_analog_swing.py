"""What amplifiers can give: how strongly inputs are driven, and what is beyond."""

import dataclasses

import numpy as np
import pytest
import scipy

from repast_dist.analog import (
    LOSSLESS,
    SCHEMES,
    DeviceSpec,
    InvSpec,
    OpAmpSpec,
    Reram,
    prepare,
    program_inv,
)
from repast_dist.analog.arrays.fused import program_fused
from repast_dist.analog.arrays.held import hold

SWING_V = 0.5


def _inv(sigma=0.01, bits=8, **more):
    fields = {field.name for field in dataclasses.fields(OpAmpSpec)}
    opamp = {name: more.pop(name) for name in list(more) if name in fields}
    cell = Reram(bits=bits, programming_sigma=sigma, g_on_siemens=35e-6, g_off_siemens=0.5e-6)
    opamp = OpAmpSpec(**({"gain": 1e4, "gbw_hz": 1e8, "swing_v": SWING_V} | opamp))
    return InvSpec(device=DeviceSpec(inv_cell=cell, opamp=opamp), size=1024, **more)


def _spd(n, condition, seed=0):
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))
    return (q * np.geomspace(1.0, 1.0 / condition, n)) @ q.T


def _largest_output(circuit, inputs):
    """Return the largest output in swings that inputs of up to full scale, (n, r), make."""
    settled = np.linalg.solve(circuit.loop.at_rest.astype(np.float64) / circuit.scale, inputs)
    return np.abs(settled).max() * circuit.drive * 127


@pytest.mark.parametrize("condition", [2.0, 10.0, 40.0])
@pytest.mark.parametrize("n", [5, 40, 120])
def test_inputs_are_driven_as_strongly_as_the_swing_allows_within_a_factor(n, condition):
    circuit = program_inv(_spd(n, condition), _inv(0.002), 1, "x").circuit
    assert np.frexp(circuit.drive)[0] == 0.5
    random = np.random.default_rng(2).uniform(-1, 1, size=(n, 500))
    assert _largest_output(circuit, random) <= 1.0
    # Of all inputs these make the largest output, one each.
    worst = np.sign(np.linalg.inv(circuit.loop.at_rest)).T
    assert 0.5 < _largest_output(circuit, worst) < 2.5


def test_more_tests_find_an_output_at_least_as_large():
    matrix = _spd(30, 40.0)
    drives = [
        program_inv(matrix, _inv(drive_tests=tests), 1, "x").circuit.drive for tests in (1, 3, 12)
    ]
    assert drives[0] >= drives[1] >= drives[2]


def test_answers_are_those_without_a_limit_to_a_bit_of_the_converter():
    matrix, right = _spd(40, 10.0), np.random.default_rng(1).normal(size=(40, 50))
    limited = program_inv(matrix, _inv(), 1, "x").read(right)
    free = program_inv(matrix, _inv(swing_v=None), 1, "x").read(right)
    assert not limited.saturated.any()
    step = np.abs(free.outputs).max(axis=0) / 127
    assert (np.abs(limited.outputs - free.outputs).max(axis=0) <= 1.5 * step + 1e-12).all()


def test_outputs_beyond_the_swing_are_cut_off_and_named():
    array = program_inv(_spd(20, 10.0), _inv(), 1, "x")
    inverse = np.linalg.inv(array.circuit.loop.at_rest)
    largest = _largest_output(array.circuit, np.sign(inverse[:, 3:4]))
    loud = dataclasses.replace(array.circuit, drive=array.circuit.drive * 1.3 / largest)
    array = dataclasses.replace(array, circuit=loud)
    right = np.stack([np.sign(inverse[3]), np.eye(20)[0], np.zeros(20)], axis=1)
    free = program_inv(_spd(20, 10.0), _inv(swing_v=None), 1, "x").read(right)
    reading = array.read(right)
    assert reading.saturated.tolist() == [True, False, False]
    assert np.abs(reading.outputs[:, 0]).max() < 0.9 * np.abs(free.outputs[:, 0]).max()
    assert not reading.outputs[:, 2].any()


@pytest.mark.slow
@pytest.mark.parametrize("pole_hz", [3e7, 5e7])
def test_outputs_beyond_the_swing_on_the_way_to_an_early_reading_are_named(pole_hz):
    """Ringing outputs by NumPy's eigenvectors, of which the simulator looks at a few times."""
    spec = _inv(second_pole_hz=pole_hz, read_cycles=12.0)
    array = program_inv(_spd(12, 3.0), spec, 1, "x")
    circuit, states = array.circuit, array.circuit.loop.states.astype(np.float64)
    right = np.random.default_rng(7).uniform(-1, 1, size=(12, 1000))
    right /= np.abs(right).max(axis=0)
    rest = np.linalg.solve(circuit.loop.at_rest.astype(np.float64) / circuit.scale, right) * 127
    rest = np.vstack([circuit.loop.steady.astype(np.float64) @ rest] * 2)
    rates, modes = np.linalg.eig(states)
    parts = np.linalg.solve(modes, rest.astype(complex))
    way = [
        rest - (modes @ (np.exp(-2 * np.pi * rates * time)[:, None] * parts)).real
        for time in np.linspace(0.0, 12.0, 1201)
    ]
    peaks = np.abs(np.array(way)[:, :12]).max(axis=(0, 1))
    ends = np.maximum(np.abs(way[-1][:24]).max(axis=0), np.abs(rest).max(axis=0))
    ringing = np.flatnonzero(peaks > 1.23 * ends)
    assert len(ringing)
    for column in ringing:
        for above, named in ((1.22, True), (0.98, False)):
            driven = dataclasses.replace(circuit, drive=above / peaks[column])
            reading = dataclasses.replace(array, circuit=driven).read(right[:, [column]])
            assert reading.saturated[0] == named
    # The controller, which tests its arrays, leaves room for most.
    assert array.read(right).saturated.mean() < 0.1


def test_amplifiers_between_fused_arrays_saturate_too():
    rows = np.random.default_rng(3).uniform(size=(40, 6))
    array = program_fused(rows, np.full(40, 50.0), _inv(), 1, "x")
    loop, drive = array.circuit.loop, array.circuit.drive
    inputs = np.random.default_rng(4).uniform(-0.2, 1, size=(40, 200))
    inputs *= np.random.default_rng(5).choice([-1.0, 1.0], size=(40, 200)) ** (np.arange(200) % 2)
    inputs /= np.abs(inputs).max(axis=0)
    outputs = np.linalg.solve(loop.at_rest.astype(np.float64) / array.circuit.scale, inputs)
    between = np.abs(loop.steady[40:46] @ outputs).max(axis=0) * drive * 127
    saturated = array.read(inputs).saturated
    assert np.abs(outputs).max() * drive * 127 < 1.0
    # Inputs are rounded to codes, which may move what is at the very limit.
    clear = np.abs(between - 1.0) > 0.03
    assert (saturated == (between > 1.0))[clear].all()
    assert 20 < saturated.sum() < 180


def test_offsets_count_against_the_swing():
    matrix, right = _spd(30, 20.0), np.random.default_rng(1).normal(size=(30, 4))
    quiet, off = (
        prepare(matrix, LOSSLESS, _inv(offset_v=offset), SCHEMES.load({"method": "fcg"}), 1, "x")
        for offset in (0.0, 0.5)
    )
    assert not quiet.solve(right).saturated
    solution = off.solve(right)
    assert solution.saturated
    assert not solution.converged.any()
    assert not solution.usable


def _slewing(matrix, spec, right, drive, seed, until, slew):
    """Return times and outputs in swings of amplifiers that move no faster than they can."""
    n, gain = len(matrix), spec.device.opamp.gain
    cells = hold(matrix, spec, seed, "x")
    currents = right / np.abs(right).max() * drive

    def slope(_, state):
        outputs, inverted = state[:n], state[n:]
        into = cells.positive @ outputs + cells.negative @ inverted - currents
        change = np.concatenate(
            [into / cells.load + outputs / gain, (outputs + inverted) / 2 + inverted / gain]
        )
        return np.clip(-2 * np.pi * change, -slew, slew)

    times = np.linspace(0.0, until, 400)
    found = scipy.integrate.solve_ivp(
        slope, (0, until), np.zeros(2 * n), rtol=1e-8, atol=1e-9, max_step=0.1, t_eval=times
    )
    return times, found.y[:n].T


@pytest.mark.parametrize("slew_v_per_s", [2e6, 2e7])
def test_what_is_read_early_was_driven_so_that_no_amplifier_slews(slew_v_per_s):
    matrix, right = _spd(8, 6.0), np.random.default_rng(1).normal(size=8)
    fine = {"dac_bits": 24, "adc_bits": 24, "read_cycles": 3.0}
    spec = _inv(gain=1e3, slew_v_per_s=slew_v_per_s, **fine)
    array = program_inv(matrix, spec, 1, "x")
    free = program_inv(matrix, _inv(gain=1e3, **fine), 1, "x")
    assert array.circuit.drive < free.circuit.drive
    # Codes of inputs over their largest, and conductances over the largest of the circuit.
    drive = array.circuit.drive * (2**23 - 1) * array.circuit.scale
    read = array.read(right[:, None]).outputs[:, 0]
    for factor, close in ((1.0, True), (40.0, False)):
        _, outputs = _slewing(matrix, spec, right, factor * drive, 1, 3.0, spec.device.opamp.slew)
        at_reading = outputs[-1] / (factor * drive) * np.abs(right).max()
        off = np.abs(at_reading - read).max() / np.abs(read).max()
        assert (off < 1e-5) == close


@pytest.mark.parametrize("condition", [3.0, 10.0])
@pytest.mark.parametrize("slew_v_per_s", [5e6, 1e8])
def test_amplifiers_that_slew_have_settled_when_they_are_read(slew_v_per_s, condition):
    matrix = _spd(8, condition)
    spec = _inv(gain=1e3, slew_v_per_s=slew_v_per_s)
    array = program_inv(matrix, spec, 1, "x")
    drive = array.circuit.drive * 127 * array.circuit.scale
    extra = array.settling_cycles - program_inv(matrix, _inv(gain=1e3), 1, "x").settling_cycles
    assert extra == pytest.approx(SWING_V / slew_v_per_s * 1e8)
    for seed in range(3):
        right = np.random.default_rng(seed).normal(size=8)
        until = 2.0 * array.settling_cycles
        times, outputs = _slewing(matrix, spec, right, drive, 1, until, spec.device.opamp.slew)
        off = np.abs(outputs - outputs[-1]).max(axis=1) / np.abs(outputs[-1]).max()
        # Modes that are not orthogonal may add up to a little more than half a step.
        assert off[np.searchsorted(times, array.settling_cycles)] < 2.0 / 254


def test_a_slew_rate_without_volts_is_refused():
    with pytest.raises(ValueError, match="swing_v"):
        OpAmpSpec(gbw_hz=1e8, slew_v_per_s=1e8)


def test_an_aged_array_is_driven_as_it_was_when_it_was_programmed():
    young, old = (program_inv(_spd(20, condition), _inv(), 1, "x") for condition in (30.0, 3.0))
    assert young.circuit.drive != old.circuit.drive
    later = old.driven_as(young)
    assert later.circuit.drive == young.circuit.drive
    np.testing.assert_array_equal(later.held, old.held)

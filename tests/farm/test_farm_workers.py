"""Workers that do steps together: in threads, over real connections, without Ray."""

import concurrent.futures
import dataclasses
import functools

import numpy as np
import pytest

from repast_dist.farm.certificate import RunCertificate
from repast_dist.farm.failures import PeersLost
from repast_dist.farm.inprocess import InProcessFarm
from repast_dist.farm.peers import NoPeers, SocketPeers
from repast_dist.farm.records import WorkerAnswer
from repast_dist.farm.setup import beginning, make_setup
from repast_dist.farm.worker import ChipWorker
from repast_dist.ground.errors import DataError, FarmError
from repast_dist.settings import load_settings
from repast_dist.studies.settings import training_job

SMALL = (
    "model=digits_mlp", "soi.block_size=24", "soi.interval=2", "train.micro_batch_size=8",
    "train.batch_size=32",
    "model.layers=[{kind: flatten}, {kind: dense, name: dense1, outputs: 24}, {kind: relu}, "
    "{kind: dense, name: dense2, outputs: 10}]",
)  # fmt: skip
STEPS = 5


def setup_of(groups, *settings):
    loaded = load_settings([*SMALL, f"farm.chips={sum(map(len, groups.values()))}", *settings])
    return make_setup(training_job(loaded), loaded.dataset.load(), groups)


@pytest.fixture
def together():
    """Make workers of a plan that are connected, and call a method on all of them at once."""
    pools, opened = [], []

    def make(setup, groups):
        peers = {worker: SocketPeers("127.0.0.1", 20.0) for worker in groups}
        endpoints = {worker: own.endpoint for worker, own in peers.items()}
        certificate = RunCertificate.make()
        pool = concurrent.futures.ThreadPoolExecutor(len(groups))
        pools.append(pool)
        opened.extend(peers.values())
        for joined in [
            pool.submit(own.connect, worker, endpoints, certificate, 20.0)
            for worker, own in peers.items()
        ]:
            joined.result()
        workers = {h: ChipWorker(tuple(chips), setup, peers[h]) for h, chips in groups.items()}

        def call(method, *args):
            return [pool.submit(getattr(worker, method), *args) for worker in workers.values()]

        return workers, call

    yield make
    for own in opened:
        own.close()
    for pool in pools:
        pool.shutdown()


@functools.cache
def alone(*settings):
    setup = setup_of({0: [0]}, *settings)
    worker = ChipWorker((0,), setup, NoPeers())
    worker.restore(0, beginning(setup).arrays)
    worker.advance(0, STEPS)
    return worker.common_state() | worker.block_state()


@pytest.mark.parametrize(
    "groups", [{0: [0], 1: [1]}, {0: [0], 2: [1], 5: [2]}, {0: [0, 1], 1: [2]}], ids=str
)
def test_workers_end_with_the_bits_of_one_alone(together, groups):
    setup = setup_of(groups)
    workers, call = together(setup, groups)
    for done in call("restore", 0, beginning(setup).arrays):
        done.result()
    # Steps in calls of any length are the same steps.
    answers = [
        done.result() for first, count in ((0, 2), (2, 3)) for done in call("advance", first, count)
    ]
    assert sum(len(answer.steps) for answer in answers) == STEPS * len(groups)
    assert len({answer.weights for answer in answers}) == 2
    wanted = alone()
    common = [worker.common_state() for worker in workers.values()]
    held = {
        name: value for worker in workers.values() for name, value in worker.block_state().items()
    }
    for state in common:
        found = state | held
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_a_worker_goes_on_from_the_state_of_others(together):
    groups = {0: [0], 1: [1]}
    setup = setup_of(groups)
    workers, call = together(setup, groups)
    for done in call("restore", 0, beginning(setup).arrays):
        done.result()
    for done in call("advance", 0, 3):
        done.result()
    state = workers[0].common_state() | workers[0].block_state() | workers[1].block_state()
    single = ChipWorker((0,), setup_of({0: [0]}), NoPeers())
    single.restore(3, state)
    single.advance(3, STEPS - 3)
    for name, value in alone().items():
        found = single.common_state() | single.block_state()
        np.testing.assert_array_equal(found[name], value, err_msg=name)


DIFFERING = (
    "chip.adc.offset_lsb=0.3",
    "chip.adc.gain_error=0.01",
    "chip.adc.inl_lsb=0.3",
    "chip.adc.noise_lsb=0.3",
    "chip.dac.gain_error=0.01",
    "chip.dac.noise_lsb=0.02",
)


@pytest.mark.parametrize(
    "on", ["previous_step", pytest.param("first_step", marks=pytest.mark.slow)]
)
def test_converters_that_differ_compute_the_same_in_any_worker(together, on):
    groups, settings = {0: [0], 2: [1]}, (*DIFFERING, f"chip.adc.calibrated_on={on}")
    setup = setup_of(groups, *settings)
    workers, call = together(setup, groups)
    for done in call("restore", 0, beginning(setup).arrays):
        done.result()
    for done in call("advance", 0, 1):
        done.result()
    first = workers[0].common_state()
    for done in call("advance", 1, STEPS - 1):
        done.result()
    wanted = alone(*settings)
    for worker in workers.values():
        found = worker.common_state()
        for name, value in found.items():
            np.testing.assert_array_equal(value, wanted[name], err_msg=name)
    ranges = {name for name in first if name.startswith("ranges/")}
    assert {"ranges/forward dense1 weights", "ranges/factor dense1 errors"} <= ranges
    kept = [np.array_equal(first[name], wanted[name]) for name in ranges]
    assert all(kept) if on == "first_step" else not all(kept)


def test_only_the_first_step_runs_a_micro_batch_for_its_ranges():
    setup = setup_of({0: [0]})
    worker = ChipWorker((0,), setup, NoPeers())
    worker.restore(0, beginning(setup).arrays)
    answer = worker.advance(0, 3)
    assert ["calibrate" in step.busy_s for step in answer.steps] == [True, False, False]
    rows = answer.costs.rows.to_pylist()
    forward = [row["step"] for row in rows if row["op"] == "vmm_forward"]
    layers, batches = len(setup.network.model.products), setup.job.train.micro_batches
    counts = [forward.count(step) for step in range(3)]
    assert counts == [layers * (batches + 1), layers * batches, layers * batches]


class LosesOthersOnce(NoPeers):
    """Peers that are lost when the first sums are exchanged."""

    lost = False

    def receive(self, step, tag):
        if tag == "sums" and not self.lost:
            self.lost = True
            raise PeersLost([1])
        return super().receive(step, tag)


def test_a_first_step_that_was_given_up_leaves_nothing_in_the_ranges_of_the_next_try():
    setup = setup_of({0: [0]})
    worker = ChipWorker((0,), setup, LosesOthersOnce())
    worker.restore(0, beginning(setup).arrays)
    with pytest.raises(PeersLost):
        worker.advance(0, STEPS)
    worker.restore(0, beginning(setup).arrays)
    worker.advance(0, STEPS)
    found, expected = worker.common_state() | worker.block_state(), alone()
    assert {name: value.tobytes() for name, value in found.items()} == {
        name: value.tobytes() for name, value in expected.items()
    }


OWN = (
    "device.variation.die_sigma=0.05",
    "device.previous_writes=3e8",
    *(
        f"device.{cell}.{name}"
        for cell in ("cell", "inv_cell")
        for name in ("drift_exponent=0.05", "drift_start_s=1e-6", "endurance_sigma=0.5")
    ),
)


def test_chips_that_differ_and_age_compute_the_same_in_any_worker(together):
    groups = {0: [0, 1], 1: [2]}
    whole = ChipWorker((0, 1, 2), setup_of({0: [0, 1, 2]}, *OWN), NoPeers())
    whole.restore(0, beginning(setup_of({0: [0]})).arrays)
    whole.advance(0, STEPS)
    wanted = whole.common_state()
    assert any(np.any(value != alone()[name]) for name, value in wanted.items())
    # Step 3 comes in the middle of an interval: blocks go on as old as they were.
    setup = setup_of(groups, *OWN)
    assert setup.schedule.step_s > 0
    workers, call = together(setup, groups)
    state = beginning(setup).arrays
    for first, count in ((0, 3), (3, STEPS - 3)):
        for worker in workers.values():
            worker.reassign(setup)
        for done in call("restore", first, state):
            done.result()
        for done in call("advance", first, count):
            done.result()
        state = workers[0].common_state()
        for worker in workers.values():
            state |= worker.block_state()
    for name, value in wanted.items():
        np.testing.assert_array_equal(state[name], value, err_msg=name)
    found = [worker.evaluate([0], 16) for worker in workers.values()]
    assert found == [whole.evaluate([0], 16)] * 2


def test_a_step_out_of_turn_is_refused():
    setup = setup_of({0: [0]})
    worker = ChipWorker((0,), setup, NoPeers())
    worker.restore(0, beginning(setup).arrays)
    worker.advance(0, 1)
    with pytest.raises(FarmError, match="worker 0 is at step 1, it was asked for 0"):
        worker.advance(0, 1)


def test_what_one_worker_finds_wrong_frees_the_others(together):
    groups = {0: [0], 1: [1]}
    setup = setup_of(groups)
    inputs = setup.data.train_inputs.copy()
    inputs[:] = np.nan
    spoilt = dataclasses.replace(setup, data=dataclasses.replace(setup.data, train_inputs=inputs))
    workers, call = together(setup, groups)
    workers[1].reassign(spoilt)
    for done in call("restore", 0, beginning(setup).arrays):
        done.result()
    first, second = call("advance", 0, 2)
    with pytest.raises(DataError, match="chip 1"):
        second.result(timeout=20)
    with pytest.raises(PeersLost, match="worker 1"):
        first.result(timeout=20)


def test_workers_that_no_longer_agree_on_the_weights_end_the_run(train, monkeypatch):
    """As they would on nodes that round differently."""
    get = InProcessFarm.get

    def get_from_two(self, refs):
        answers = get(self, refs)
        if isinstance(answers[0], WorkerAnswer):
            other = answers[0].weights ^ 1
            answers.append(dataclasses.replace(answers[0], weights=other))
        return answers

    monkeypatch.setattr(InProcessFarm, "get", get_from_two)
    with pytest.raises(FarmError, match="no longer hold the same weights"):
        train(*SMALL, "farm.backend=inprocess", "train.max_steps=2")

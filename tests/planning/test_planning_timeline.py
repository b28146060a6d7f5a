"""What chips agree on about a step: when the exchange of gradients begins, and what it adds."""

import numpy as np
import pytest

from repast_dist.ops import Segment
from repast_dist.planning.timeline import agree


def seconds(computed, exchanged):
    """Return (chips, segments) of chips that compute and exchange gradients, nothing else."""
    found = np.zeros((len(computed), len(Segment)))
    found[:, Segment.COMPUTE.number] = computed
    found[:, Segment.REDUCE_GRADIENTS.number] = exchanged
    return found


def test_what_is_exchanged_while_all_compute_adds_nothing_to_the_step():
    clock = agree(seconds([10.0, 10.0], 4.0), np.array([3.0, 3.0]))
    assert clock.added_s.sum() == 11.0
    assert clock.begins(100.0)[Segment.REDUCE_GRADIENTS.number] == 107.0
    assert clock.begins(100.0)[Segment.REDUCE_FACTORS.number] == 111.0


def test_a_chip_without_samples_does_not_delay_the_exchange():
    clock = agree(seconds([10.0, 0.0], 4.0), np.array([3.0, 0.0]))
    assert clock.added_s.sum() == 11.0


def test_the_exchange_waits_for_the_chip_whose_gradients_come_last():
    clock = agree(seconds([10.0, 9.0], 4.0), np.array([3.0, 0.0]))
    assert clock.begins(0.0)[Segment.REDUCE_GRADIENTS.number] == 9.0
    assert clock.added_s.sum() == 13.0


def test_steps_are_agreed_on_one_by_one():
    both = np.stack([seconds([10.0, 10.0], 4.0), seconds([10.0, 12.0], 4.0)])
    clock = agree(both, np.array([[3.0, 3.0], [0.0, 0.0]]))
    assert clock.added_s.sum(axis=1).tolist() == [11.0, 16.0]
    assert clock.early_s[:, 0].tolist() == [3.0, 0.0]


@pytest.mark.parametrize("hidden", [0.0, 3.0, 4.0, 5.5])
def test_factors_follow_gradients_while_all_compute(hidden):
    """Ten seconds of computing, four of exchanging gradients and two of factors, one of solving."""
    busy = seconds([10.0, 10.0], 4.0)
    busy[:, Segment.REDUCE_FACTORS.number] = 2.0
    busy[:, Segment.RENEW_AND_SOLVE_G.number] = 1.0
    clock = agree(busy, np.full(2, hidden))
    assert (clock.added_s >= 0).all()
    assert clock.added_s.sum() == 17.0 - hidden
    begins = dict(zip(Segment, clock.begins(0.0), strict=False))
    assert begins[Segment.REDUCE_GRADIENTS] == 10.0 - hidden
    assert begins[Segment.REDUCE_FACTORS] == 14.0 - hidden
    assert begins[Segment.RENEW_AND_SOLVE_G] == 16.0 - hidden


@pytest.mark.parametrize(
    ("behind", "stale", "step_s"),
    [([8.0, 5.0], 1, 12.0), ([20.0, 5.0], 1, 23.0), ([20.0, 5.0], 2, 12.0), ([30.0, 0.0], 2, 21.0)],
)
def test_what_is_done_beside_the_next_steps_is_waited_for_if_it_takes_longer(behind, stale, step_s):
    """Ten seconds of computing and two of solving; reducing factors takes three, renewing the
    blocks of the busiest chip the rest. It has `stale` steps of twelve seconds.
    """
    busy, beside = np.zeros((2, 2, len(Segment)))
    busy[:, Segment.COMPUTE.number] = 10.0
    busy[:, Segment.RENEW_AND_SOLVE_G.number] = [2.0, 1.0]
    beside[:, Segment.REDUCE_FACTORS.number] = 3.0
    beside[:, Segment.RENEW_AND_SOLVE_G.number] = behind
    clock = agree(busy, np.zeros(2), beside, stale)
    assert clock.added_s.sum() == pytest.approx(step_s)
    assert clock.added_s[Segment.COMPUTE.number] == 10.0


def simulated(busy, passing, writing, reached, steps=200):
    """Return the time from one step to the next after many of them, from the events one by one.

    A step begins when the samples of the one before have passed and weights are written; a layer
    that computes with weights d steps older than the newest has samples only once the update of
    d + 1 steps before is there. Updates are made one after the other.
    """
    computing, updating = busy[Segment.COMPUTE.number], busy[1:].sum()
    begun, updated = [0.0], [computing + updating]
    for step in range(1, steps):
        start = begun[-1] + passing + writing
        for delay, arrives in enumerate(reached):
            if step - 1 - delay >= 0:
                start = max(start, updated[step - 1 - delay] - arrives)
        begun.append(start)
        updated.append(max(start + computing, updated[-1]) + updating)
    return (begun[-1] - begun[steps // 2]) / (steps - 1 - steps // 2)


@pytest.mark.parametrize("seed", range(40))
def test_steps_that_begin_early_follow_each_other_as_events_say(seed):
    random = np.random.default_rng(seed)
    busy = np.zeros(len(Segment))
    segments = [Segment.COMPUTE, Segment.REDUCE_GRADIENTS, Segment.SOLVE_A, Segment.WRITE_WEIGHTS]
    for segment in segments:
        busy[segment.number] = random.exponential()
    passing = busy[0] * random.uniform(0.1, 1.0)
    some = random.random(3) < [0.7, 0.7, 1.0]
    reached = np.where(some, busy[0] * random.uniform(0, 0.5, 3), np.inf)
    clock = agree(busy[None], np.zeros(1), flow_s=np.array([passing]), reached_s=reached[None])
    wanted = simulated(busy, passing, busy[Segment.WRITE_WEIGHTS.number], reached)
    assert clock.added_s.sum() == pytest.approx(wanted, rel=1e-6)
    assert (clock.added_s <= clock.span_s + 1e-12).all()
    assert (clock.added_s >= 0).all()
    begins = clock.begins(7.0)
    assert begins[-1] == pytest.approx(7.0 + wanted)
    assert begins[1] == pytest.approx(7.0 + busy[0])

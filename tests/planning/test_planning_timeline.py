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
    assert clock.early_s.tolist() == [3.0, 0.0]


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

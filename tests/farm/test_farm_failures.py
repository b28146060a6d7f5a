"""The failure policy, without a cluster."""

from repast_dist.farm.failures import WorkersLost, decide
from repast_dist.farm.specs import FarmSpec

SPEC = FarmSpec(max_worker_failures=2, max_recoveries=5)


def test_a_worker_that_failed_seldom_is_started_anew():
    decision = decide({1}, {0, 2}, {1: 1}, recoveries=0, spec=SPEC)
    assert (decision.revive, decision.retire, decision.stop) == ((1,), (), None)


def test_a_worker_that_fails_again_and_again_is_retired():
    decision = decide({1, 2}, {0}, {1: 3, 2: 1}, recoveries=3, spec=SPEC)
    assert (decision.revive, decision.retire) == ((2,), (1,))


def test_the_run_stops_when_no_worker_would_be_left():
    assert "max_worker_failures=2" in decide({0}, set(), {0: 3}, recoveries=3, spec=SPEC).stop


def test_all_workers_lost_at_once_are_all_started_anew():
    assert decide({0, 1}, set(), {0: 1, 1: 1}, recoveries=0, spec=SPEC).revive == (0, 1)


def test_the_run_stops_after_too_many_recoveries():
    assert "max_recoveries=5" in decide({0}, {1}, {0: 1}, recoveries=5, spec=SPEC).stop


def test_a_lost_connection_between_living_workers_is_called_that():
    assert str(WorkersLost([], "worker 1: reset")) == (
        "a connection between workers lost: worker 1: reset"
    )
    assert str(WorkersLost([3, 1], "died")) == "workers [1, 3] lost: died"

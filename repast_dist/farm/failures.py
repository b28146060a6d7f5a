"""Decide what to do when workers are lost, from the failures so far alone."""

import dataclasses
from collections.abc import Collection, Mapping

from repast_dist.farm.specs import FarmSpec


class WorkersLost(Exception):
    """Workers did not answer; `workers` are their numbers, `reason` is what Ray reported."""

    def __init__(self, workers: Collection[int], reason: str) -> None:
        # All processes may live where only a connection between two of them failed.
        what = f"workers {sorted(workers)} lost" if workers else "a connection between workers lost"
        super().__init__(f"{what}: {reason}")
        self.workers = tuple(sorted(workers))
        self.reason = reason


class PeersLost(Exception):
    """A worker could not finish a step because the workers it names are gone or silent."""


@dataclasses.dataclass(frozen=True)
class Decision:
    """The decision of the failure policy: which workers to start anew or retire, or to stop.

    Attributes
    ----------
    revive : tuple of int
        Lost workers to start anew.
    retire : tuple of int
        Lost workers to leave out from now on; their work moves to the others.
    stop : str or None
        Why the run has to end, if it has to.
    """

    revive: tuple[int, ...] = ()
    retire: tuple[int, ...] = ()
    stop: str | None = None


def decide(
    lost: Collection[int],
    alive: Collection[int],
    failures: Mapping[int, int],
    recoveries: int,
    spec: FarmSpec,
) -> Decision:
    """Choose between starting lost workers anew, retiring them and giving up.

    Parameters
    ----------
    lost, alive : collection of int
        Worker numbers; `lost` failed just now, `alive` answered.
    failures : mapping
        Worker -> how often it has failed, this time included.
    recoveries : int
        Recoveries done so far in this run, this one not included.
    """
    if recoveries >= spec.max_recoveries:
        return Decision(
            stop=f"{recoveries} recoveries done, farm.max_recoveries={spec.max_recoveries} reached"
        )
    retire = tuple(h for h in sorted(lost) if failures.get(h, 0) > spec.max_worker_failures)
    revive = tuple(h for h in sorted(lost) if h not in retire)
    if not revive and not alive:
        return Decision(
            stop="every worker failed more than "
            f"farm.max_worker_failures={spec.max_worker_failures} times"
        )
    return Decision(revive=revive, retire=retire)

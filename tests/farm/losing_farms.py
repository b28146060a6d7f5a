"""Farms in one process that lose their worker, or end the run."""

from typing import ClassVar

from repast_dist.farm.failures import WorkersLost
from repast_dist.farm.inprocess import InProcessFarm
from repast_dist.ground.errors import FarmError

LOST, ENDED = WorkersLost([0], "as the test wants it"), FarmError("as the test wants it")


class Failing(InProcessFarm):
    """Fails when steps are waited for."""

    at: ClassVar[dict[int, Exception]]
    """How often steps were waited for, and what is raised then."""
    advances = 0

    def get(self, answers):
        if answers[0].pending.func.__name__ == "advance":
            self.advances += 1
            if self.advances in self.at:
                raise self.at[self.advances]
        return super().get(answers)


class Ends(Failing):
    """Ends the run with an error in the fourth step."""

    at: ClassVar = {4: ENDED}


class Loses(Failing):
    """Loses its worker in the second step."""

    at: ClassVar = {2: LOST}


class LosesAndEnds(Failing):
    """Loses its worker in the second step, and ends the run with an error in the third."""

    at: ClassVar = {2: LOST, 4: ENDED}

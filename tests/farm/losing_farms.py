"""Farms in one process that lose their worker, or end the run."""

from repast_dist.farm.failures import WorkersLost
from repast_dist.farm.inprocess import InProcessFarm
from repast_dist.ground.errors import FarmError


class Ends(InProcessFarm):
    """Ends the run with an error in the fourth step."""

    advances = 0

    def get(self, answers):
        if answers[0].pending.func.__name__ == "advance":
            self.advances += 1
            if self.advances == 4:
                raise FarmError("as the test wants it")
        return super().get(answers)


class Loses(InProcessFarm):
    """Loses its worker in the second step."""

    advances = 0

    def get(self, answers):
        if answers[0].pending.func.__name__ == "advance":
            self.advances += 1
            if self.advances == 2:
                raise WorkersLost([0], "as the test wants it")
        return super().get(answers)


class LosesAndEnds(InProcessFarm):
    """Loses its worker in the second step, and ends the run with an error in the third."""

    advances = 0

    def get(self, answers):
        if answers[0].pending.func.__name__ == "advance":
            self.advances += 1
            if self.advances == 2:
                raise WorkersLost([0], "as the test wants it")
            if self.advances == 4:
                raise FarmError("as the test wants it")
        return super().get(answers)

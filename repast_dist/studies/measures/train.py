"""Train a network and take its last epoch."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from repast_dist.ground.spec import spec
from repast_dist.studies.measure import MEASURES, Measure, Watch
from repast_dist.studies.study import TRAINING

if TYPE_CHECKING:
    from repast_dist.studies.settings import RunSettings


@MEASURES.register
@spec
class TrainMeasure(Measure):
    """Loss, accuracy, simulated time and energy of a training run; all chips in one process."""

    kind: Literal["train"] = "train"
    reads: ClassVar[tuple[str, ...]] = (*TRAINING, "farm.chips", "farm.chip_overrides")
    units: ClassVar[Mapping[str, str]] = {
        "test_accuracy": "fraction",
        "time_s": "s",
        "energy_j": "J",
        "missed": "fraction",
    }

    def record(self, settings: "RunSettings") -> dict[str, Any]:
        """Train, and return the figures of the last epoch and of all solves."""
        return self.watched(settings, lambda epoch, found: None)

    def watched(self, settings: "RunSettings", watch: Watch) -> dict[str, Any]:
        """Train as `record` does, and tell the losses of every epoch."""
        from repast_dist.studies.convergence.training import convergence_point
        from repast_dist.studies.settings import training_job

        found = convergence_point(settings.dataset.load(), training_job(settings), watch)
        last = found["epochs"][-1] if found["epochs"] else {}
        names = ("train_loss", "test_loss", "test_accuracy", "time_s", "energy_j")
        solves = ("missed", "median_residual", "rounds")
        return {
            **{name: last.get(name) for name in names},
            "steps": found["steps"],
            **{name: found["solves"].get(name) for name in solves},
            "ended": found["diverged"] or "",
        }

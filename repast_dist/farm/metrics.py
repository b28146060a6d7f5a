"""Publish the progress of a run as Ray metrics, which Prometheus and Ray's dashboard can read.

A cluster that is started for the run collects them if it has a dashboard.
They are for watching a run while it goes on; simulated time and energy belong to the trace.
"""

from collections.abc import Mapping

from ray.util.metrics import Gauge

DESCRIPTIONS = {
    "steps": "training steps done",
    "loss": "loss of the last batch",
    "inversion_residual": "largest relative residual of the last step's solves",
    "simulated_seconds_per_second": "simulated seconds per wall second, last step",
    "restarts": "recoveries from lost workers so far",
}


class RunMetrics:
    """Gauges named ``repast_<name>``; Ray puts ``ray_`` before them."""

    def __init__(self) -> None:
        self._gauges = {
            name: Gauge(f"repast_{name}", description=text) for name, text in DESCRIPTIONS.items()
        }

    def publish(self, values: Mapping[str, float]) -> None:
        """Set gauges.

        Parameters
        ----------
        values : mapping
            Name from `DESCRIPTIONS` -> value.
        """
        for name, value in values.items():
            self._gauges[name].set(value)

"""Runs as event files of TensorBoard: ``tensorboard --logdir runs`` finds them."""

from pathlib import Path
from typing import ClassVar

from repast_dist.ground.files import TENSORBOARD, replaced
from repast_dist.studies.exports.base import Exporter
from repast_dist.studies.exports.curves import RunCurves


class TensorboardFiles(Exporter):
    """Writes ``tensorboard/`` into the run directory.

    Curves and key figures are scalars (in SI units), settings are hyperparameters, and the answer
    is a text.
    """

    extra: ClassVar[str] = "tensorboard"

    def modules(self) -> tuple[str, ...]:
        """Return the modules that it imports."""
        return ("tensorboard",)

    def write(self, run: RunCurves) -> str:
        """Write the folder at once, in place of the one before."""
        folder = run.folder / TENSORBOARD
        with replaced(folder) as aside:
            _write(aside, run)
        return str(folder)


def _write(folder: Path, run: RunCurves) -> None:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import summary_v2 as hparams
    from tensorboard.plugins.text.metadata import create_summary_metadata
    from tensorboard.summary.writer.event_file_writer import EventFileWriter
    from tensorboard.util.tensor_util import make_tensor_proto

    writer = EventFileWriter(str(folder))

    def add(summary: Summary, step: int, at_s: float) -> None:
        writer.add_event(Event(step=step, wall_time=at_s, summary=summary))

    try:
        plain = {
            name: value if isinstance(value, bool | int | float | str) else str(value)
            for name, value in run.settings.items()
        }
        add(hparams.hparams_pb(plain, trial_id=run.folder.name), 0, run.began_s)
        for point in run.points:
            value = Summary.Value(tag=point.curve, simple_value=point.value)
            add(Summary(value=[value]), point.step, point.at_s)
        last = max((point.step for point in run.points), default=0)
        for name, (number, unit) in run.figures.items():
            value = Summary.Value(tag=f"figure/{name}", simple_value=number)
            value.metadata.summary_description = unit
            value.metadata.plugin_data.plugin_name = "scalars"
            add(Summary(value=[value]), last, run.ended_s)
        text = Summary.Value(
            tag="answer",
            tensor=make_tensor_proto([run.answer.encode()]),
            metadata=create_summary_metadata("answer", ""),
        )
        add(Summary(value=[text]), last, run.ended_s)
    finally:
        writer.close()

"""Ask a question of your own: what changes, what is measured, what is shown."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from annotated_types import MinLen

from repast_dist.ground.spec import spec
from repast_dist.studies.measure import MEASURES, Measure
from repast_dist.studies.study import STUDIES, TRAINING, WORKERS, PointStudy, Variants

if TYPE_CHECKING:
    from rich.console import Console

    from repast_dist.studies.settings import RunSettings


@spec
class SweepChart:
    """A picture of the sweep's table.

    Attributes
    ----------
    kind : {"line", "bars", "heat_map"}
        Kind of plot.
    x, y : str
        Columns: ``variant``, the dotted path of an axis, or what is measured.
    value : str
        Column of the colours of a heat map.
    series : str
        Column that separates curves; "" draws one.
    title : str
        Heading; empty: what is drawn over what.
    log_x, log_y : bool
        Logarithmic axes.
    """

    kind: Literal["line", "bars", "heat_map"] = "line"
    x: str
    y: str
    value: str = ""
    series: str = ""
    title: str = ""
    log_x: bool = False
    log_y: bool = False


@STUDIES.register
@spec
class SweepStudy(PointStudy):
    """Measure every variant at every point of the axes; the question is the YAML file.

    Attributes
    ----------
    question : str
        Heading of the page.
    measure : Measure
        What is measured at a point: ``kind`` cost, train or solve, or one of your own.
    variants : dict
        Name -> settings that differ, as dotted path -> value. A group replaces the group.
    axes : dict
        Dotted path -> values; every combination is measured.
    columns : tuple of str
        Measured columns that are kept; empty: all.
    best : str or None
        The column that decides which point is best; None: none is.
    goal : {"lowest", "highest"}
        Which values of it are good.
    charts : tuple of SweepChart
        What is drawn.
    """

    name: Literal["sweep"] = "sweep"
    reads: ClassVar[tuple[str, ...]] = (
        *WORKERS, *TRAINING, "workload", "farm.chips", "farm.chip_overrides",
    )  # fmt: skip
    question: str = "Sweep"
    measure: Annotated[Measure, MEASURES.choice()]
    variants: Variants = dataclasses.field(default_factory=dict)
    axes: dict[str, Annotated[tuple[Any, ...], MinLen(1)]] = dataclasses.field(default_factory=dict)
    columns: tuple[str, ...] = ()
    best: str | None = None
    goal: Literal["lowest", "highest"] = "lowest"
    charts: tuple[SweepChart, ...] = ()

    def answer(self, settings: "RunSettings", run_dir: Path | None, console: "Console") -> Path:
        """Measure all points, write the table and draw it."""
        from repast_dist.studies.sweep import run

        return run(self, settings, run_dir, console)

    def ignores(self, settings: "RunSettings") -> Mapping[str, str]:
        """Return what the measure does not read."""
        reads = self.measure.reads
        if "model" in reads and settings.model.needs_data:
            reads = (*reads, "dataset", "seed")
        unread = [
            name
            for name in (*TRAINING, "workload")
            if not any(read == name or read.startswith(f"{name}.") for read in reads)
        ]
        return dict.fromkeys(
            unread, f"study.measure.kind={self.measure.kind} needs none of it; valid: another kind"
        )

"""``study=export-perfetto study.run=RUN_DIR``: writes the trace for Perfetto and Chrome."""

from pathlib import Path

from rich.console import Console

from repast_dist.ground.files import TRACE
from repast_dist.studies.kinds.export_perfetto import ExportPerfettoStudy
from repast_dist.studies.settings import RunSettings
from repast_dist.studies.stored import run_to_read
from repast_dist.trace import read_trace
from repast_dist.trace.perfetto import export_perfetto


def run(
    study: ExportPerfettoStudy, settings: RunSettings, run_dir: Path | None, console: Console
) -> Path:
    """Write ``trace.perfetto.json.gz`` into the run directory."""
    run_dir = run_to_read(study.run, settings.run_root, console)
    path = run_dir / "trace.perfetto.json.gz"
    trace = read_trace(run_dir / TRACE)
    written = export_perfetto(trace, path, max_events=study.rows)
    if written < trace.num_rows:
        console.print(
            f"The first {written:,} of {trace.num_rows:,} rows, as study.rows={study.rows} says",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    console.print(
        f"Open in ui.perfetto.dev or chrome://tracing: {path}", markup=False, soft_wrap=True
    )
    return run_dir

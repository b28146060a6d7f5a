"""The report of one training run, from ``result.json`` and the trace alone."""

from pathlib import Path

from repast_dist.ground.files import REPORT
from repast_dist.report.page import Page, Section, write_page
from repast_dist.report.run import head
from repast_dist.report.run.chips import chips
from repast_dist.report.run.costs import costs
from repast_dist.report.run.facts import plan, provenance
from repast_dist.report.run.inversion import inversion
from repast_dist.report.run.training import training
from repast_dist.report.run_data import RunData, load_run
from repast_dist.trace.query import totals


def write_run_report(run_dir: Path) -> Path:
    """Write ``report.html`` into a run directory.

    Parameters
    ----------
    run_dir : Path
        Holds ``result.json``, ``trace/`` and, for second-order runs, ``solves/``.

    Returns
    -------
    Path
        The report.

    Raises
    ------
    RunDirectoryError
        Something it reads is missing or damaged.
    """
    run = load_run(run_dir)
    path = run_dir / REPORT
    write_page(run_page(run), path)
    return path


def run_page(run: RunData) -> Page:
    """Return the page of one run."""
    total = totals(run.trace)
    sections = [
        Section("Training", training(run)),
        Section(
            "Where time and energy go",
            costs(run, total),
            "Simulated time and energy on the chips. A phase takes as long as its slowest chip; "
            "energies add up over chips.",
        ),
        Section("Chips", chips(run, total)),
    ]
    if run.solves.num_rows:
        sections.append(
            Section(
                "Inversion",
                inversion(run),
                "Each Kronecker factor is split into SOI blocks; every block is solved on its "
                "chip's INV and VMM crossbars. Iterations restore the precision that the 8-bit "
                "INV circuit does not have.",
            )
        )
    sections.append(Section("Network, plan and events", plan(run)))
    sections.append(Section("Settings, sources and versions", provenance(run)))
    return Page(
        title=head.title(run),
        subtitle=f"repast_dist · {run.folder.name} · {run.result.get('status', '')}",
        answer=head.answer(run, total),
        sections=[section for section in sections if section.parts],
        key_figures=head.key_figures(run, total),
        notes=[*head.warnings(run), *head.idle_chips(run), *head.ideal_effects(run)],
    )

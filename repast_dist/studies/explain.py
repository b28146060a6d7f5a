"""``study=explain`` lists the parts of a chip with count, area, power, share and source."""

import dataclasses
from pathlib import Path

from rich.console import Console

from repast_dist.hardware.hardware import Hardware
from repast_dist.report.console import print_table
from repast_dist.report.page import KeyFigure
from repast_dist.report.study_page import Chart, StudyPage, StudySection
from repast_dist.report.units import si
from repast_dist.studies.costing import table
from repast_dist.studies.kinds.explain import ExplainStudy
from repast_dist.studies.output import finish
from repast_dist.studies.settings import RunSettings


def explain(hardware: Hardware) -> StudyPage:
    """Return the tree of a chip.

    Parameters
    ----------
    hardware : Hardware
        The chip and what its parts cost.
    """
    chip, costs, rows = hardware.chip, hardware.costs, hardware.tree
    area, power = sum(row.area_m2 for row in rows), sum(row.power_w for row in rows)
    assumed = sum(row.power_w for row in rows if row.confidence == "C")
    units = {
        "area_m2": "m2",
        "power_w": "W",
        "area_share": "fraction",
        "power_share": "fraction",
        "energy_j": "J",
        "time_s": "s",
    }
    hierarchy = [
        {"level": "chip", "of": "1", "count": 1, "cells": chip.cells},
        {"level": "tile", "of": "chip", "count": chip.tiles, "cells": chip.cells // chip.tiles},
        {
            "level": "bank",
            "of": "tile",
            "count": chip.banks_per_tile,
            "cells": chip.cells // chip.banks,
        },
        {
            "level": "multiplying array",
            "of": "bank",
            "count": chip.vmm.arrays_per_bank,
            "cells": chip.vmm.cells,
        },
        {
            "level": "inverting array",
            "of": "bank",
            "count": chip.inv.arrays_per_bank,
            "cells": chip.inv.cells,
        },
    ]
    return StudyPage(
        study="explain",
        title=f"What chip {chip.name} is made of",
        answer=f"Chip {chip.name} has {chip.vmm_arrays:,} multiplying and {chip.inv_arrays:,} "
        f"inverting arrays ({chip.cells:,} cells) on {area * 1e6:.1f} mm2 and draws {power:.1f} W "
        f"when all of them work. {assumed / power:.0%} of that power rests on assumptions.",
        tables={
            "components": table([dataclasses.asdict(row) for row in rows], units),
            "hierarchy": table(hierarchy, {}),
        },
        sections=[
            StudySection(
                "Where area and power go",
                charts=[
                    Chart(
                        "treemap", "components", "Area", x="level", y="component", value="area_m2"
                    ),
                    Chart(
                        "treemap", "components", "Power", x="level", y="component", value="power_w"
                    ),
                ],
                tables=["components"],
                intro="Power is that of a chip whose arrays all work without pause.",
            ),
            StudySection("Hierarchy", tables=["hierarchy"]),
        ],
        key_figures=[
            KeyFigure("area", f"{area * 1e6:.1f} mm2", number=area, unit="m2"),
            KeyFigure("peak power", si(power, "W"), number=power, unit="W"),
            KeyFigure("pass of an array", si(costs.pass_s, "s"), number=costs.pass_s, unit="s"),
            KeyFigure(
                "inversion's conversions",
                si(costs.inv_convert_s, "s"),
                number=costs.inv_convert_s,
                unit="s",
            ),
        ],
        sources=[("chip", chip.source), *((row.component, row.source) for row in rows)],
    )


def run(study: ExplainStudy, settings: RunSettings, run_dir: Path | None, console: Console) -> Path:
    """Explain the chip of the settings."""
    page = explain(settings.hardware)
    shown = page.tables["components"].drop_columns(["source"])

    def details() -> None:
        print_table(f"chip {settings.chip.name}", shown, console)

    return finish(page, settings, console, details=details)

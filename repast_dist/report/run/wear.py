"""The table of how often a run writes its cells, and when they are worn out."""

from collections.abc import Mapping
from typing import Any

from repast_dist.report.page import Column, Table
from repast_dist.report.run_data import RunData
from repast_dist.report.units import large, lifetime, number

_HELD = {
    "weights": "weights",
    "activations": "activations and errors",
    "inverses": "inverting arrays: SOI blocks",
    "products": "multiplying arrays: SOI blocks",
}


def wear(run: RunData) -> list[Table]:
    """Return the table, or nothing where a run has no record of it."""
    record = run.result.get("wear")
    if not record or not record["first"]:
        return []
    columns = [
        Column("what the cells hold"),
        Column("writes per step", number, True),
        Column("writes in this run", number, True),
        Column("share of endurance", number, True),
        Column("worn out after, epochs", large, True),
    ]
    keys = ("writes_per_step", "writes", "worn", "lifetime_epochs")
    rows = [[_HELD[name], *(cells[key] for key in keys)] for name, cells in record["cells"].items()]
    caption = (
        f"{wear_line(record)} Writes of the cells that are written most, on average over steps; "
        "arrays of the same purpose share their writes evenly. Endurance: "
        f"{number(record['endurance'])} SET and RESET cycles (components.cell_endurance); a write "
        "counts as one, however many pulses it takes."
    )
    return [Table("Wear of the cells", columns, rows, caption)]


def wear_line(record: Mapping[str, Any]) -> str:
    """Return one sentence on which cells wear out first and when."""
    return (
        f"At this rate of writing, the cells of {_HELD[record['first']]} wear out first: after "
        f"{large(record['lifetime_epochs'])} epochs, or {lifetime(record['lifetime_s'])} of "
        "simulated time."
    )

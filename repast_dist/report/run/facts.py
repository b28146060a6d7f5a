"""The last sections: the network and what happened to it, settings, sources and versions."""

from pathlib import Path

from repast_dist.report.page import Code, Column, Note, Part, Table, settings_tables
from repast_dist.report.run_data import RunData
from repast_dist.report.units import number

_TABLE_ROWS = 500


def plan(run: RunData) -> list[Part]:
    """Return a table of the layers and one of the events."""
    parts: list[Part] = []
    layers = run.result.get("layers", [])
    if layers:
        columns = [
            Column("layer"),
            Column("kind"),
            Column("weights"),
            Column("positions", number, True),
            Column("preconditioned", lambda value: "yes" if value else "no"),
            Column("why"),
        ]
        rows = [
            [
                layer["name"],
                layer["kind"],
                " × ".join(map(number, layer["shape"])) or "none",
                layer["positions"],
                layer["preconditioned"],
                layer["reason"],
            ]
            for layer in layers
        ]
        caption = (
            "Weights: rows (inputs, with one for the bias) by columns (outputs). Positions: how "
            "many input vectors a sample has, such as the pixels a convolution is applied to."
        )
        parts.append(Table("Layers", columns, rows, caption))
    events = run.result.get("events", [])
    if events:
        columns = [Column("step", number, True), Column("event"), Column("what happened")]
        rows = [[e.get("step"), str(e.get("kind", "")), str(e.get("message", ""))] for e in events]
        parts.append(_capped(Table("Events", columns, rows)))
    else:
        parts.append(Note("No events: no chip failed and no solve diverged."))
    return parts


def provenance(run: RunData) -> list[Part]:
    """Return what is needed to repeat the run: command, versions, settings, constants."""
    result = run.result
    program, *arguments = str(result.get("command", "")).split(" ")
    facts = [["command", " ".join([Path(program).name, *arguments])]] if program else []
    facts += [
        [name, str(result[key])]
        for key, name in (
            ("seed", "seed"),
            ("started", "started"),
            ("finished", "finished"),
        )
        if key in result
    ]
    if result.get("kernels"):
        facts.append(["products computed with", ", ".join(result["kernels"])])
    facts += [[f"{name} version", str(value)] for name, value in result.get("versions", {}).items()]
    parts: list[Part] = [Table("How it was made", [Column("what"), Column("value")], facts)]
    if result.get("settings"):
        parts += settings_tables(result["settings"])
    parts.append(
        Code(
            "Ask the trace yourself (DuckDB, in the run directory)",
            "SELECT phase, op, sum(energy_j) AS energy_j, sum(duration_s) AS busy_s\n"
            "FROM 'trace/*.parquet' GROUP BY ALL ORDER BY energy_j DESC;",
        )
    )
    return parts


def _capped(table: Table) -> Table:
    if len(table.rows) <= _TABLE_ROWS:
        return table
    caption = f"The first {_TABLE_ROWS} of {len(table.rows):,}; result.json has all."
    return Table(table.title, table.columns, table.rows[:_TABLE_ROWS], caption, folded=True)

"""The section on inversion: iterations and residuals of the SOI blocks."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from repast_dist.ground.numbers import ceil_div
from repast_dist.report import figures
from repast_dist.report.axes import Axis
from repast_dist.report.page import Column, Frame, Part, Table
from repast_dist.report.run_data import RunData
from repast_dist.report.units import number, percent

_MOST_COLUMNS = 400


def inversion(run: RunData) -> list[Part]:
    """Return maps of iterations and residuals over the steps, and a table of the blocks."""
    names = _block_names(run)
    steps = np.unique(run.solves["step"].to_numpy())
    every = max(1, ceil_div(steps.size, _MOST_COLUMNS))
    iterations, residual = _worst(run, sorted(names), steps, every)
    x, labels = steps[::every].tolist(), [names[block] for block in sorted(names)]
    column = f" A column is the worst of {every} steps with solves." if every > 1 else ""
    height = min(130 + 24 * len(names), 720)
    residual_caption = (
        "Largest |b − A x| / |b| of each solve; 16 bits are 1.5·10⁻⁵. Solves without a finite "
        "residual are at the bright end." + column
    )
    return [
        figures.heat_map(
            "Iterations per SOI block",
            figures.Grid(iterations, x, labels),
            x=Axis("training step"),
            y=Axis(),
            colour=Axis("iterations"),
            frame=Frame(
                f"Iterations of the slowest right-hand side of each solve.{column}", height
            ),
        ),
        figures.heat_map(
            "Relative residual per SOI block",
            figures.Grid(residual, x, labels),
            x=Axis("training step"),
            y=Axis(),
            colour=Axis("residual", log=True),
            frame=Frame(residual_caption, height),
        ),
        _block_table(run, names),
    ]


def _worst(
    run: RunData, blocks: list[int], steps: np.ndarray, every: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return (blocks, columns) iterations and residuals: the worst over the chips of a block and
    over so many steps with solves.
    """
    iterations = np.full((len(blocks), ceil_div(steps.size, every)), np.nan)
    residual = iterations.copy()
    row = np.searchsorted(blocks, run.solves["block"].to_numpy())
    column = np.searchsorted(steps, run.solves["step"].to_numpy()) // every
    np.fmax.at(iterations, (row, column), run.solves["iterations"].to_numpy())
    np.fmax.at(residual, (row, column), run.solves["residual"].to_numpy())
    finite = residual[np.isfinite(residual)]
    residual[np.isinf(residual)] = 10 * max(1.0, finite.max(initial=0.0))
    return iterations, residual


def _block_names(run: RunData) -> dict[int, str]:
    """Return block number -> what a reader would call it."""
    listed = {
        block["index"]: f"{block['index']}: {block['layer_name']} {block['factor']} "
        f"{block['start']}–{block['stop']}"
        for block in run.result.get("blocks", [])
    }
    return {
        block: listed.get(block, f"{block}") for block in np.unique(run.solves["block"]).tolist()
    }


def _block_table(run: RunData, names: Mapping[int, str]) -> Table:
    sizes = {block["index"]: block["n"] for block in run.result.get("blocks", [])}
    numbers = run.solves.set_column(
        run.solves.schema.get_field_index("converged"),
        "converged",
        pc.cast(run.solves["converged"], pa.float64()),
    )
    grouped = (
        numbers.group_by(["block", "chip"])
        .aggregate(
            [
                ("mean_iterations", "mean"),
                ("iterations", "max"),
                ("residual", "max"),
                ("target_bits", "mean"),
                ("converged", "mean"),
                ("step", "count"),
            ]
        )
        .sort_by("block")
    )
    columns = [
        Column("block"),
        Column("n", number, True),
        Column("chip", number, True),
        Column("solves", number, True),
        Column("mean iterations", number, True),
        Column("most iterations", number, True),
        Column("largest residual", number, True),
        Column("target bits", number, True),
        Column("converged", percent, True),
    ]
    rows = [
        [
            names[row["block"]],
            sizes.get(row["block"]),
            row["chip"],
            row["step_count"],
            row["mean_iterations_mean"],
            row["iterations_max"],
            row["residual_max"],
            row["target_bits_mean"],
            row["converged_mean"],
        ]
        for row in grouped.to_pylist()
    ]
    return Table("SOI blocks", columns, rows, folded=len(rows) > 16)

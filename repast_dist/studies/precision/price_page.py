"""What bits cost: points of all machines by energy and by time, and which no other beats."""

import dataclasses
from typing import Any

from repast_dist.report.study_page import Chart, StudySection
from repast_dist.report.units import si
from repast_dist.studies.costing import table
from repast_dist.studies.precision.chapter import Chapter
from repast_dist.studies.precision.prices import LEVELS, UNITS, front_rows, level_rows

Rows = list[dict[str, Any]]
_OF_BLOCKS = (
    "block_size", "damping", "condition", "method", "bits", "energy_j", "time_s", "solve_j",
    "solve_s",
)  # fmt: skip
_SHOWN = ("method", "grid", "point", "bits", "energy_j", "time_s", "solve_j", "solve_s")


def price_chapter(rows: Rows, digital: Rows, columns: int) -> Chapter:
    """Return true bits against joules and against nanoseconds.

    Parameters
    ----------
    rows, digital : list of dict
        Rows of `solved_rows` and of `digital_rows`. Of several damped blocks the first is shown.
    columns : int
        Right-hand sides.
    """
    block = (rows[0]["block_size"], rows[0]["damping"])
    rows = [row for row in rows if (row["block_size"], row["damping"]) == block]
    digital = [row for row in digital if (row["block_size"], row["damping"]) == block]
    useful = [row for row in rows if row["bits"] > 0] + [
        {"grid": "digital", "point": ""} | row for row in digital
    ]
    shown = [{name: row[name] for name in _SHOWN} for row in useful]
    size, damping = digital[0]["block_size"], digital[0]["damping"]
    what = (
        f"A block of {size} with damping {damping:g} (condition {digital[0]['condition']:.0f}), "
        f"{columns} right-hand sides"
    )
    charts = [
        Chart(
            "line", "prices_of_points", f"True bits against {of}, {share}", x=column, y="bits",
            series="method", log_x=True, joined=False, wide=True, height_px=440,
        )
        for column, of, share in (
            ("energy_j", "joules", "programming included"),
            ("time_s", "seconds", "programming included"),
            ("solve_j", "joules", "programming apart"),
            ("solve_s", "seconds", "programming apart"),
        )
    ]  # fmt: skip
    for chart_number in (2, 3):
        # What has no price of its own beside the programming has no place on a logarithm.
        charts[chart_number] = _without_inverses(charts[chart_number])
    levels = level_rows(useful, "energy_j", "time_s")
    return Chapter(
        sections=[
            StudySection(
                "What bits cost",
                charts=charts,
                tables=[
                    "prices",
                    "prices_of_solving",
                    "energy_front",
                    "time_front",
                    "prices_of_points",
                ],
                intro=f"{what}. Bits are those of the worst right-hand side, by its residual in "
                "float64. On the chip: energy and time of all that the arrays, converters and "
                "digital units did, as in the price of a run, without what the whole chip takes "
                "meanwhile. Cholesky in 32-bit digital units: n^3/6 + n^2 r multiplications with "
                "additions and n square roots, part by part on the lanes of the tiles that would "
                "hold the block, operands from the buffers and lanes that stand still counted; its "
                "bits are those of 32-bit floating point. GPU: "
                "the published time of one inverse at the power of the whole board, an upper bound "
                "of its energy; the product with the inverse is left out, and nothing is batched.",
            )
        ],
        tables={
            "prices": table(levels, _level_units()),
            "prices_of_solving": table(
                level_rows([r for r in useful if r["solve_s"]], "solve_j", "solve_s"),
                _level_units(),
            ),
            "energy_front": table(front_rows(shown, "energy_j"), UNITS),
            "time_front": table(front_rows(shown, "time_s"), UNITS),
            "prices_of_points": table(shown, UNITS),
            "prices_of_solves": table([r for r in shown if r["solve_s"]], UNITS),
        },
        captions={
            "prices": f"{what}, programming included: the least energy and the least time with "
            "which a method reaches so many bits on any of the points; each on its own.",
            "prices_of_solving": "The same without programming, for a block that is solved with "
            "many times.",
            "energy_front": "Points that no other beats in bits and in energy.",
            "time_front": "Points that no other beats in bits and in time.",
            "prices_of_points": "All points that are compared.",
        },
        answer=_answer(levels, what),
    )


def size_chapter(rows: Rows, digital: Rows, columns: int) -> Chapter:
    """Return energy and time over the width of the block, of all that reached its target.

    Parameters
    ----------
    rows, digital : list of dict
        Rows of `solved_rows` and of `digital_rows` for the same damped blocks.
    columns : int
        Right-hand sides.
    """
    shown = [
        {name: row[name] for name in _OF_BLOCKS}
        for row in sorted(
            [row for row in rows if row["converged"]] + digital,
            key=lambda row: (row["damping"], row["block_size"]),
        )
    ]
    charts = [
        Chart(
            "line", "prices_of_sizes", f"{what} over the block's width, damping {damping:g}",
            x="block_size", y=column, series="method", where={"damping": damping},
            log_x=True, log_y=True,
        )
        for damping in dict.fromkeys(row["damping"] for row in shown)
        for column, what in (("energy_j", "Energy"), ("time_s", "Time"))
    ]  # fmt: skip
    return Chapter(
        sections=[
            StudySection(
                "What the width of a block costs",
                charts=charts,
                tables=["prices_of_sizes"],
                intro=f"What reached its target, {columns} right-hand sides, programming included, "
                "beside digital machines. Digital work grows with the cube of the width, what "
                "arrays do with its square, until a block is spread over several of them.",
            )
        ],
        tables={"prices_of_sizes": table(shown, UNITS)},
    )


def _without_inverses(chart: Chart) -> Chart:
    return dataclasses.replace(chart, table="prices_of_solves")


def _level_units() -> dict[str, str]:
    return {
        f"{name}, {level} bits": unit
        for name, unit in (("energy", "J"), ("time", "s"))
        for level in LEVELS
    }


def _answer(levels: Rows, what: str) -> str:
    parts = []
    for level in LEVELS:
        energy, time = f"energy, {level} bits", f"time, {level} bits"
        good = [row for row in levels if row[energy] is not None]
        if good:
            best = min(good, key=lambda row: row[energy])
            parts.append(
                f"{level} bits take at least {si(best[energy], 'J')} ({best['method']}, "
                f"{si(best[time], 's')})"
            )
    return f"{what}: {'; '.join(parts)}." if parts else ""

"""Maps of bits and rounds over damping and noise, and where methods diverge."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from repast_dist.report.study_page import Chart, StudySection
from repast_dist.studies.costing import table
from repast_dist.studies.kinds.precision import PrecisionStudy
from repast_dist.studies.precision.chapter import Chapter
from repast_dist.studies.precision.tables import divergence_rows, frontier_rows, method_rows

_AXES = {"optimizer.damping", "device.inv_cell.programming_sigma"}
_MOST_BITS = 20.0
"""The last colour of the maps."""

Rows = list[dict[str, Any]]


def mapped_grid(study: PrecisionStudy) -> str:
    """Return the first grid over damping and noise that is solved; "" if there is none."""
    solved = study.solve or tuple(study.grids)
    return next((name for name in solved if set(study.grids[name].axes) >= _AXES), "")


@dataclasses.dataclass(frozen=True)
class _Shown:
    """The point of the axes that maps and the answer show, and all rows.

    Attributes
    ----------
    rows : list of dict
        Rows of all points.
    size, bits, noise : int, int, float
        Width of the block, bits per cell and programming error nearest to those that are usual.
    """

    rows: Rows
    size: int
    bits: int
    noise: float

    @property
    def at(self) -> dict[str, Any]:
        """The block and the cells of the maps over damping and noise."""
        return {"block_size": self.size, "cell_bits": self.bits}


def maps_chapter(rows: Rows) -> Chapter:
    """Return the maps of a grid over damping and noise."""
    shown = _Shown(
        rows,
        size=_nearest(rows, "block_size", 256),
        bits=max(row["cell_bits"] for row in rows),
        noise=_nearest(rows, "noise", 0.01),
    )
    frontier = frontier_rows(rows)
    here = [row for row in rows if shown.at.items() <= row.items()]
    return Chapter(
        sections=[
            *_map_sections(shown),
            _block_section(shown),
            StudySection(
                "Where methods diverge",
                tables=["methods", "divergence", "frontier", "all_divergence"],
            ),
        ],
        tables={
            "map_points": table(rows, {}),
            "methods": table(
                method_rows(rows), {"converged": "fraction", "eight_bits": "fraction"}
            ),
            "divergence": table(divergence_rows(here), {}),
            "all_divergence": table(divergence_rows(rows), {}),
            "frontier": table(frontier, {}),
        },
        captions={
            "methods": "Over all points of the maps: share that reaches the target, and eight "
            "bits; medians over the points that reach the target, per right-hand side.",
            "divergence": f"Blocks of {shown.size}, {shown.bits}-bit cells: 'bits in rounds' of "
            "the worst right-hand side; bits in brackets where the target is missed, 'no' where "
            "the answer is worse than none.",
            "all_divergence": "The same for all blocks and cells.",
            "frontier": "The smallest damping down to which a method reaches the target at every "
            "damping that is no smaller, and the rounds it takes there.",
        },
        answer=_answer(frontier, shown),
    )


def _map_sections(shown: _Shown) -> list[StudySection]:
    rows, size, bits, noise = shown.rows, shown.size, shown.bits, shown.noise
    methods = list(dict.fromkeys(row["method"] for row in rows))
    most = max(row["rounds"] for row in rows)
    beside_cells = {"block_size": size, "noise": noise}
    return [
        StudySection(
            f"Bits: blocks of {size}, {bits}-bit cells",
            charts=[_bits_map(method, shown.at, "noise") for method in methods],
            intro="Bits of the worst right-hand side, -log2 of its relative residual, over "
            "damping and programming noise. Brighter is better; all maps share their colours.",
        ),
        StudySection(
            f"Rounds: blocks of {size}, {bits}-bit cells",
            charts=[_rounds_map(method, shown.at, most) for method in _where(rows, "rounds", 1.0)],
            intro="Mean rounds until the target is reached or the method is given up.",
        ),
        StudySection(
            f"Cells: blocks of {size}, {noise:.1%} programming noise",
            charts=[
                _bits_map(method, beside_cells, "cell_bits")
                for method in _where(rows, "inv_ops", 0.0)
            ],
            intro="Bits of the worst right-hand side, over damping and bits per cell.",
        ),
    ]


def _block_section(shown: _Shown) -> StudySection:
    charts = [
        Chart(
            "line", "map_points", f"{title}, blocks of {size}", x="damping", y=column,
            series="method",
            where={"cell_bits": shown.bits, "noise": shown.noise, "block_size": size},
            log_x=True, log_y=True,
        )
        for size in sorted({row["block_size"] for row in shown.rows})
        for title, column in (("Residual", "residual"), ("Rounds", "rounds"))
    ]  # fmt: skip
    return StudySection(
        f"Block size: {shown.bits}-bit cells, {shown.noise:.1%} programming noise", charts=charts
    )


def _bits_map(method: str, where: dict[str, Any], y: str) -> Chart:
    return Chart(
        "heat_map", "map_points", method, x="damping", y=y, value="bits",
        where=where | {"method": method}, limits=(0.0, _MOST_BITS), height_px=260,
    )  # fmt: skip


def _rounds_map(method: str, where: dict[str, Any], most: float) -> Chart:
    return Chart(
        "heat_map", "map_points", method, x="damping", y="noise", value="rounds",
        where=where | {"method": method}, log_value=True, limits=(1.0, most), height_px=260,
    )  # fmt: skip


def _where(rows: Sequence[dict[str, Any]], name: str, limit: float) -> list[str]:
    """Return the methods that somewhere take more of an operation than a limit."""
    return list(dict.fromkeys(row["method"] for row in rows if row[name] > limit))


def _nearest(rows: Sequence[dict[str, Any]], name: str, wanted: float) -> Any:
    return min({row[name] for row in rows}, key=lambda value: abs(value - wanted))


def _answer(frontier: Rows, shown: _Shown) -> str:
    size, bits, noise = shown.size, shown.bits, shown.noise
    here = [
        row
        for row in frontier
        if (row["block_size"], row["cell_bits"], row["noise"]) == (size, bits, noise)
    ]
    reached: dict[float, list[str]] = {}
    for row in sorted(here, key=lambda row: row["rounds"] or 0.0):
        if row["smallest_damping"] is not None:
            text = f"{row['method']} ({row['rounds']:.0f} rounds)"
            reached.setdefault(row["smallest_damping"], []).append(text)
    parts = [
        f"down to {damping:g} by {' and '.join(reached[damping])}" for damping in sorted(reached)
    ]
    failed = [row["method"] for row in here if row["smallest_damping"] is None]
    if failed:
        parts.append(f"at no damping tried by {' and '.join(failed)}")
    return (
        f"Blocks of {size} in {bits}-bit cells with {noise:.1%} programming noise are solved to "
        f"the target: damping {'; '.join(parts)}."
    )

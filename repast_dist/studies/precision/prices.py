"""What solved points cost: on the chip, on its digital units alone, and on a GPU."""

from collections.abc import Sequence
from typing import Any

from repast_dist.analog import SCHEMES, Scheme, SolveCounts
from repast_dist.ground.spec import to_dict
from repast_dist.hardware.hardware import Hardware
from repast_dist.planning.gpu import GpuSpec
from repast_dist.planning.solve_costs import (
    cholesky_costs,
    one_block,
    preparation_cost,
    solving_cost,
)
from repast_dist.studies.kinds.precision import PrecisionStudy
from repast_dist.studies.precision.points import CHOLESKY, PrecisionCase, true_bits

LEVELS = (8, 12, 16)
"""Bits whose prices are named."""

UNITS = {
    "program_s": "s", "program_j": "J", "solve_s": "s", "solve_j": "J", "time_s": "s",
    "energy_j": "J", "settling_s": "s",
}  # fmt: skip

COLUMNS = {
    "soi.block_size": "block_size",
    "device.inv_cell.bits": "cell_bits",
    "device.inv_cell.programming_sigma": "noise",
    "optimizer.damping": "damping",
}
"""Axes that every row has a column of in any case."""

Rows = list[dict[str, Any]]


def priced_row(
    row: dict[str, Any], hardware: Hardware, scheme: Scheme, columns: int
) -> dict[str, Any]:
    """Return a row of `precision_point` with its price in the place of its counts.

    Returns
    -------
    dict
        ``program_s``, ``program_j``: preparing the block; ``solve_s``, ``solve_j``: solving all
        right-hand sides; ``time_s``, ``energy_j``: both. What the whole chip takes meanwhile,
        whatever it does, is not part of it.
    """
    shapes = one_block(row["block_size"], columns, hardware, scheme)
    program = preparation_cost(shapes, SolveCounts(**row["program_counts"]), hardware)
    solve = solving_cost(shapes, SolveCounts(**row["solve_counts"]), hardware)
    kept = {name: v for name, v in row.items() if name not in ("program_counts", "solve_counts")}
    return kept | _price(program.time_s, program.energy_j, solve.time_s, solve.energy_j)


def _price(program_s: float, program_j: float, solve_s: float, solve_j: float) -> dict[str, float]:
    return {
        "program_s": program_s,
        "program_j": program_j,
        "solve_s": solve_s,
        "solve_j": solve_j,
        "time_s": program_s + solve_s,
        "energy_j": program_j + solve_j,
    }


def solved_rows(cases: Sequence[PrecisionCase], records: Sequence[dict[str, Any]]) -> Rows:
    """Return a row per case and method: its grid, the values of all axes, outcome and price."""
    paths = list(dict.fromkeys(path for case in cases for path in case.values))
    paths = [path for path in paths if path not in COLUMNS]
    rows = []
    for case, record in zip(cases, records, strict=True):
        settings, columns = to_dict(case.settings), record["columns"]
        point = {
            "grid": case.grid,
            "point": ", ".join(differs(*item) for item in case.values.items()),
        }
        for row in record["rows"]:
            scheme = case.inversions[row["method"]]
            tree = settings | {"inversion": to_dict(scheme)}
            axes = {path: _value(tree, path) for path in paths}
            rows.append(point | axes | priced_row(row, case.settings.hardware, scheme, columns))
    for path in paths:
        # A column of numbers and words is one of words.
        if any(isinstance(row[path], str) for row in rows):
            for row in rows:
                row[path] = "" if row[path] is None else str(row[path])
    return rows


def differs(path: str, value: Any) -> str:
    """Return a setting and its value as words."""
    name = path.rpartition(".")[2].replace("_", " ")
    # The last word of a converter's bits does not say whose they are.
    name = "ADC bits" if path.endswith("adc.bits") else name
    return f"{name} {value:g}" if isinstance(value, int | float) else f"{name} {value}"


def _value(tree: Any, path: str) -> Any:
    for name in path.split("."):
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree


def digital_rows(
    study: PrecisionStudy,
    hardware: Hardware,
    gpu: GpuSpec,
    cases: Sequence[PrecisionCase],
    records: Sequence[dict[str, Any]],
) -> Rows:
    """Return what digital machines need for every damped block of the grids that are priced.

    The chip's digital units factorise and solve; the GPU inverts in the published time at the power
    of its whole board, and the product with its inverse is left out.
    """
    found: dict[tuple[int, float], Rows] = {}
    for case, record in zip(cases, records, strict=True):
        row = record["rows"][0]
        block = {name: row[name] for name in ("block_size", "damping", "condition")}
        key = (row["block_size"], row["damping"])
        if case.grid in study.prices and key not in found:
            bits = {name: true_bits(left) for name, left in record["digital_residual"].items()}
            prices = _digital_prices(study, hardware, gpu, row["block_size"], record)
            found[key] = [
                block | {"method": name, "bits": bits[algorithm]} | price
                for name, (algorithm, price) in prices.items()
            ]
    return [row for rows in found.values() for row in rows]


def _digital_prices(
    study: PrecisionStudy,
    hardware: Hardware,
    gpu: GpuSpec,
    size: int,
    record: dict[str, Any],
) -> dict[str, tuple[str, dict[str, float]]]:
    """Return machine -> its algorithm and price."""
    scheme = SCHEMES.load({"method": "cg"})
    shapes = one_block(size, record["columns"], hardware, scheme)
    factor, solve = cholesky_costs(shapes, hardware)
    own = _price(factor.time_s, factor.energy_j, solve.time_s, solve.energy_j)
    prices = {f"{CHOLESKY}, digital units": (CHOLESKY, own)}
    for algorithm in study.gpu.times_s:
        seconds = study.gpu.seconds(algorithm, size)
        board_j = seconds * (gpu.board_w.value or 0.0)
        prices[f"{study.gpu.name}, {algorithm}"] = (
            algorithm,
            _price(seconds, board_j, 0.0, 0.0),
        )
    return prices


def front_rows(rows: Sequence[dict[str, Any]], price: str) -> Rows:
    """Return the rows that no other beats in bits and in a price, the cheapest first.

    Parameters
    ----------
    rows : sequence of dict
        With ``bits`` and the price.
    price : str
        Column of the price.
    """
    front: Rows = []
    for row in sorted(rows, key=lambda row: (row[price], -row["bits"])):
        if row["bits"] > (front[-1]["bits"] if front else 0.0):
            front.append(row)
    return front


def level_rows(rows: Sequence[dict[str, Any]], energy: str, time: str) -> Rows:
    """Return per method the least energy and the least time that give so many bits; None where no
    point does.
    """
    found = []
    for method in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == method]
        record: dict[str, Any] = {"method": method}
        for name, column in (("energy", energy), ("time", time)):
            for level in LEVELS:
                good = [row[column] for row in mine if row["bits"] >= level]
                record[f"{name}, {level} bits"] = min(good, default=None)
        found.append(record | {"most bits": max(row["bits"] for row in mine)})
    return found

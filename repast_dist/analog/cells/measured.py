"""Measurements of cells in CSV files: what `repast_dist.analog.cells.table` interpolates.

A file has a line of column names and a line per measurement; lines that begin with ``#`` are
comments. Conductances are in siemens (``target_siemens``) or, where a column says so, in
microsiemens (``target_microsiemens``); times are in seconds. Either kind has targets and times:

- statistics: ``target``, ``mean`` (the target, if left out), ``sigma``, ``read_sigma`` (0) and
  ``time_s``, one line per target and time;
- samples: ``target``, ``sample``, ``time_s`` and ``cell``, one line per conductance that was read.
  Samples of one cell, by its number or name, are reads of the same conductance.
"""

import csv
import dataclasses
import math
from collections.abc import Callable, Iterator
from itertools import zip_longest
from pathlib import Path

import numpy as np
from scipy.special import ndtr

from repast_dist.analog.cells.base import LARGEST_SIEMENS
from repast_dist.ground.spec import spec

SCORES = tuple(round(-4.0 + 0.25 * step, 2) for step in range(33))
"""Standard normal values at which the distribution of samples is kept."""

_SHIPPED = Path(__file__).parents[1] / "tables"
_UNITS = {"_siemens": 1.0, "_microsiemens": 1e-6}
_STATISTICS, _SAMPLES = ("target", "mean", "sigma", "read_sigma"), ("target", "sample")
_PLAIN = ("time_s", "cell")
_FEWEST_SAMPLES = 2
_FINE = 4097


@spec
class MeasuredPoint:
    """What was measured of one target at one time.

    Attributes
    ----------
    time_s : float
        Time since the cells were written.
    target_siemens : float
        Conductance that was to be written.
    mean_siemens, sigma_siemens : float
        Mean and standard deviation over cells.
    read_sigma_siemens : float
        Standard deviation of one cell from read to read.
    deviates : tuple of float
        Deviations from the mean, in standard deviations, where a normal distribution has
        `SCORES`; empty: normal.
    """

    time_s: float
    target_siemens: float
    mean_siemens: float
    sigma_siemens: float
    read_sigma_siemens: float = 0.0
    deviates: tuple[float, ...] = ()


@spec
class Measured:
    """What a file of measurements holds.

    Attributes
    ----------
    source : str
        The file.
    rows : tuple of MeasuredPoint
        By time, then by target; the same targets at every time.
    """

    source: str
    rows: tuple[MeasuredPoint, ...]

    def __post_init__(self) -> None:
        targets = [p.target_siemens for p in self.rows if p.time_s == self.rows[0].time_s]
        expected = [(time, target) for time in self.times for target in targets]
        for point, (time, target) in zip_longest(self.rows, expected):
            if point is None or (point.time_s, point.target_siemens) != (time, target):
                raise ValueError(
                    f"rows: time_s={time}, target_siemens={target} is missing, or out of order; "
                    "valid: by time, then by target, the same targets at every time"
                )
        if targets != sorted(set(targets)) or len(targets) < 2:
            raise ValueError(f"rows: target_siemens={targets}; valid: 2 or more, ascending")

    @property
    def times(self) -> tuple[float, ...]:
        """Times of the measurements, ascending."""
        return tuple(sorted({point.time_s for point in self.rows}))

    def column(self, value: Callable[[MeasuredPoint], float]) -> np.ndarray:
        """Return one number of all points, (times, targets) float64."""
        return np.array([value(point) for point in self.rows]).reshape(len(self.times), -1)


def find_table(name: str) -> Path:
    """Return the file of a table: a path, or the name of one that the package has.

    Raises
    ------
    ValueError
        There is no such file.
    """
    for path in (Path(name), _SHIPPED / name):
        if path.is_file():
            return path
    shipped = ", ".join(sorted(path.name for path in _SHIPPED.glob("*.csv")))
    raise ValueError(f"table={name}: no such file; valid: a CSV file, or one of {shipped}")


def _cells(where: str, line: str) -> list[str]:
    """Return the values of a line."""
    try:
        return next(csv.reader([line]))
    except csv.Error as error:
        raise ValueError(f"{where}: not readable ({error})") from None


def read_measured(path: Path) -> Measured:
    """Read measurements from a CSV file.

    Raises
    ------
    ValueError
        The file cannot be read as measurements; the message names file, line and column.
    """
    try:
        # A byte order mark is what spreadsheets write.
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a readable text file ({error})") from None
    kept = [(n, line) for n, line in enumerate(lines, 1) if line.strip() and line[:1] != "#"]
    if not kept:
        raise ValueError(f"{path}: no line of column names; valid: {_layout()}")
    (header_line, header), *rest = kept
    names = [name.strip() for name in _cells(f"{path}, line {header_line}", header)]
    columns = _columns(f"{path}, line {header_line}", names)
    rows = [
        _row(f"{path}, line {line}", names, _cells(f"{path}, line {line}", text), columns)
        for line, text in rest
    ]
    if "sample" in columns:
        points = list(_of_samples(path, rows))
    else:
        points = [_of_statistics(row) for row in rows]
    return Measured(source=str(path), rows=_in_order(path, points))


@dataclasses.dataclass(frozen=True)
class _Row:
    """One line: numbers in SI units by column, and which cell was read."""

    where: str
    numbers: dict[str, float]
    cell: str


def _layout() -> str:
    return (
        "columns target_siemens, sigma_siemens and, where known, mean_siemens, "
        "read_sigma_siemens, time_s; or target_siemens and sample_siemens"
    )


def _columns(where: str, names: list[str]) -> dict[str, float]:
    """Return the quantities of the columns, in their order, and what turns them into SI units."""
    columns: dict[str, float] = {}
    for name in names:
        unit = next((unit for unit in _UNITS if name.endswith(unit)), "")
        quantity = name.removesuffix(unit)
        known = quantity in (*_STATISTICS, *_SAMPLES) if unit else name in _PLAIN
        if not known:
            raise ValueError(f"{where}, column {name or '(empty)'}: unknown; valid: {_layout()}")
        if quantity in columns:
            raise ValueError(f"{where}, column {name}: {quantity} is there twice")
        columns[quantity] = _UNITS.get(unit, 1.0)
    wanted = ("target", "sample") if "sample" in columns else ("target", "sigma")
    for quantity in wanted:
        if quantity not in columns:
            raise ValueError(f"{where}: no column {quantity}_siemens; valid: {_layout()}")
    if "sample" in columns and set(columns) & {"mean", "sigma", "read_sigma"}:
        raise ValueError(f"{where}: samples and statistics; valid: either of them")
    if "cell" in columns and "sample" not in columns:
        raise ValueError(f"{where}, column cell: statistics are of all cells; valid with samples")
    return columns


def _row(where: str, names: list[str], texts: list[str], columns: dict[str, float]) -> _Row:
    if len(texts) != len(columns):
        raise ValueError(f"{where}: {len(texts)} values for {len(columns)} columns")
    numbers, cell = {}, ""
    for name, (quantity, unit), text in zip(names, columns.items(), texts, strict=True):
        if quantity == "cell":
            cell = text.strip()
            continue
        number = _number(f"{where}, column {name}", text) * unit
        if quantity == "time_s" and number <= 0:
            raise ValueError(f"{where}, column {name}: {text.strip()} s; valid: above 0")
        if quantity != "time_s" and not 0 <= number <= LARGEST_SIEMENS:
            raise ValueError(
                f"{where}, column {name}: {text.strip()} is {number:g} S; valid: 0 to "
                f"{LARGEST_SIEMENS} S, and microsiemens in a column {quantity}_microsiemens"
            )
        numbers[quantity] = number
    return _Row(where, numbers, cell)


def _number(where: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"{where}: '{text.strip()}' is no number") from None
    if not math.isfinite(number):
        raise ValueError(f"{where}: {text.strip()}; valid: a finite number")
    return number


def _of_statistics(row: _Row) -> tuple[str, MeasuredPoint]:
    given = row.numbers
    return row.where, MeasuredPoint(
        time_s=given.get("time_s", 1.0),
        target_siemens=given["target"],
        mean_siemens=given.get("mean", given["target"]),
        sigma_siemens=given["sigma"],
        read_sigma_siemens=given.get("read_sigma", 0.0),
    )


def _of_samples(path: Path, rows: list[_Row]) -> Iterator[tuple[str, MeasuredPoint]]:
    """Yield mean, deviations and distribution of the samples of each target and time."""
    groups: dict[tuple[float, float], list[_Row]] = {}
    for row in rows:
        key = row.numbers.get("time_s", 1.0), row.numbers["target"]
        groups.setdefault(key, []).append(row)
    for (time, target), group in groups.items():
        cells: dict[str, list[float]] = {}
        for number, row in enumerate(group):
            # Without numbers of cells, each sample is one of its own.
            cells.setdefault(row.cell or f"sample {number}", []).append(row.numbers["sample"])
        held = np.array([np.mean(reads) for reads in cells.values()])
        if len(held) < _FEWEST_SAMPLES:
            raise ValueError(
                f"{group[0].where}: one cell only for target {target:g} S at {time:g} s; valid: "
                f"{_FEWEST_SAMPLES} or more, for a standard deviation"
            )
        spread = [np.var(reads, ddof=1) for reads in cells.values() if len(reads) > 1]
        sigma = float(np.std(held, ddof=1))
        yield (
            group[0].where,
            MeasuredPoint(
                time_s=time,
                target_siemens=target,
                mean_siemens=float(held.mean()),
                sigma_siemens=sigma,
                read_sigma_siemens=float(np.sqrt(np.mean(spread))) if spread else 0.0,
                deviates=_deviates(held, sigma),
            ),
        )


def _deviates(held: np.ndarray, sigma: float) -> tuple[float, ...]:
    """Return the samples' distribution; beyond the last sample it is cut, not invented.

    Lines between a few of its points have a mean and a spread of their own, which are taken out.
    """
    if sigma == 0.0:
        return ()
    levels = np.quantile(held, ndtr(np.array(SCORES)), method="median_unbiased")
    fine = np.linspace(SCORES[0], SCORES[-1], _FINE)
    chance = np.exp(-(fine**2) / 2)
    drawn = np.interp(fine, SCORES, levels)
    mean = np.average(drawn, weights=chance)
    spread = np.sqrt(np.average((drawn - mean) ** 2, weights=chance))
    return tuple(((levels - mean) / spread).tolist())


def _in_order(path: Path, points: list[tuple[str, MeasuredPoint]]) -> tuple[MeasuredPoint, ...]:
    """Return points by time and target; every time has the same targets, each once."""
    met: dict[tuple[float, float], str] = {}
    for where, point in points:
        key = point.time_s, point.target_siemens
        if key in met:
            raise ValueError(
                f"{where}: target {point.target_siemens:g} S at {point.time_s:g} s is there "
                f"already: {met[key]}"
            )
        met[key] = where
    targets = sorted({target for _, target in met})
    if len(targets) < 2:
        raise ValueError(f"{path}: {len(targets)} targets; valid: 2 or more, to interpolate")
    for time in sorted({time for time, _ in met}):
        for target in targets:
            if (time, target) not in met:
                raise ValueError(
                    f"{path}: no line for target {target:g} S at {time:g} s; valid: the same "
                    "targets at every time"
                )
    return tuple(
        point for _, point in sorted(points, key=lambda p: (p[1].time_s, p[1].target_siemens))
    )

"""Where an inverting array earns its silicon: real factors, solved with arrays and by products.

Networks are trained in float64; every factor of every layer that is at least as wide as asked for
is then damped and solved for columns of its own gradient, as often as training would until the next
writing. Conjugate gradients with inverting arrays (``fcg``) stand beside conjugate gradients on
products alone (``cg``), both with dominant directions taken out, and beside the digital unit
(``cholesky``). Energy and time are those of preparing and solving, area that of the arrays which
hold the block, with their converters and amplifiers, or of the digital lanes that solve.
"""

import argparse
import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import scipy.linalg
from rich.console import Console
from rich.table import Table

from repast_dist.analog import SCHEMES, Scheme, prepare
from repast_dist.analog.schemes.base import as_counts
from repast_dist.hardware.hardware import Hardware
from repast_dist.planning.solve_costs import (
    cholesky_costs,
    one_block,
    preparation_cost,
    solving_cost,
)
from repast_dist.planning.solves import modelled_preparations, modelled_solves
from repast_dist.settings import load_settings
from repast_dist.studies.factors import Factor, capture_factors

NETWORKS = {
    "fashion_mlp": ("model=fashion_mlp", "dataset=fashion_5120", "train.batch_size=256"),
    "fashion_cnn": ("model=fashion_cnn", "dataset=fashion_1280"),
    "fashion_autoencoder_small": ("model=fashion_autoencoder_small", "dataset=fashion_1280"),
    "digits_cnn": ("model=digits_cnn", "dataset=digits"),
    "text_gpt": ("model=text_gpt", "dataset=text"),
}
DAMPINGS = (("plain", 0.1), ("plain", 0.01), ("pi", 0.03), ("pi", 0.003))
METHODS = {
    "cg, no deflation": {"method": "cg", "deflation": 0},
    "cg": {"method": "cg"},
    "cg, 24 directions": {"method": "cg", "deflation": 24, "deflation_above": 2.0},
    "fcg": {"method": "fcg"},
    "fcg, 24 directions": {"method": "fcg", "deflation": 24, "deflation_above": 2.0},
    "fcg, nested, 2 slices": {"method": "fcg", "array_pieces": "nested", "array_slices": 2},
    "cholesky": {"method": "cholesky"},
}
TARGETS = {6: 16, 16: 32}
"""Bits of the answer -> bits of the products."""


@dataclasses.dataclass(frozen=True)
class Row:
    """What one method takes for one factor between two writings.

    Attributes
    ----------
    network, layer, side, method : str
        Which factor, and how it is solved.
    step, width, right_sides, bits : int
        Steps of training, rows of the factor, right-hand sides until the next writing, and bits of
        the answer.
    damping : str
        Form and value.
    rounds : float
        Mean over right-hand sides.
    converged : bool
        Whether all of them were solved to so many bits.
    energy_j, time_s, area_m2 : float
        Of preparing and solving; of the arrays that hold the block, or of the lanes that solve.
    """

    network: str
    layer: str
    side: str
    method: str
    step: int
    width: int
    right_sides: int
    bits: int
    damping: str
    rounds: float
    converged: bool
    energy_j: float
    time_s: float
    area_m2: float


def array_areas_m2(hardware: Hardware) -> tuple[float, float]:
    """Return the areas of an array of residual products and of an inverting one, with all that
    belongs to it.
    """
    chip, parts = hardware.chip, hardware.costs.parts
    cell = parts["cell"].area_m2
    own = "residual_adc" if chip.residual.adc is not None else "adc"
    product = (
        parts[own].area_m2 * chip.vmm.adcs_per_array
        + parts["dac"].area_m2 * chip.vmm.rows
        + parts["sample_hold"].area_m2 * chip.vmm.cols
        + cell * chip.vmm.cells
    )
    inverting = (
        2 * parts["amplifier"].area_m2 * chip.inv.size
        + parts["inv_dac"].area_m2 * chip.inv.size
        + (parts["inv_adc"].area_m2 + parts["inv_gain"].area_m2) * chip.inv.adcs_per_array
        + cell * chip.inv.cells
    )
    return product, inverting


def right_sides(
    factor: Factor, factors: Sequence[Factor], added: dict[tuple[str, str], float], most: int
) -> tuple[np.ndarray, int]:
    """Return columns that the factor is solved with, (n, r), and how many a step has.

    Those of A are columns of the gradient that was solved with G before, as K-FAC does.
    """
    gradient = factor.gradient
    if factor.kind == "A":
        other = next(f for f in factors if (f.layer, f.kind) == (factor.layer, "G"))
        damped = other.matrix + added[other.layer, "G"] * np.eye(len(other.matrix))
        gradient = scipy.linalg.solve(damped, gradient.T, assume_a="pos").T
    there = gradient[:, gradient.any(axis=0)]
    chosen = np.unique(np.linspace(0, there.shape[1] - 1, most).astype(int))
    return there[:, chosen], gradient.shape[1]


def solved(
    matrix: np.ndarray, right: np.ndarray, times: float, hardware: Hardware, scheme: Scheme
) -> tuple[float, bool, float, float, float]:
    """Return mean rounds, whether all converged, energy, time and area.

    Parameters
    ----------
    matrix, right : ndarray
        (n, n) the damped block, and (n, r).
    times : float
        Times that so many right-hand sides are solved until the next writing.
    hardware, scheme : Hardware, Scheme
        Where and how.
    """
    solver = prepare(matrix, hardware.residual_spec, hardware.inv_spec, scheme, 0, "arrays")
    solution = solver.solve(right)
    shapes = one_block(len(matrix), right.shape[1], hardware, scheme)
    before = preparation_cost(shapes, solver.program_counts, hardware)
    each = solving_cost(shapes, solution.counts, hardware)
    product, inverting = array_areas_m2(hardware)
    area = int(shapes.product_arrays[0]) * product
    area += int(shapes.inv_arrays[0]) * inverting * scheme.uses_array
    lanes = min(scheme.digital_tiles, hardware.chip.tiles) * hardware.chip.digital_lanes
    area += lanes * hardware.costs.parts["digital"].area_m2
    return (
        float(solution.iterations.mean()),
        bool(solution.converged.all()),
        before.energy_j + times * each.energy_j,
        before.time_s + times * each.time_s,
        area,
    )


def rows_of(network: str, steps: Sequence[int], options: argparse.Namespace) -> Iterator[Row]:
    """Solve all factors of a network after so many steps of training."""
    settings = load_settings([*NETWORKS[network], "chip=repast", f"seed={options.seed}"])
    hardware, interval = settings.hardware, settings.soi.interval
    for step in steps:
        factors = capture_factors(
            settings.model, settings.dataset, settings.optimizer, settings.train, step,
            settings.seed,
        )  # fmt: skip
        for form, damping in DAMPINGS:
            optimizer = dataclasses.replace(settings.optimizer, damping_form=form, damping=damping)  # type: ignore[call-arg]
            added = {(f.layer, f.kind): f.damping(optimizer) for f in factors}
            for factor, bits in itertools.product(factors, options.bits):
                width = len(factor.matrix)
                if width < options.least:
                    continue
                block = factor.matrix + added[factor.layer, factor.kind] * np.eye(width)
                right, per_step = right_sides(factor, factors, added, options.columns)
                times = interval * per_step / right.shape[1]
                common = dict(
                    network=network, layer=factor.layer, side=factor.kind, step=step, width=width,
                    right_sides=interval * per_step, bits=bits, damping=f"{form} {damping:g}",
                )  # fmt: skip
                for method, changes in METHODS.items():
                    precision = {"target_bits": bits}
                    if SCHEMES.get(changes["method"]).uses_products:
                        precision["product_bits"] = TARGETS[bits]
                    scheme = SCHEMES.load(changes | precision)
                    found = solved(block, right, times, hardware, scheme)
                    yield Row(**common, method=method, **_named(found))


def _named(found: tuple[float, bool, float, float, float]) -> dict[str, float]:
    return dict(zip(("rounds", "converged", "energy_j", "time_s", "area_m2"), found, strict=True))


def table_of(rows: Sequence[Row], keys: Sequence[str], title: str) -> Table:
    """Return a table: all methods of the rows that agree in `keys`, over those of ``cg``."""
    table = Table(title=title)
    for column in (*keys, "method", "rounds", "missed", "energy", "time", "area", "time x area"):
        table.add_column(column, justify="right")

    def key(row: Row) -> tuple[str, ...]:
        return tuple(str(getattr(row, name)) for name in keys)

    for values in dict.fromkeys(map(key, rows)):
        group = [row for row in rows if key(row) == values]
        methods = {name: [r for r in group if r.method == name] for name in METHODS}
        base = methods["cg"]
        for name, found in methods.items():
            ratios = [
                sum(getattr(r, what) for r in found) / sum(getattr(r, what) for r in base)
                for what in ("energy_j", "time_s", "area_m2")
            ]
            weights = [r.right_sides for r in found]
            rounds = np.average([r.rounds for r in found], weights=weights)
            occupied = sum(r.time_s * r.area_m2 for r in found)
            product = occupied / sum(r.time_s * r.area_m2 for r in base)
            table.add_row(
                *values, name, f"{rounds:.1f}", f"{sum(not r.converged for r in found)}",
                *(f"{ratio:.2f}" for ratio in ratios), f"{product:.2f}",
            )  # fmt: skip
    return table


def planned_table(widths: Sequence[int], hardware: Hardware, rounds: dict[str, int]) -> Table:
    """Return what blocks of widths that no network here has are planned to take between two
    writings, over ``cholesky`` on as many tiles as would hold them: energy / time.

    Parameters
    ----------
    widths : sequence of int
        Rows of blocks.
    hardware : Hardware
        The chip.
    rounds : dict
        Method -> rounds per right-hand side that are assumed.
    """
    table = Table(title="planned, over cholesky: energy / time, 6 bits")
    shares = {"n / 16": 1 / 16, "n / 4": 0.25, "n": 1.0, "4 n": 4.0}
    for column in ("rows n", "method", "rounds", *(f"{name} sides" for name in shares)):
        table.add_column(column, justify="right")
    for width, (method, assumed) in itertools.product(widths, rounds.items()):
        scheme = SCHEMES.load(METHODS[method] | {"target_bits": 6, "product_bits": TARGETS[6]})
        cells = []
        for share in shares.values():
            sides = max(1, round(width * share))
            shapes = one_block(width, sides, hardware, scheme)
            prepared = as_counts(modelled_preparations(shapes, scheme, hardware, assumed))
            solving = as_counts(modelled_solves(shapes, scheme, hardware, assumed))
            arrays = preparation_cost(shapes, prepared, hardware) + solving_cost(
                shapes, solving, hardware
            )
            once, each = cholesky_costs(shapes, hardware)
            digital = once + each
            cells.append(
                f"{arrays.energy_j / digital.energy_j:.2f} / {arrays.time_s / digital.time_s:.2f}"
            )
        table.add_row(str(width), method, str(assumed), *cells)
    return table


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--steps", nargs="+", type=int, default=[5, 40, 120])
    parser.add_argument("--bits", nargs="+", type=int, choices=list(TARGETS), default=[6])
    parser.add_argument("--columns", type=int, default=16, help="right-hand sides that are solved")
    parser.add_argument("--least", type=int, default=16, help="rows of a factor at least")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--planned", action="store_true", help="solve nothing, plan wide blocks")
    options = parser.parse_args()
    console = Console(width=160)
    if options.planned:
        hardware = load_settings(["chip=repast"]).hardware
        assumed = {"cg": 8, "fcg": 4, "fcg, nested, 2 slices": 2}
        console.print(planned_table([64, 256, 1024, 2048, 4096], hardware, assumed))
        return
    rows = [row for name in options.networks for row in rows_of(name, options.steps, options)]
    product, inverting = array_areas_m2(load_settings(["chip=repast"]).hardware)
    console.print(
        f"an inverting array takes the area of {inverting / product:.1f} arrays of products"
    )
    for row in rows:
        row_bits = f"{row.bits} bits"
        console.print(
            f"{row.network} {row.layer}/{row.side} {row.width} step {row.step} {row.damping} "
            f"{row_bits} {row.method}: {row.rounds:.1f} rounds{'' if row.converged else ' MISSED'},"
            f" {row.energy_j:.3g} J, {row.time_s:.3g} s, {row.area_m2:.3g} m2",
            highlight=False,
        )
    for keys in (("bits", "damping"), ("bits", "network"), ("bits", "step"), ("bits", "width")):
        console.print(table_of(rows, keys, f"over cg, by {' and '.join(keys)}"))


if __name__ == "__main__":
    main()

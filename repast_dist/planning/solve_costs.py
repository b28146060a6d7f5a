"""What preparing one block and solving with it cost, from what was counted; and digitally."""

import numpy as np

from repast_dist.analog.prices import OperationPrices, Prices
from repast_dist.analog.schemes.base import Scheme
from repast_dist.analog.schemes.cg import Cg
from repast_dist.analog.schemes.fcg import Fcg
from repast_dist.analog.solution import SolveCounts
from repast_dist.ground.errors import CapacityError, SettingsError
from repast_dist.ground.numbers import ceil_div
from repast_dist.hardware.hardware import Hardware
from repast_dist.planning.block_costs import (
    digital_lanes,
    program_counts,
    solve_counts,
)
from repast_dist.planning.blocks import SoiBlock
from repast_dist.planning.costs import Cost, priced
from repast_dist.planning.solves import BlockShapes, block_shapes, counted

_ONE = np.ones(1, np.int64)


def one_block(size: int, right_sides: int, hardware: Hardware, scheme: Scheme) -> BlockShapes:
    """Return the shapes of a single formed block, of which there is one copy.

    Parameters
    ----------
    size : int
        Rows n.
    right_sides : int
        Right-hand sides of a solve.
    hardware : Hardware
        The chip.
    scheme : Scheme
        How it is solved.

    Raises
    ------
    SettingsError
        The chip has no inverting arrays, and the scheme needs some.
    CapacityError
        It has too few for the block.
    """
    chip = hardware.chip
    block = SoiBlock(0, 0, "matrix", "A", 0, size)
    sides, held = np.array([right_sides]), np.array([0])
    shapes = block_shapes(np.array([block.size]), sides, held, hardware, scheme)
    needed = int(shapes.inv_arrays[0])
    if needed and not chip.inv_arrays:
        raise SettingsError(
            f"chip.inv.arrays_per_bank: chip '{chip.name}' has no inverting arrays; valid: at "
            "least 1, or inversion.method=cg or cholesky"
        )
    if needed > chip.inv_arrays:
        raise CapacityError(
            f"a matrix of {size} rows takes {needed:,} inverting arrays and chip '{chip.name}' has "
            f"{chip.inv_arrays:,}"
        )
    return shapes


def solving_cost(shapes: BlockShapes, counts: SolveCounts, hardware: Hardware) -> Cost:
    """Return what solving with a block costs, of which the counts were taken."""
    return priced(solve_counts(shapes, counted({0: counts}, 1), _ONE, hardware), hardware)


def preparation_cost(shapes: BlockShapes, counts: SolveCounts, hardware: Hardware) -> Cost:
    """Return what preparing a block costs: its trials, and writing its cells."""
    written = program_counts(shapes, counted({0: counts}, 1), _ONE, hardware)
    return solving_cost(shapes, counts, hardware) + priced(written, hardware)


def solve_prices(size: int, hardware: Hardware, scheme: Scheme) -> Prices:
    """Return what each operation of a solve costs with a block of so many rows.

    Parameters
    ----------
    size : int
        Rows.
    hardware : Hardware
        The chip.
    scheme : Scheme
        How the block is solved: its slices, copies and product bits.

    Returns
    -------
    Prices
        Of a block that is solved for one right-hand side between two writings.
    """
    shapes = one_block(size, 1, hardware, scheme)
    lanes = int(digital_lanes(shapes, _ONE, hardware.chip)[0])
    # An inverse by halves multiplies between its settlings, with less than the whole block.
    settlings = 3 ** int(shapes.depth[0])
    pieces = ceil_div(size, hardware.chip.inv.size)
    units = {
        "applied": SolveCounts(inv_ops=settlings, vmm_ops=settlings - 1),
        "side_by_side": SolveCounts(inv_ops=pieces, beside=pieces - 1),
        "vmm_op": SolveCounts(vmm_ops=1),
        "digital_op": SolveCounts(digital_ops=lanes),
        "moved": SolveCounts(moved=1),
        "settling_s": SolveCounts(settling_s=1.0),
    }
    costs = {name: _unit_cost(shapes, one, hardware) for name, one in units.items()}
    with_array, without = (
        _writing_cost(size, hardware, scheme.as_scheme(cls)) for cls in (Fcg, Cg)
    )

    def prices(of: dict[str, float]) -> OperationPrices:
        return OperationPrices(
            inv_op=(of["applied"] - (settlings - 1) * of["vmm_op"]) / settlings,
            side_op=of["side_by_side"] / pieces,
            vmm_op=of["vmm_op"],
            digital_op=of["digital_op"] / lanes,
            moved=of["moved"],
            settling_s=of["settling_s"],
            array=of["array"],
        )

    return Prices(
        energy=prices(
            {name: cost.energy_j for name, cost in costs.items()}
            | {"array": with_array.energy_j - without.energy_j}
        ),
        time=prices(
            {name: cost.time_s for name, cost in costs.items()}
            | {"array": with_array.time_s - without.time_s}
        ),
    )


def _unit_cost(shapes: BlockShapes, counts: SolveCounts, hardware: Hardware) -> Cost:
    """Return what a part of a solve costs: the bus moves numbers while others are computed."""
    columns = solve_counts(shapes, counted({0: counts}, 1), _ONE, hardware)
    del columns["serial_buffer_words"]
    return priced(columns, hardware)


def _writing_cost(size: int, hardware: Hardware, scheme: Scheme) -> Cost:
    """Return what writing a block's cells costs, without trials."""
    shapes = one_block(size, 1, hardware, scheme)
    counts = scheme.program_counts(shapes, hardware.device.cell, hardware.inv_spec)
    return priced(program_counts(shapes, counts, _ONE, hardware), hardware)


def cholesky_costs(shapes: BlockShapes, hardware: Hardware) -> tuple[Cost, Cost]:
    """Return what a Cholesky factorisation of a block costs in the chip's digital units, and what
    solving with the factors costs.

    The lanes of the tiles that would hold the block do it, as `repast_dist.planning.cholesky`
    says. Numbers have as many bits as those of residual products.
    """
    right_sides = int(shapes.right_sides[0])
    factorised = solving_cost(shapes, SolveCounts(factorisations=1), hardware)
    solved = solving_cost(shapes, SolveCounts(factored_sides=right_sides), hardware)
    return factorised, solved

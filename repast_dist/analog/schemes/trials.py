"""What right-hand sides cost that were solved while a block was prepared."""

import numpy as np

from repast_dist.analog.arrays.inv import piece_values
from repast_dist.analog.cells.base import Cell
from repast_dist.analog.schemes.base import REFRESH_MOVES, Blocks, Counts, Scheme, Trial, added
from repast_dist.analog.specs import InvSpec


def trial_counts(trial: Trial, blocks: Blocks, cell: Cell, inv: InvSpec) -> Counts:
    """Return the counts of what was tried, or is expected to be.

    Parameters
    ----------
    trial : Trial
        The scheme, and the rounds of every right-hand side.
    blocks : Blocks
        Shapes.
    cell : Cell
        The cells of the multiplying arrays.
    inv : InvSpec
        The inverting arrays.
    """
    scheme = trial.scheme
    one = _OneSide(blocks, scheme, inv)
    none = np.zeros_like(blocks.size)
    rank = scheme.assumed_rank(blocks) if trial.rank is None else none + trial.rank
    parts = [
        scheme.solve_counts(
            one, np.full(len(blocks.size), rounds), inv, rank, settling_s=trial.settling_s
        )
        for rounds in trial.rounds.tolist()
    ]
    refreshed = {
        "vmm_ops": none + trial.refreshes,
        "digital_ops": trial.refreshes * blocks.size,
        "moved": REFRESH_MOVES * trial.refreshes * blocks.size,
    }
    parts.append({name: refreshed.get(name, none) for name in parts[0]})
    if trial.programmed:
        parts.append(
            scheme.program_counts(
                one, cell, inv, rank, test_s=trial.test_s, recycled=trial.recycled
            )
        )
    if trial.beside is not None:
        there = trial.beside.program_counts(one, cell, inv, recycled=trial.recycled)
        parts.append({name: -count for name, count in there.items()})
    counts = added(*parts)
    tried = blocks.size > inv.size
    return {name: column * tried for name, column in counts.items()} if trial.wide else counts


class _OneSide:
    """Blocks with one right-hand side each, as a scheme holds them."""

    def __init__(self, blocks: Blocks, scheme: Scheme, inv: InvSpec) -> None:
        self.size, self.held, self.fused = blocks.size, blocks.held, blocks.fused
        sizes = blocks.size.tolist()
        self.depth = np.array([scheme.depth(size, inv.size) for size in sizes], np.int64)
        self.pieces = np.array([scheme.pieces(size, inv.size) for size in sizes], np.int64)
        self.right_sides = np.ones_like(blocks.size)
        self.between = blocks.between
        self.product_values = blocks.product_values
        # Slices and copies are those of all schemes that are tried.
        held = blocks.inverting_cells // piece_values(blocks.size, blocks.pieces)
        cells = held * piece_values(blocks.size, self.pieces)
        self.inverting_cells = np.where(blocks.fused, blocks.inverting_cells, cells)

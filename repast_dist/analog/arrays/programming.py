"""Turns integers into the conductances that the cells of a differential pair really have."""

import numpy as np

from repast_dist.analog.cells.base import Cell
from repast_dist.analog.cells.use import NEW, CellUse
from repast_dist.analog.kernels.draws import NormalDraws
from repast_dist.analog.specs import OpAmpSpec
from repast_dist.ground.rng import generator, place


def differential_levels(
    digits: np.ndarray, cell: Cell, seed: int, *address: int | str, use: CellUse = NEW
) -> np.ndarray:
    """Program signed digits on differential pairs and return them as the arrays hold them.

    Parameters
    ----------
    digits : ndarray
        Signed integers of any shape, ``|digit| < cell.levels``. A positive digit sits on the
        positive cell, a negative one on the negative cell; the other cell is at g_off.
    cell : Cell
        Programming error, clipping, stuck cells and drift.
    seed, *address
        Address of the random draws.
    use : CellUse
        What the cells have been through since.

    Returns
    -------
    ndarray
        float64, same shape: ``(G+ - G-) / step`` with ``step = (g_on - g_off) / (levels - 1)``;
        equal to `digits` for an ideal cell.
    """
    if cell.ideal:
        return digits.astype(np.float64)
    if not cell.changes:
        return cell.program_levels(digits, NormalDraws(seed, "programming", *address))
    positive, negative = pair_conductances(digits, cell, seed, *address, use=use)
    positive -= negative
    positive *= cell.levels - 1
    return positive


def pair_conductances(
    digits: np.ndarray,
    cell: Cell,
    seed: int,
    *address: int | str,
    use: CellUse = NEW,
    later: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Program signed digits; return both cells' conductances relative to the range, 0 at g_off.

    Parameters are those of `differential_levels`; `later` says whether cells are used later than
    programmed, when they have drifted. Float64 arrays of the shape of `digits`, no conductance
    below zero.
    """
    held = _held(digits, cell, seed, *address, use=use, later=later)
    for side in held:
        np.maximum(side, cell.lowest, out=side)
    return held


def cell_conductances(
    digits: np.ndarray, cell: Cell, seed: int, *address: int | str, use: CellUse = NEW
) -> np.ndarray:
    """Program digits that are not negative on one cell each; return the cells' conductances
    relative to the range, 0 at g_off.

    Parameters are those of `differential_levels`. A float64 array of the shape of `digits`, no
    conductance below zero.
    """
    targets = digits / (cell.levels - 1)
    held = cell.program(targets, NormalDraws(seed, "programming", *address))
    if cell.may_fail:
        where = place(address)
        lot, life = generator(seed, "failed", *where), generator(seed, "endurance", *where)
        fixed = cell.failed(lot.random(digits.shape), life, use)
        held = np.where(np.isnan(fixed), held, fixed)
    if cell.ages:
        held = cell.relaxed(held, targets, use, NormalDraws(seed, "ageing", *address))
    held = cell.used(held, use)
    if cell.slow_spread:
        moved = NormalDraws(seed, "flicker", *address).standard_normal(digits.shape)
        held = held + cell.slow_spread * moved
    return np.maximum(held, cell.lowest)


def _held(
    digits: np.ndarray, cell: Cell, seed: int, *address: int | str, use: CellUse, later: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return what errors leave of both cells, even below zero."""
    random = NormalDraws(seed, "programming", *address)
    top = cell.levels - 1
    if cell.may_fail:
        targets = np.maximum(digits, 0) / top, np.maximum(-digits, 0) / top
        stuck = _failed(digits.shape, cell, seed, *address, use=use)
        if cell.mapped_around:
            targets = _mapped_around(*targets, *stuck)
        positive, negative = (
            np.where(np.isnan(fixed), cell.program(target, random), fixed)
            for target, fixed in zip(targets, stuck, strict=True)
        )
    else:
        # One side after the other: large weights take several times their size as it is.
        positive = cell.program(np.maximum(digits, 0) / top, random)
        negative = cell.program(np.maximum(-digits, 0) / top, random)
    if not later:
        return positive, negative
    if cell.ages:
        random = NormalDraws(seed, "ageing", *address)
        positive = cell.relaxed(positive, np.maximum(digits, 0) / top, use, random)
        negative = cell.relaxed(negative, np.maximum(-digits, 0) / top, use, random)
    positive, negative = cell.used(positive, use), cell.used(negative, use)
    if cell.slow_spread:
        moved = NormalDraws(seed, "flicker", *address).standard_normal((2, *digits.shape))
        positive, negative = (
            held + cell.slow_spread * by
            for held, by in zip((positive, negative), moved, strict=True)
        )
    return positive, negative


def _failed(
    shape: tuple[int, ...], cell: Cell, seed: int, *address: int | str, use: CellUse
) -> tuple[np.ndarray, np.ndarray]:
    """Return what failed cells of either side hold, NaN for all others. They are the same ones
    each time that the arrays are written.
    """
    where = place(address)
    lot, life = generator(seed, "failed", *where), generator(seed, "endurance", *where)
    positive, negative = (cell.failed(lot.random(shape), life, use) for _ in range(2))
    return positive, negative


def _mapped_around(
    positive: np.ndarray, negative: np.ndarray, stuck_on: np.ndarray, stuck_against: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return targets of which either makes up for a stuck cell beside it, within the range.

    Parameters
    ----------
    positive, negative : ndarray
        Targets.
    stuck_on, stuck_against : ndarray
        What stuck positive and negative cells hold, NaN where they are not stuck.
    """
    wanted = positive - negative
    against = np.where(np.isnan(stuck_on), negative, np.clip(stuck_on - wanted, 0.0, 1.0))
    on = np.where(np.isnan(stuck_against), positive, np.clip(stuck_against + wanted, 0.0, 1.0))
    return on, against


def to_siemens(relative: np.ndarray, cell: Cell) -> np.ndarray:
    """Return conductances in siemens; an error cannot take a real cell below zero."""
    siemens = cell.g_off_siemens + relative * cell.span_siemens
    return np.maximum(siemens, 0.0)


def offset_voltages(n: int, opamp: OpAmpSpec, seed: int, *address: int | str) -> np.ndarray:
    """Return input offset voltages of n amplifiers relative to full-scale outputs, (n,)."""
    if not opamp.offset_v:
        return np.zeros(n)
    random = generator(seed, "offset", *address)
    return np.asarray(opamp.offset_v * random.standard_normal(n))


def quantize_symmetric(values: np.ndarray, bits: int) -> tuple[np.ndarray, float]:
    """Round to signed integers of `bits` bits (sign included), scaled by the largest entry.

    Returns
    -------
    integers : ndarray
        float64 whole numbers in ``±(2 ** (bits - 1) - 1)``.
    scale : float
        ``values ≈ integers * scale``; 0 input gives scale 1.
    """
    top = float(2 ** (bits - 1) - 1)
    largest = max(float(values.max(initial=0.0)), -float(values.min(initial=0.0)))
    scale = largest / top if largest > 0 else 1.0
    integers = np.asarray(values / scale)
    return np.rint(integers, out=integers), scale

"""Weights stored with an offset: one cell per slice, and a column of references in every array.

A signed weight of b bits is stored as the whole number ``w + 2^(b - 1)``, whose digits are not
negative, so that a slice takes one cell. The offset is taken off in the digital unit, which knows
the sum of the inputs, after the results of the slices are put together (Xiao et al., IEEE Circuits
and Systems Magazine 22(4), 2022, figure 5c; ISAAC stores weights like this, Shafiee et al. 2016).
What cells conduct at the lower end of their range is taken off before conversion: the last column
of every array holds cells that are left there, and its current is subtracted from all others of
the array. It is written with the array, and its errors are common to all its columns.
"""

import numpy as np

from repast_dist.analog.arrays.curve import steeper
from repast_dist.analog.arrays.programming import cell_conductances, to_siemens
from repast_dist.analog.arrays.variation import scaled, shared_factors
from repast_dist.analog.arrays.wires import transfer_matrix
from repast_dist.analog.specs import VmmSpec
from repast_dist.ground.numbers import ceil_div


def offset_of(spec: VmmSpec) -> float:
    """Return what is added to whole weights before they are stored."""
    return 0.0 if spec.differential else 2.0 ** (spec.weight_bits - 1)


def take_off(result: np.ndarray, integers: np.ndarray, spec: VmmSpec) -> None:
    """Take the offset off products, in place.

    Parameters
    ----------
    result : ndarray
        (..., N, M) float64, products of whole inputs with what is stored.
    integers : ndarray
        (..., N, K) the inputs.
    spec : VmmSpec
        The multiplier.
    """
    if not spec.differential:
        result -= offset_of(spec) * integers.sum(axis=-1, dtype=np.float64)[..., None]


def offset_levels(digits: np.ndarray, spec: VmmSpec, seed: int, *address: int | str) -> np.ndarray:
    """Program digits and return what cells appear to hold beside the references of their arrays.

    Parameters
    ----------
    digits : ndarray
        (K, slices, M) digits, none negative.
    spec, seed, *address
        As for `repast_dist.analog.arrays.planes.contents`.

    Returns
    -------
    ndarray
        (K, slices, M) float64 in levels.
    """
    device = spec.device
    if device.cell.ideal and device.wire.ideal and device.variation.none:
        return digits.astype(np.float64)
    rows, slices, columns = digits.shape
    if device.wire.ideal:
        stored, references = _conductances(digits, spec, seed, *address)
        flat = stored - references[:, _array_of(columns * slices, spec)]
        flat *= device.cell.levels - 1
    else:
        more = steeper(device.curve)
        per_siemens = (device.cell.levels - 1) / (device.cell.span_siemens * more)
        parts = []
        for siemens in offset_arrays(digits, spec, seed, *address):
            seen = transfer_matrix(siemens * more, device.wire) * per_siemens
            parts.append(seen[:, :-1] - seen[:, -1:])
        across = ceil_div(columns * slices, spec.weight_columns)
        bands = [np.hstack(parts[at : at + across]) for at in range(0, len(parts), across)]
        flat = np.vstack(bands)
    return np.ascontiguousarray(flat.reshape(rows, columns, slices).swapaxes(1, 2))


def offset_arrays(
    digits: np.ndarray, spec: VmmSpec, seed: int, *address: int | str
) -> list[np.ndarray]:
    """Return the conductances of the arrays that hold digits, in siemens, from left to right and
    then from top to bottom: columns are weights, in them slices; the last one holds the references.
    """
    stored, references = _conductances(digits, spec, seed, *address)
    wide, arrays = spec.weight_columns, []
    for top in range(0, len(stored), spec.tall):
        rows = slice(top, top + spec.tall)
        for number, left in enumerate(range(0, stored.shape[1], wide)):
            both = stored[rows, left : left + wide], references[rows, number : number + 1]
            arrays.append(to_siemens(np.hstack(both), spec.device.cell))
    return arrays


def _conductances(
    digits: np.ndarray, spec: VmmSpec, seed: int, *address: int | str
) -> tuple[np.ndarray, np.ndarray]:
    """Return what cells and references conduct relative to the range, (K, M slices) and (K, arrays
    side by side).
    """
    cell, variation, use = spec.device.cell, spec.device.variation, spec.cell_use
    rows, slices, columns = digits.shape
    array = _array_of(columns * slices, spec)
    blank = np.zeros((rows, int(array[-1]) + 1 if len(array) else 0), digits.dtype)
    stored = cell_conductances(digits, cell, seed, "vmm", *address, use=use)
    references = cell_conductances(blank, cell, seed, "vmm", "reference", *address, use=use)
    flat = stored.swapaxes(1, 2).reshape(rows, columns * slices)
    if variation.none:
        return flat, references
    # Arrays lie side by side, each with its references behind its weights.
    size = rows, flat.shape[1] + blank.shape[1]
    shape = spec.tall, spec.weight_columns + 1
    factors = shared_factors(size, shape, variation, use, seed, "vmm", *address)
    ends = np.append(np.flatnonzero(np.diff(array)), len(array) - 1)[: blank.shape[1]]
    of_references = ends + 1 + np.arange(blank.shape[1])
    of_weights = np.arange(len(array)) + array
    return (
        scaled(flat, factors[:, of_weights], cell),
        scaled(references, factors[:, of_references], cell),
    )


def _array_of(columns: int, spec: VmmSpec) -> np.ndarray:
    """Return the number of the array, from left to right, that holds each column of slices."""
    return np.arange(columns) // spec.weight_columns

"""Samples of several arrays each, such as a picture and a table, as one array of records.

A record has a field per array, so samples are chosen, cut and sent like those of one array.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from repast_dist.ground.errors import DataError

Parts = np.ndarray | tuple[np.ndarray, ...] | dict[str, np.ndarray]
"""The arrays of samples: one, several in their order, or several by name."""


def joined(parts: Parts, where: str) -> np.ndarray:
    """Return the arrays of samples as one.

    Parameters
    ----------
    parts : ndarray, tuple or dict of ndarray
        (N, ...) each. One array stays as it is.
    where : str
        What they are of, for messages.

    Returns
    -------
    ndarray
        (N,) records, or the one array.

    Raises
    ------
    DataError
        Their numbers of samples differ, or a name is no name of an argument.
    """
    if isinstance(parts, np.ndarray):
        return parts
    named = (
        dict(parts)
        if isinstance(parts, Mapping)
        else {str(place): values for place, values in enumerate(parts)}
    )
    wrong = [name for name in named if isinstance(parts, Mapping) and not name.isidentifier()]
    if wrong or not named:
        raise DataError(f"{where}: arrays named {wrong}; valid: names of arguments, at least one")
    counts = {name: len(values) for name, values in named.items()}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name} has {count}" for name, count in counts.items())
        raise DataError(f"{where}: {told} samples; valid: as many of each")
    fields = [(name, values.dtype, values.shape[1:]) for name, values in named.items()]
    records = np.empty(next(iter(counts.values())), np.dtype(fields))
    for name, values in named.items():
        records[name] = values
    return records


def apart(values: np.ndarray) -> Parts:
    """Return what `joined` was given; works on samples and on a single one."""
    names = values.dtype.names
    if names is None:
        return values
    if names[0].isdigit():
        return tuple(values[name] for name in names)
    return {name: values[name] for name in names}


def sample_text(values: np.ndarray) -> str:
    """Return the shape of a sample in words: ``(3, 8, 8)``, or ``image (3, 8, 8), table (5,)``."""
    if values.dtype.names is None:
        return str(values.shape[1:])
    each = (f"{name} {values.dtype[name].shape}" for name in values.dtype.names)
    return ", ".join(each)


def as_record(made: Any, like: np.ndarray) -> np.ndarray:
    """Return the arrays of one sample as a record.

    Parameters
    ----------
    made : tuple or mapping of array_like
        The arrays, in the order or by the names of `like`.
    like : ndarray
        Records.

    Raises
    ------
    DataError
        There are others, or they have other shapes.
    """
    names = like.dtype.names or ()
    by_name = isinstance(made, Mapping)
    given = dict(made) if by_name else {str(n): item for n, item in enumerate(made)}
    record = np.zeros((), like.dtype)
    shapes = {name: np.shape(values) for name, values in given.items()}
    wanted = {name: like.dtype[name].shape for name in names}
    if shapes != wanted:
        raise DataError(f"it made {shapes} of a sample of {wanted}; valid: the same shapes")
    for name in names:
        record[name] = given[name]
    return record

"""What counts cost on a chip, as one record."""

import dataclasses

import numpy as np

from repast_dist.hardware.geometry import Counts
from repast_dist.hardware.hardware import Hardware
from repast_dist.ops import OpTable, price


@dataclasses.dataclass(frozen=True)
class Cost:
    """Time and energy of something that one chip does, and the counts that they follow from.

    Attributes
    ----------
    time_s : float
        Seconds from start to end.
    energy_j : float
        Joules of what is done.
    static_j : float
        Joules that the whole chip takes meanwhile, whatever it does; not part of `energy_j`.
    counts : dict
        Count of the op table, such as ``adc_conversions``, -> how often, or seconds where the name
        ends in ``_s``. Names that begin with ``serial_`` count what happens one after the other
        and decide the time.
    """

    time_s: float
    energy_j: float
    static_j: float
    counts: dict[str, float]

    def __add__(self, other: "Cost") -> "Cost":
        names = dict.fromkeys([*self.counts, *other.counts])
        return Cost(
            self.time_s + other.time_s,
            self.energy_j + other.energy_j,
            self.static_j + other.static_j,
            {name: self.counts.get(name, 0) + other.counts.get(name, 0) for name in names},
        )


def priced(counts: Counts, hardware: Hardware) -> Cost:
    """Price the counts of one operation, as plans are priced.

    Parameters
    ----------
    counts : dict
        Column of the op table -> (1,) array or number.
    hardware : Hardware
        Where it happens.
    """
    columns = {name: np.reshape(np.asarray(value), 1) for name, value in counts.items()}
    costs = price(OpTable({"op": np.zeros(1, np.int32), **columns}), hardware.costs)
    time_s = float(costs.duration_s[0])
    return Cost(
        time_s=time_s,
        energy_j=float(costs.energy_j[0]),
        static_j=hardware.costs.static_w * time_s,
        counts={name: value[0].item() for name, value in columns.items()},
    )

"""What one operation of a solve costs, as plain numbers that choose between ways to solve."""

import dataclasses
from collections.abc import Callable
from typing import Literal

from repast_dist.analog.solution import SolveCounts

Objective = Literal["energy", "time", "energy_delay"]


@dataclasses.dataclass(frozen=True)
class OperationPrices:
    """Prices of the operations of `SolveCounts` for one block, in one unit.

    Attributes
    ----------
    inv_op, vmm_op, digital_op : float
        Of the conversions of one settling, of one product, and of one digital operation. Products
        between the settlings of an inverse by halves are smaller; what they save is taken off the
        settlings.
    settling_s : float
        Of a second of settling.
    """

    inv_op: float = 1.0
    vmm_op: float = 1.0
    digital_op: float = 0.0
    settling_s: float = 0.0

    def of(self, counts: SolveCounts) -> float:
        """Return the price of counts; what was programmed has none."""
        return (
            self.inv_op * counts.inv_ops
            + self.vmm_op * counts.vmm_ops
            + self.digital_op * counts.digital_ops
            + self.settling_s * counts.settling_s
        )


@dataclasses.dataclass(frozen=True)
class Prices:
    """Prices of the operations of a solve with one block.

    Attributes
    ----------
    energy, time : OperationPrices
        In joules and in seconds.
    """

    energy: OperationPrices = OperationPrices()
    time: OperationPrices = OperationPrices()

    def of(self, counts: SolveCounts, objective: Objective) -> float:
        """Return the energy of counts, their time, or the product of both."""
        energy, time = self.energy.of(counts), self.time.of(counts)
        return {"energy": energy, "time": time, "energy_delay": energy * time}[objective]


PriceList = Callable[[int], Prices]
"""The prices for a block of so many rows."""


def by_number(size: int) -> Prices:
    """Return prices where no hardware is known: settlings and products count alike."""
    return Prices()

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
    side_op : float
        Of the conversions of a settling that takes place beside others.
    moved : float
        Of a number that digital operations move.
    settling_s : float
        Of a second of settling.
    array : float
        Of writing the inverting arrays of a block.
    """

    inv_op: float = 1.0
    vmm_op: float = 1.0
    digital_op: float = 0.0
    side_op: float = 1.0
    moved: float = 0.0
    settling_s: float = 0.0
    array: float = 0.0

    def of(self, counts: SolveCounts) -> float:
        """Return the price of counts; the cells that were programmed have none."""
        return (
            (self.side_op if counts.beside else self.inv_op) * counts.inv_ops
            + self.vmm_op * counts.vmm_ops
            + self.digital_op * counts.digital_ops
            + self.moved * counts.moved
            + self.settling_s * counts.settling_s
        )


@dataclasses.dataclass(frozen=True)
class Prices:
    """Prices of the operations of a solve with one block.

    Attributes
    ----------
    energy, time : OperationPrices
        In joules and in seconds.
    right_sides : int
        Right-hand sides that are solved for between two writings of the block.
    """

    energy: OperationPrices = OperationPrices()
    time: OperationPrices = OperationPrices()
    right_sides: int = 1

    def of(
        self,
        counts: SolveCounts,
        objective: Objective,
        times: float = 1.0,
        *,
        written: bool = False,
    ) -> float:
        """Return the energy of counts, their time, or the product of both.

        Parameters
        ----------
        counts : SolveCounts
            What the hardware does.
        objective : {"energy", "time", "energy_delay"}
            What is asked for.
        times : float
            So often.
        written : bool
            Whether inverting arrays are written for it, once.
        """
        energy, time = (
            times * one.of(counts) + written * one.array for one in (self.energy, self.time)
        )
        return {"energy": energy, "time": time, "energy_delay": energy * time}[objective]

    def for_right_sides(self, number: int) -> "Prices":
        """Return the prices of a block that is solved for so many right-hand sides."""
        return dataclasses.replace(self, right_sides=number)


PriceList = Callable[[int], Prices]
"""The prices for a block of so many rows."""


def by_number(size: int) -> Prices:
    """Return prices where no hardware is known: settlings and products count alike."""
    return Prices()

"""Which SOI blocks are cheaper fused: inverted from activations, without forming their product.

Compared is the work for one block and step, whoever does which part of it, so that the choice does
not depend on the number of chips: forming the product in every micro-batch, with the rows that are
written for that alone, averaging it, writing and solving; or writing and solving without it. What
is left out is the exchange: n (n + 1) / 2 numbers of a product, n times the rows of a batch.
"""

import dataclasses
from functools import cached_property

import numpy as np

from repast_dist.hardware.geometry import Counts, product_counts, with_buffers, write_counts
from repast_dist.hardware.hardware import Hardware
from repast_dist.ops.pricing import duration_of, energy_of
from repast_dist.planning.block_costs import BlockWork, average_counts
from repast_dist.planning.solves import BlockShapes, can_fuse, fuse
from repast_dist.planning.specs import Policy, StepWork


@dataclasses.dataclass(frozen=True, eq=False)
class Fusion:
    """Modelled work of each block per step with and without fusion, and what is cheaper. What
    nobody asks for is not worked out.

    Attributes
    ----------
    shapes : BlockShapes
        The blocks, none of them fused.
    rows_written : ndarray of bool
        Whether the rows of a block are written into arrays only to form its product: errors are,
        inputs are there for the gradients.
    hardware : Hardware
        The chip they are solved on.
    policy : Policy
        How they are solved, and how often they are renewed.
    work : StepWork
        Micro-batches, and whether factors are products of rows.
    """

    shapes: BlockShapes
    rows_written: np.ndarray
    hardware: Hardware
    policy: Policy
    work: StepWork

    @cached_property
    def chosen(self) -> np.ndarray:
        """Mask of the blocks to fuse by ``soi.fusion``: none, all that fit, or those that take less
        of what ``partition.objective`` names, time unless it is energy, each by itself.
        """
        if self.policy.soi.fusion == "off":
            return np.zeros(len(self.shapes), bool)
        if self.policy.soi.fusion == "on":
            return self.possible
        if self.policy.partition.objective == "energy":
            return np.asarray(self.fused_j < self.apart_j)
        return np.asarray(self.fused_s < self.apart_s)

    @cached_property
    def apart_s(self) -> np.ndarray:
        """Modelled time per block and step on one copy, without fusion."""
        seconds = self._formed[0] / self.policy.soi.factor_interval
        return np.asarray(seconds + self._apart.costs.per_step_s)

    @cached_property
    def apart_j(self) -> np.ndarray:
        """Modelled energy, likewise."""
        joules = self._formed[1] / self.policy.soi.factor_interval
        return np.asarray(joules + self._apart.energy_j)

    @cached_property
    def fused_s(self) -> np.ndarray:
        """Modelled time with fusion, infinite if the activations do not fit an inverting array."""
        seconds = self._kept[0] / self.policy.soi.factor_interval + self._inside.costs.per_step_s
        return np.where(self.possible, seconds, np.inf)

    @cached_property
    def fused_j(self) -> np.ndarray:
        """Modelled energy, likewise."""
        joules = self._kept[1] / self.policy.soi.factor_interval + self._inside.energy_j
        return np.where(self.possible, joules, np.inf)

    @cached_property
    def possible(self) -> np.ndarray:
        """Mask of the blocks that fit and that the method and the inversion can do without their
        product.
        """
        fits = can_fuse(self.shapes, self.hardware.chip)
        return fits & self.work.fusible & self.policy.inversion.fusible

    @cached_property
    def _apart(self) -> BlockWork:
        """Work on the blocks if none is fused."""
        return BlockWork(self.shapes, self.hardware, self.policy)

    @cached_property
    def _inside(self) -> BlockWork:
        """Work on the blocks if all that may be are fused."""
        shapes = fuse(self.shapes, self.possible, self.hardware)
        return BlockWork(shapes, self.hardware, self.policy)

    @cached_property
    def _kept(self) -> tuple[np.ndarray, np.ndarray]:
        """Time and energy of putting new rows into buffers."""
        counts = average_counts(self._inside.shapes, self.hardware)
        return _priced(counts, self.hardware, len(self.shapes))

    @cached_property
    def _formed(self) -> tuple[np.ndarray, np.ndarray]:
        times = self.policy.soi.forming(self.work.micro_batches)
        bits = self.policy.soi.factor_bits
        return _forming(self.shapes, self.rows_written, self.hardware, times, bits)


def _forming(
    shapes: BlockShapes,
    rows_written: np.ndarray,
    hardware: Hardware,
    micro_batches: int,
    factor_bits: int | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return time and energy of the products of all micro-batches that form factors in a step, and
    of averaging.
    """
    chip, g, n = hardware.chip, hardware.geometry, shapes.size
    held = shapes.fresh // micro_batches
    banks = np.ones(len(n), np.int64)
    forming = hardware.factor_geometry(factor_bits)
    products = with_buffers(product_counts(forming, n, held, n), chip, banks)
    writes = write_counts(g, held, n, 1, chip.written_arrays_per_bank)
    written = {name: np.where(rows_written, values, 0) for name, values in writes.items()}
    seconds, joules = np.zeros((2, len(n)))
    for times, counts in (
        (micro_batches, products),
        (micro_batches, written),
        (1, average_counts(shapes, hardware)),
    ):
        spent_s, spent_j = _priced(counts, hardware, len(n))
        seconds += times * spent_s
        joules += times * spent_j
    return seconds, joules


def _priced(counts: Counts, hardware: Hardware, size: int) -> tuple[np.ndarray, np.ndarray]:
    costs = hardware.costs
    return duration_of(counts, costs, size), energy_of(counts, costs, size)

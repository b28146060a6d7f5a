"""Decides which SOI blocks are fused: inverted from activations, without forming their product.

Compared is the work for one block and step, whoever does which part of it, so that the choice does
not depend on the number of chips: forming the product in every micro-batch, with the rows that are
written for that alone, averaging it, writing and solving; or writing and solving without it. What
is left out is the exchange: n (n + 1) / 2 numbers of a product, n times the rows of a batch.
"""

import dataclasses

import numpy as np

from repast_dist.hardware.geometry import Counts, product_counts, with_buffers, write_counts
from repast_dist.hardware.hardware import Hardware
from repast_dist.ops.pricing import duration_of, energy_of
from repast_dist.planning.block_costs import average_counts, block_costs, block_energy_j
from repast_dist.planning.solves import BlockShapes, can_fuse, fuse
from repast_dist.planning.specs import Policy, StepWork


@dataclasses.dataclass(frozen=True, eq=False)
class Fusion:
    """Modelled work of each block per step with and without fusion, and what was chosen.

    Attributes
    ----------
    apart_s, fused_s : ndarray
        Modelled time per block and step on one copy, without and with fusion; `fused_s` is infinite
        if the activations do not fit an inverting array.
    apart_j, fused_j : ndarray
        Modelled energy, likewise.
    chosen : ndarray of bool
        Whether the block is fused.
    """

    apart_s: np.ndarray
    fused_s: np.ndarray
    apart_j: np.ndarray
    fused_j: np.ndarray
    chosen: np.ndarray


def choose_fusion(
    shapes: BlockShapes,
    rows_written: np.ndarray,
    hardware: Hardware,
    policy: Policy,
    work: StepWork,
) -> Fusion:
    """Choose the blocks to fuse by ``soi.fusion``: none, all that fit, or those that take less of
    what ``partition.objective`` names.

    Parameters
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
    formed_s, formed_j = _forming(shapes, rows_written, hardware, work)
    interval = policy.soi.factor_interval
    apart_s = formed_s / interval + block_costs(shapes, hardware, policy).per_step_s
    apart_j = formed_j / interval + block_energy_j(shapes, hardware, policy)
    possible = can_fuse(shapes, hardware.chip) & work.fusible & policy.inversion.fusible
    inside = fuse(shapes, possible, hardware)
    fused_s = np.where(possible, block_costs(inside, hardware, policy).per_step_s, np.inf)
    fused_j = np.where(possible, block_energy_j(inside, hardware, policy), np.inf)
    time = policy.partition.objective == "time"
    cheaper = fused_s < apart_s if time else fused_j < apart_j
    none = np.zeros(len(shapes), bool)
    chosen = {"off": none, "on": possible, "auto": cheaper}[policy.soi.fusion]
    return Fusion(apart_s, fused_s, apart_j, fused_j, chosen)


def _forming(
    shapes: BlockShapes, rows_written: np.ndarray, hardware: Hardware, work: StepWork
) -> tuple[np.ndarray, np.ndarray]:
    """Return time and energy of the products of all micro-batches of a step, and of averaging."""
    chip, g, n = hardware.chip, hardware.geometry, shapes.size
    held = shapes.fresh // work.micro_batches
    banks = np.ones(len(n), np.int64)
    products = with_buffers(product_counts(g, n, held, n), chip, banks)
    writes = write_counts(g, held, n, 1, chip.written_arrays_per_bank)
    written = {name: np.where(rows_written, values, 0) for name, values in writes.items()}
    seconds, joules = np.zeros((2, len(n)))
    for times, counts in (
        (work.micro_batches, products),
        (work.micro_batches, written),
        (1, average_counts(shapes, hardware)),
    ):
        spent_s, spent_j = _priced(counts, hardware, len(n))
        seconds += times * spent_s
        joules += times * spent_j
    return seconds, joules


def _priced(counts: Counts, hardware: Hardware, size: int) -> tuple[np.ndarray, np.ndarray]:
    costs = hardware.costs
    return duration_of(counts, costs, size), energy_of(counts, costs, size)

"""How evenly inversion work is spread over chips by other placements than the machine's own."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from repast_dist.network.shapes import Workload
from repast_dist.planning.blocks import soi_blocks
from repast_dist.planning.machine import Machine
from repast_dist.planning.owners import balance, block_owners


def placement_rows(
    workloads: Sequence[Workload], machine: Machine, chips: Sequence[int]
) -> list[dict[str, Any]]:
    """Return the balance of inversion work: whole factors and split blocks, with cost n^3."""
    rows = []
    for workload in workloads:
        for count in chips:
            for label, efficiency in _placements(workload, machine.policy.soi.block_size, count):
                rows.append(
                    {
                        "network": workload.name,
                        "chips": count,
                        "placement": label,
                        "efficiency": efficiency,
                    }
                )
    return rows


def _placements(workload: Workload, block_size: int, chips: int) -> list[tuple[str, float]]:
    widest = max(
        (max(layer.factor_a_size, layer.factor_g_size) for layer in workload.layers), default=1
    )
    found = []
    for label, size, strategy in (
        ("whole layers (n^3)", max(widest, 1), "layer"),
        ("blocks, round robin", block_size, "round_robin"),
        ("blocks, longest first", block_size, "lpt"),
    ):
        blocks = soi_blocks(workload, size)
        work = np.array([float(block.size) ** 3 for block in blocks])
        owner = block_owners(blocks, work, chips, strategy)  # type: ignore[arg-type]
        kinds = [block.factor for block in blocks]
        found.append((label, balance(work, owner, chips, kinds)))
    return found

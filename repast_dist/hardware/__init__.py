"""What a chip is and what its operations cost."""

from repast_dist.hardware.components import (
    Component,
    ComponentTable,
    Quantity,
    UnitCosts,
    unit_costs,
)
from repast_dist.hardware.geometry import Geometry, array_count, product_counts, write_counts
from repast_dist.hardware.hardware import Hardware
from repast_dist.hardware.interconnect import InterconnectSpec
from repast_dist.hardware.optable import OPS, OpTable, concatenate, op_rows, trace_columns
from repast_dist.hardware.pricing import Costs, price
from repast_dist.hardware.specs import ChipSpec, InvArraySpec, VmmArraySpec, instances
from repast_dist.hardware.topology import TOPOLOGIES, Topology
from repast_dist.hardware.tree import TreeRow, chip_tree

__all__ = [
    "OPS",
    "TOPOLOGIES",
    "ChipSpec",
    "Component",
    "ComponentTable",
    "Costs",
    "Geometry",
    "Hardware",
    "InterconnectSpec",
    "InvArraySpec",
    "OpTable",
    "Quantity",
    "Topology",
    "TreeRow",
    "UnitCosts",
    "VmmArraySpec",
    "array_count",
    "chip_tree",
    "concatenate",
    "instances",
    "op_rows",
    "price",
    "product_counts",
    "trace_columns",
    "unit_costs",
    "write_counts",
]

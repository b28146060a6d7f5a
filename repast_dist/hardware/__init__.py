"""What a chip is and what its operations cost."""

from repast_dist.hardware.components import (
    Component,
    ComponentTable,
    Quantity,
    UnitCosts,
    unit_costs,
)
from repast_dist.hardware.optable import OPS, OpTable, concatenate, op_rows, trace_columns
from repast_dist.hardware.pricing import Costs, price, price_ops
from repast_dist.hardware.specs import ChipSpec, InvArraySpec, VmmArraySpec, inv_spec, vmm_spec
from repast_dist.hardware.tree import TreeRow, chip_area_m2, chip_peak_power_w, chip_tree

__all__ = [
    "OPS",
    "ChipSpec",
    "Component",
    "ComponentTable",
    "Costs",
    "InvArraySpec",
    "OpTable",
    "Quantity",
    "TreeRow",
    "UnitCosts",
    "VmmArraySpec",
    "chip_area_m2",
    "chip_peak_power_w",
    "chip_tree",
    "concatenate",
    "inv_spec",
    "op_rows",
    "price",
    "price_ops",
    "trace_columns",
    "unit_costs",
    "vmm_spec",
]

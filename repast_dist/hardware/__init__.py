"""Describes chips and the network between them, and prices what they do."""

from repast_dist.hardware.components import (
    Amplifier,
    Component,
    ComponentTable,
    Quantity,
    quantities,
    unit_costs,
)
from repast_dist.hardware.geometry import Geometry, array_count, product_counts, write_counts
from repast_dist.hardware.hardware import Hardware
from repast_dist.hardware.interconnect import InterconnectSpec
from repast_dist.hardware.parts import PARTS, Part, UnitCosts
from repast_dist.hardware.specs import ChipSpec, InvArraySpec, VmmArraySpec
from repast_dist.hardware.topology import TOPOLOGIES, Topology
from repast_dist.hardware.tree import TreeRow, chip_tree

__all__ = [
    "PARTS",
    "TOPOLOGIES",
    "Amplifier",
    "ChipSpec",
    "Component",
    "ComponentTable",
    "Geometry",
    "Hardware",
    "InterconnectSpec",
    "InvArraySpec",
    "Part",
    "Quantity",
    "Topology",
    "TreeRow",
    "UnitCosts",
    "VmmArraySpec",
    "array_count",
    "chip_tree",
    "product_counts",
    "quantities",
    "unit_costs",
    "write_counts",
]

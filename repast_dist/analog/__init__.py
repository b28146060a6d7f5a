"""What a crossbar computes: multiplication, inversion, and precision composed from both."""

from repast_dist.analog.arrays.inv import program_inv
from repast_dist.analog.arrays.vmm import VmmArray, program_vmm
from repast_dist.analog.inversion import BlockSolver, Solution, SolveCounts, prepare, prepare_fused
from repast_dist.analog.specs import (
    AdcSpec,
    CellSpec,
    DacSpec,
    DeviceSpec,
    InversionSpec,
    InvSpec,
    OpAmpSpec,
    VmmSpec,
    WireSpec,
)

__all__ = [
    "AdcSpec",
    "BlockSolver",
    "CellSpec",
    "DacSpec",
    "DeviceSpec",
    "InvSpec",
    "InversionSpec",
    "OpAmpSpec",
    "Solution",
    "SolveCounts",
    "VmmArray",
    "VmmSpec",
    "WireSpec",
    "prepare",
    "prepare_fused",
    "program_inv",
    "program_vmm",
]

"""What a crossbar computes: multiplication, inversion, and precision composed from both."""

from repast_dist.analog.arrays.inv import program_inv
from repast_dist.analog.arrays.vmm import VmmArray, VmmProduct, program_vmm
from repast_dist.analog.cells.base import CELLS, Cell
from repast_dist.analog.cells.reram import Reram
from repast_dist.analog.product import LOSSLESS
from repast_dist.analog.schemes.base import SCHEMES, Scheme
from repast_dist.analog.solution import Solution, SolveCounts
from repast_dist.analog.solver import BlockSolver
from repast_dist.analog.specs import (
    AdcSpec,
    CurveSpec,
    DacSpec,
    DeviceSpec,
    InvSpec,
    OpAmpSpec,
    VmmSpec,
    WireSpec,
)
from repast_dist.analog.system import Rows, prepare

__all__ = [
    "CELLS",
    "LOSSLESS",
    "SCHEMES",
    "AdcSpec",
    "BlockSolver",
    "Cell",
    "CurveSpec",
    "DacSpec",
    "DeviceSpec",
    "InvSpec",
    "OpAmpSpec",
    "Reram",
    "Rows",
    "Scheme",
    "Solution",
    "SolveCounts",
    "VmmArray",
    "VmmProduct",
    "VmmSpec",
    "WireSpec",
    "prepare",
    "program_inv",
    "program_vmm",
]

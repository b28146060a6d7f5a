"""What somebody who writes a part needs: the base classes of all kinds, and where they register.

A part is one class in a file that ``plugins=[my_part.py]`` names::

    from typing import Literal
    from repast_dist.parts import SCHEMES, IterativeScheme, spec

    @SCHEMES.register
    @spec
    class MyScheme(IterativeScheme):
        method: Literal["mine"] = "mine"
        ...

The docstring of a base class says what a member must have.
"""

from repast_dist.analog.cells.base import CELLS, Cell
from repast_dist.analog.schemes.base import SCHEMES, ArrayScheme, IterativeScheme, Scheme
from repast_dist.ground.registry import Registry
from repast_dist.ground.spec import spec
from repast_dist.hardware.topology import TOPOLOGIES, Topology
from repast_dist.network.layer import LAYERS, Layer
from repast_dist.network.tables import NETWORKS, NetworkTable
from repast_dist.studies.measure import MEASURES, Measure
from repast_dist.studies.study import STUDIES, PointStudy, Study
from repast_dist.training.datasets import DATASETS, Dataset, DataSource
from repast_dist.training.optimizers import (
    OPTIMIZERS,
    LayerStatistics,
    Optimizer,
    SecondOrder,
    Update,
)

__all__ = [
    "CELLS",
    "DATASETS",
    "LAYERS",
    "MEASURES",
    "NETWORKS",
    "OPTIMIZERS",
    "SCHEMES",
    "STUDIES",
    "TOPOLOGIES",
    "ArrayScheme",
    "Cell",
    "DataSource",
    "Dataset",
    "IterativeScheme",
    "Layer",
    "LayerStatistics",
    "Measure",
    "NetworkTable",
    "Optimizer",
    "PointStudy",
    "Registry",
    "Scheme",
    "SecondOrder",
    "Study",
    "Topology",
    "Update",
    "spec",
]

"""PyTorch networks on the simulated arrays: ``import repast_dist.torch as rt``.

Only this room imports PyTorch, which the extra ``torch`` installs.
"""

import importlib.util

if importlib.util.find_spec("torch") is None:
    raise ModuleNotFoundError(
        "repast_dist.torch needs PyTorch: pip install 'repast-dist[torch]'", name="torch"
    )

from repast_dist.torch.conversion import CLASSES, Conversion, Treatment, conversion, convert
from repast_dist.torch.fisher import Likelihood
from repast_dist.torch.kfac import KFAC
from repast_dist.torch.layers.base import Converted
from repast_dist.torch.matrices import Matrix, Part

__all__ = [
    "CLASSES",
    "KFAC",
    "Conversion",
    "Converted",
    "Likelihood",
    "Matrix",
    "Part",
    "Treatment",
    "conversion",
    "convert",
]

"""Every optimizer has a file of its own and is found by its name (`base.OPTIMIZERS`)."""

from repast_dist.training.optimizers.base import (
    OPTIMIZERS,
    Arrays,
    Fisher,
    LayerStatistics,
    Optimizer,
    SecondOrder,
    Side,
    Update,
    heavy_ball,
    zeros,
)

__all__ = [
    "OPTIMIZERS",
    "Arrays",
    "Fisher",
    "LayerStatistics",
    "Optimizer",
    "SecondOrder",
    "Side",
    "Update",
    "heavy_ball",
    "zeros",
]

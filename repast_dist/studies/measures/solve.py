"""Solve one block of a real Kronecker factor on the simulated arrays."""

import functools
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from repast_dist.ground.numbers import PositiveInt
from repast_dist.ground.spec import spec
from repast_dist.studies.measure import MEASURES, Measure

if TYPE_CHECKING:
    from repast_dist.studies.factors import Factor
    from repast_dist.studies.settings import RunSettings
    from repast_dist.training.datasets import DataSource
    from repast_dist.training.models import ModelSource
    from repast_dist.training.specs import TrainSpec
from repast_dist.training.optimizers import Optimizer


@MEASURES.register
@spec
class SolveMeasure(Measure):
    """Bits, rounds and price of ``inversion`` on a block of the network's widest factor.

    Attributes
    ----------
    steps : int
        Steps of training, in float64, behind the factor.
    columns : int
        Right-hand sides: columns of the last gradient that are not zero, at most.
    """

    kind: Literal["solve"] = "solve"
    reads: ClassVar[tuple[str, ...]] = (
        "seed", "model", "dataset", "optimizer", "train", "chip", "device", "components",
        "inversion", "soi.block_size",
    )  # fmt: skip
    steps: PositiveInt = 10
    columns: PositiveInt = 16

    def record(self, settings: "RunSettings") -> dict[str, Any]:
        """Take the block from the middle of the factor, damp it, program it and solve."""
        from repast_dist.studies.precision.points import middle_of_widest, precision_point
        from repast_dist.studies.precision.prices import priced_row

        parts = (settings.model, settings.dataset, settings.optimizer, settings.train)
        factors = _factors(*parts, self.steps, settings.seed)
        point = middle_of_widest(settings, factors, self.columns, {"": settings.inversion})
        record = precision_point(factors, point)
        (row,) = record["rows"]
        priced = priced_row(row, settings.hardware, settings.inversion, record["columns"])
        return {name: value for name, value in priced.items() if name != "method"}


@functools.lru_cache(maxsize=4)
def _factors(
    model: "ModelSource", dataset: "DataSource", optimizer: "Optimizer", train: "TrainSpec",
    steps: int, seed: int,
) -> "list[Factor]":  # fmt: skip
    """Return the factors of a network, trained once for all points that differ elsewhere."""
    from repast_dist.ground.errors import DataError
    from repast_dist.studies.factors import capture_factors

    factors = capture_factors(model, dataset, optimizer, train, steps, seed)
    if not factors:
        raise DataError("model: no layer has Kronecker factors; valid: a dense or conv layer")
    return factors

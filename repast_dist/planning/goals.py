"""What the arrays of a chip are divided among its layers for."""

import dataclasses

from repast_dist.ground.numbers import ceil_div
from repast_dist.planning.layer_ops import LayerWork
from repast_dist.planning.options import Setting
from repast_dist.planning.specs import PartitionSpec, Policy


@dataclasses.dataclass(frozen=True)
class Goal:
    """What is made small: ``per_s (sum_weight * sum of stages + most_weight * slowest stage + time
    of writing weights) + per_j * energy of writing weights``, if `lasting` of divisions in which
    the arrays that are filled most often are filled as seldom as possible.

    Where only some steps form factors, ``factor_shares`` are the micro-batches that do in the
    others and in these, as shares, and ``forming`` is how many of the steps they are: each kind of
    steps has a slowest stage of its own.
    """

    partition: PartitionSpec
    sum_weight: float
    most_weight: float
    per_s: float
    per_j: float
    factor_shares: tuple[float, ...]
    forming: float
    micro_batches: int
    lasting: bool

    @classmethod
    def of(cls, work: LayerWork, policy: Policy, stages: int) -> "Goal":
        step, partition = work.step, policy.partition
        replicas = step.chips // stages
        micro_batches = ceil_div(step.micro_batches, replicas)
        forming = 0
        if step.second_order:
            # Steps end when the replica that forms most factors does.
            forming = ceil_div(policy.soi.forming(step.micro_batches), replicas)
        samples = micro_batches * step.micro_batch_size
        energy = partition.objective == "energy"
        interval = policy.soi.factor_interval if forming else 1
        return cls(
            partition=partition,
            sum_weight=1.0 if partition.pipelining else float(samples),
            most_weight=samples - 1.0 if partition.pipelining else 0.0,
            per_s=work.hardware.costs.static_w if energy else 1.0,
            per_j=1.0 if energy else 0.0,
            factor_shares=(0.0,) * (interval > 1) + (forming / micro_batches,),
            forming=1.0 / interval,
            micro_batches=micro_batches,
            lasting=partition.objective == "lifetime",
        )

    @property
    def candidates(self) -> tuple[bool, int]:
        """What decides which numbers of arrays are tried, besides the layers: whether weights are
        copied, and the micro-batches of a step.
        """
        return self.partition.replicate_layers, self.micro_batches

    def settings(self, arrays: int) -> list[Setting]:
        """Return what decides the times of layers if so many arrays are used: with factors formed
        as in the average step and, where steps differ, as in those that form them.
        """
        most = self.factor_shares[-1]
        average = most * self.forming
        return [
            Setting(
                arrays,
                share,
                self.factor_shares,
                self.lasting,
            )
            for share in ([average] if self.lasting else sorted({average, most}))
        ]

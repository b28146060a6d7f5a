"""Puts hardware and the policy of its use together into a machine to plan for."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from repast_dist.ground.numbers import ceil_div
from repast_dist.hardware.hardware import Hardware
from repast_dist.network.shapes import Workload
from repast_dist.planning.idle import best_plan
from repast_dist.planning.plan import Plan
from repast_dist.planning.specs import Policy, StepWork
from repast_dist.training.optimizers.matrix_unit import MatrixMethod


@dataclasses.dataclass(frozen=True)
class Machine:
    """Hardware and policy, which together decide what a training step of a network costs.

    Attributes
    ----------
    hardware : Hardware
        Chips and the network between them.
    policy : Policy
        How second-order information is kept, spread and solved with.
    """

    hardware: Hardware
    policy: Policy

    def changed(self, **parts: Any) -> "Machine":
        """Return a machine in which some fields of `Hardware` and `Policy` are replaced."""
        names = {field.name for field in dataclasses.fields(Hardware)}
        hardware = {name: part for name, part in parts.items() if name in names}
        policy = {name: part for name, part in parts.items() if name not in names}
        return Machine(
            dataclasses.replace(self.hardware, **hardware) if hardware else self.hardware,
            dataclasses.replace(self.policy, **policy) if policy else self.policy,
        )

    def plan(
        self,
        workload: Workload,
        chips: int,
        batch: int,
        micro_batch: int,
        sides: tuple[str, ...] = ("A", "G"),
        speeds: Sequence[float] = (),
        decay: float = 0.0,
        fusible: bool = True,
        fisher_passes: int = 1,
        update_operations: int = 3,
        clips: bool = True,
        damping_every: int = 0,
        matrices: MatrixMethod | None = None,
    ) -> Plan:
        """Return the plan of a step of `batch` samples, rounded up to whole micro-batches; other
        parameters are those of `StepWork`.
        """
        work = StepWork(
            chips=chips,
            micro_batches=ceil_div(batch, micro_batch),
            micro_batch_size=micro_batch,
            sides=sides,
            decay=decay,
            fusible=fusible,
            fisher_passes=fisher_passes,
            update_operations=update_operations,
            clips=clips,
            damping_every=damping_every,
            matrices=matrices,
            speeds=tuple(speeds),
        )
        return best_plan(workload, self.hardware, self.policy, work)

"""What the steps of an optimizer took on the chips, in the rows of the trace."""

import dataclasses
from collections.abc import Mapping

import pyarrow as pa

from repast_dist.analog import SolveCounts
from repast_dist.farm.clock import align
from repast_dist.farm.cost import CostRecorder
from repast_dist.network.shapes import Workload
from repast_dist.planning.machine import Machine
from repast_dist.planning.plan import Plan, make_plan
from repast_dist.planning.specs import StepWork
from repast_dist.trace import SCHEMA


@dataclasses.dataclass(frozen=True)
class StepKind:
    """What of a step decides its plan.

    Attributes
    ----------
    workload : Workload
        The network.
    micro_batches, micro_batch_size : int
        Micro-batches, and samples of the largest.
    sides : tuple of str
        Factors that the method has.
    fisher_passes : int
        Backward passes beside that of the loss.
    """

    workload: Workload
    micro_batches: int
    micro_batch_size: int
    sides: tuple[str, ...]
    fisher_passes: int


class StepCosts:
    """The trace of all steps so far.

    Parameters
    ----------
    machine : Machine
        The chips and the policy of their use.
    chips : int
        How many there are.
    """

    def __init__(self, machine: Machine, chips: int) -> None:
        self._machine, self._chips = machine, chips
        self._plans: dict[StepKind, tuple[Plan, CostRecorder]] = {}
        self._batches: list[pa.RecordBatch] = []
        self.clock_s = 0.0
        self.plan: Plan | None = None

    def planned(self, kind: StepKind) -> Plan:
        """Return the plan of a kind of step."""
        return self._planned(kind)[0]

    def add(
        self,
        kind: StepKind,
        step: int,
        factors_due: bool,
        inverses_due: bool,
        solves: Mapping[tuple[int, int], SolveCounts],
    ) -> float:
        """Price a step from what the arrays of its blocks did; return the seconds it took.

        Parameters
        ----------
        kind : StepKind
            What decides its plan.
        step : int
            Its number.
        factors_due, inverses_due : bool
            Whether it updated averages, and whether it programmed blocks.
        solves : mapping
            (chip, block) -> counts of programming and solving.
        """
        self.plan, recorder = self._planned(kind)
        recorder.price(step, factors_due, inverses_due, solves)
        rows, ends = align([recorder.take()], step, self.clock_s)
        self._batches.append(rows)
        before, self.clock_s = self.clock_s, ends[-1]
        return self.clock_s - before

    def batches(self) -> list[pa.RecordBatch]:
        """Return the rows of all steps, in order."""
        return list(self._batches)

    @property
    def table(self) -> pa.Table:
        """The rows of all steps, with the schema of the trace."""
        return pa.Table.from_batches(self._batches, SCHEMA)

    def _planned(self, kind: StepKind) -> tuple[Plan, CostRecorder]:
        if kind not in self._plans:
            work = StepWork(
                chips=self._chips,
                micro_batches=kind.micro_batches,
                micro_batch_size=kind.micro_batch_size,
                sides=kind.sides,
                fisher_passes=kind.fisher_passes,
            )
            machine = self._machine
            plan = make_plan(kind.workload, machine.hardware, machine.policy, work)
            chips = range(self._chips)
            self._plans[kind] = plan, CostRecorder(chips, plan, chips)
        return self._plans[kind]

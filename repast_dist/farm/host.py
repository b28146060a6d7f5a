"""A host of simulated chips: a plain object without Ray, which an actor wraps.

It runs its chips' micro-batches, reduces the pieces its chips own, keeps the averages and solvers
of their SOI blocks, and prices what they did. Results depend on what is asked, never on which
host is asked, so work can be moved and repeated freely.
"""

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from repast_dist.analog import SolveCounts
from repast_dist.errors import RepastError
from repast_dist.farm.exchange import (
    Area,
    SolveTask,
    TreeNode,
    TreeSum,
    common,
    within,
)
from repast_dist.farm.job import HostSetup, chip_engine
from repast_dist.farm.keeper import BlockKeeper, SolveReport
from repast_dist.farm.ledger import ChipLedger
from repast_dist.farm.sampling import micro_batch_samples
from repast_dist.training.model import build_model
from repast_dist.training.step import (
    Evaluation,
    LoadedModel,
    MicroBatchResult,
    evaluate,
    load_weights,
    run_micro_batch,
)

Weights = Mapping[str, np.ndarray]


class ChipHost:
    """Some chips of the farm and their state.

    Parameters
    ----------
    chips : tuple of int
        The chips this host holds.
    setup : HostSetup
        Settings, plan and data, the same for all hosts.
    """

    def __init__(self, chips: tuple[int, ...], setup: HostSetup) -> None:
        self._chips = chips
        self.reassign(setup)

    def reassign(self, setup: HostSetup) -> None:
        """Take another plan; all state is gone until `restore`."""
        job = setup.job
        self._setup = setup
        self._model = build_model(job.model)
        self._engines = {chip: chip_engine(job, chip) for chip in self._chips}
        self._pieces = [piece for piece in setup.pieces if piece.chip in self._chips]
        self._host = setup.routes[self._chips[0]]
        self._parcels = {host: setup.parcel(host) for host in setup.hosts}
        self._keepers = {
            (chip, number): BlockKeeper(
                setup.plan.blocks[number],
                chip,
                self._engines[chip],
                job.inversion,
                job.optimizer.factor_decay,
            )
            for chip, number in sorted(setup.held)
            if chip in self._chips
        }
        self._ledgers = {chip: ChipLedger(chip, setup) for chip in self._chips}
        self._own_sums: dict[TreeNode, np.ndarray] = {}
        self._own_parts: dict[Area, np.ndarray] = {}
        self._gradients: dict[Area, np.ndarray] = {}
        self._reports: list[SolveReport] = []
        self._busy_s: dict[str, float] = {}

    def process_id(self) -> int:
        """Return the operating-system process that holds these chips."""
        return os.getpid()

    def train(self, step: int, weights: Weights, factors_due: bool) -> tuple[Any, ...]:
        """Run this host's micro-batches.

        Returns
        -------
        tuple
            First a list of (micro-batch, loss sum, correct); then, per live host in ascending
            order, tree node -> `Parcel` vector of its sum; what stays on this host is kept.
        """
        with self._timed("train"):
            count = self._setup.job.train.micro_batches
            sums = {host: TreeSum(count) for host in self._setup.hosts}
            outcomes = []
            for engine in self._engines.values():
                engine.meter.take()
            for chip in self._chips:
                loaded = None
                for micro_batch in range(count):
                    if self._setup.micro_batch_owner(micro_batch) != chip:
                        continue
                    if loaded is None:
                        loaded = load_weights(self._model, weights, self._engines[chip], step)
                    result = self._run(loaded, chip, step, micro_batch, factors_due)
                    outcomes.append((micro_batch, result.loss_sum, result.correct))
                    for host, parcel in self._parcels.items():
                        vector = parcel.pack(result.gradients, result.factors)
                        sums[host].add((0, micro_batch), vector)
            self._own_sums = sums.pop(self._host).nodes
        return (outcomes, *(sums[h].nodes if h in sums else None for h in self._setup.hosts))

    def reduce(self, step: int, *payloads: Mapping[TreeNode, np.ndarray]) -> dict[str, Any]:
        """Add up the contributions of all micro-batches and update the averages.

        Parameters
        ----------
        step : int
            The training step.
        *payloads
            What the other hosts' `train` returned for this one.

        Returns
        -------
        dict
            ``gradients``: area -> mean gradient of the batch; ``traces``: block -> trace of its
            running average.
        """
        with self._timed("reduce"):
            whole = TreeSum(self._setup.job.train.micro_batches)
            for payload in (self._own_sums, *payloads):
                for node, vector in payload.items():
                    whole.add(node, vector)
            mean = whole.total / self._setup.job.train.batch_size
            parcel = self._parcels[self._host]
            self._gradients = parcel.gradients(mean)
            factors = parcel.factors(mean)
            for (_, number), keeper in self._keepers.items():
                if number in factors:
                    keeper.add(factors[number])
            self._reports, self._own_sums = [], {}
        traces = {number: keeper.trace for (_, number), keeper in self._keepers.items()}
        return {"gradients": self._gradients, "traces": traces}

    def solve_columns(self, step: int, damping: Mapping[int, float] | None) -> tuple[Any, ...]:
        """Solve this host's gradient pieces with their G blocks.

        Parameters
        ----------
        step : int
            The training step.
        damping : mapping or None
            Block -> damping with which the averages are programmed first; None: the arrays stay
            as they are.

        Returns
        -------
        tuple
            First None; then, per live host in ascending order, area -> solved values that tasks
            of that host's chips need; what stays on this host is kept.
        """
        if damping is not None:
            with self._timed("prepare"):
                for (_, number), keeper in self._keepers.items():
                    keeper.prepare(step, damping[number])
        with self._timed("solve_columns"):
            solved: dict[Area, np.ndarray] = {}
            for piece in self._pieces:
                if piece.block is not None:
                    # x G = dW for symmetric G: solve G x^T = dW^T.
                    right = np.ascontiguousarray(self._gradients[piece.area].T)
                    solved[piece.area] = self._solve(piece, step, right).T
            self._own_parts = self._parts_for(self._host, solved)
            others = [
                None if host == self._host else self._parts_for(host, solved)
                for host in self._setup.hosts
            ]
        return (None, *others)

    def finish(
        self,
        step: int,
        factors_due: bool,
        programmed: bool,
        *payloads: Mapping[Area, np.ndarray],
    ) -> dict[str, Any]:
        """Solve the rows of all columns with this host's A blocks, and price the whole step.

        Parameters
        ----------
        step : int
            The training step.
        factors_due, programmed : bool
            The step updated the running averages; programmed the blocks.
        *payloads
            What the other hosts' `solve_columns` returned for this one; nothing in a first-order
            step.

        Returns
        -------
        dict
            ``directions``: area -> preconditioned gradient; ``reports``: what the solves did;
            ``chips``: chip -> `ChipCost`; ``clipping``: per chip, what ->
            (clipped, all) ADC conversions of the products; ``busy_s``: part of the step -> wall
            time this host computed for.
        """
        with self._timed("solve_rows"):
            directions = self._solve_rows(step, payloads)
        with self._timed("cost"):
            counts: dict[int, dict[int, SolveCounts]] = {chip: {} for chip in self._chips}
            for (chip, number), keeper in self._keepers.items():
                counts[chip][number] = keeper.take_counts()
            chips = {
                chip: ledger.price(step, factors_due, programmed, counts[chip])
                for chip, ledger in self._ledgers.items()
            }
        busy_s, self._busy_s = self._busy_s, {}
        return {
            "directions": directions,
            "reports": self._reports,
            "chips": chips,
            "clipping": [engine.meter.take() for engine in self._engines.values()],
            "busy_s": busy_s,
        }

    def evaluate(
        self, step: int, weights: Weights, chunks: Sequence[int], size: int
    ) -> dict[int, Evaluation]:
        """Test the weights on some chunks of the test set; `size` samples each."""
        engine, data = self._engines[self._chips[0]], self._setup.data
        loaded = load_weights(self._model, weights, engine, step, with_backward=False)
        results = {}
        for chunk in chunks:
            part = slice(chunk * size, (chunk + 1) * size)
            results[chunk] = evaluate(loaded, data.test_inputs[part], data.test_labels[part])
        return results

    def state(self) -> dict[int, dict[str, np.ndarray]]:
        """Return block -> arrays of its average and of what it was programmed from."""
        return {number: keeper.state() for (_, number), keeper in self._keepers.items()}

    def restore(self, states: Mapping[int, dict[str, np.ndarray]]) -> None:
        """Go on from the states of a checkpoint; blocks of other hosts are ignored."""
        for (_, number), keeper in self._keepers.items():
            keeper.restore(states.get(number, {}))
        self._own_sums, self._own_parts = {}, {}
        self._gradients, self._reports, self._busy_s = {}, [], {}

    def _run(
        self, loaded: LoadedModel, chip: int, step: int, micro_batch: int, factors_due: bool
    ) -> MicroBatchResult:
        job, data = self._setup.job, self._setup.data
        samples = micro_batch_samples(
            job.seed, len(data.train_inputs), job.train, step, micro_batch
        )
        fisher = job.optimizer.fisher if factors_due else None
        try:
            return run_micro_batch(
                loaded,
                data.train_inputs[samples],
                data.train_labels[samples],
                samples,
                micro_batch,
                fisher,
                self._setup.factor_blocks,
            )
        except RepastError as error:
            raise type(error)(f"chip {chip}: {error}") from error

    def _solve_rows(
        self, step: int, payloads: Sequence[Mapping[Area, np.ndarray]]
    ) -> dict[Area, np.ndarray]:
        parts = dict(self._own_parts)
        for payload in payloads:
            parts |= payload
        self._own_parts = {}
        directions = {}
        for task in self._setup.tasks:
            if task.chip in self._chips:
                right = np.empty(task.shape)
                for area, values in parts.items():
                    if common(area, task.area) == area:
                        right[within(area, task.area)] = values
                directions[task.area] = self._solve(task, step, right)
        return directions

    def _solve(self, task: SolveTask, step: int, right: np.ndarray) -> np.ndarray:
        assert task.block is not None
        x, report = self._keepers[task.chip, task.block].solve(step, right)
        self._reports.append(report)
        return x

    def _parts_for(self, host: int, solved: Mapping[Area, np.ndarray]) -> dict[Area, np.ndarray]:
        """Return what the tasks of a host's chips need of the solved pieces."""
        parts = {}
        for task in self._setup.tasks:
            if self._setup.routes[task.chip] != host:
                continue
            for whole, values in solved.items():
                area = common(whole, task.area)
                if area is not None:
                    parts[area] = np.ascontiguousarray(values[within(area, whole)])
        return parts

    @contextlib.contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self._busy_s[part] = time.perf_counter() - started

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

from repast_dist.errors import RepastError
from repast_dist.farm.exchange import PieceKey, TreeNode, TreeSum
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
RowsKey = tuple[str, int, int, int]
"""(layer, first column, last column, first row) of a piece's rows that one A block solves."""


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
            block.index: BlockKeeper(
                block,
                setup.block_owner(block.index),
                self._engines[setup.block_owner(block.index)],
                job.inversion,
                job.optimizer.factor_decay,
            )
            for block in setup.plan.blocks
            if setup.block_owner(block.index) in self._chips
        }
        self._ledgers = {chip: ChipLedger(chip, setup) for chip in self._chips}
        self._own_sums: dict[TreeNode, np.ndarray] = {}
        self._own_rows: dict[RowsKey, np.ndarray] = {}
        self._gradients: dict[PieceKey, np.ndarray] = {}
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
            ``gradients``: piece key -> mean gradient of the batch; ``traces``: block -> trace of
            its running average.
        """
        with self._timed("reduce"):
            whole = TreeSum(self._setup.job.train.micro_batches)
            for payload in (self._own_sums, *payloads):
                for node, vector in payload.items():
                    whole.add(node, vector)
            mean = whole.total / self._setup.job.train.batch_size
            parcel = self._parcels[self._host]
            self._gradients = parcel.gradients(mean)
            for number, factor in parcel.factors(mean).items():
                self._keepers[number].add(factor)
            self._reports, self._own_sums = [], {}
        traces = {number: keeper.trace for number, keeper in self._keepers.items()}
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
            First None; then, per live host in ascending order, (layer, start, stop, first row) ->
            rows of the solved pieces that the A blocks of that host's chips need; what stays on
            this host is kept.
        """
        if damping is not None:
            with self._timed("prepare"):
                for number, keeper in self._keepers.items():
                    keeper.prepare(step, damping[number])
        with self._timed("solve_columns"):
            solved: dict[PieceKey, np.ndarray] = {}
            for piece in self._pieces:
                if piece.block is not None:
                    # x G = dW for symmetric G: solve G x^T = dW^T.
                    right = np.ascontiguousarray(self._gradients[piece.key].T)
                    x, report = self._keepers[piece.block].solve(step, right)
                    solved[piece.key] = x.T
                    self._reports.append(report)
            self._own_rows = self._rows_for(self._host, solved)
            others = [
                None if host == self._host else self._rows_for(host, solved)
                for host in self._setup.hosts
            ]
        return (None, *others)

    def finish(
        self,
        step: int,
        factors_due: bool,
        programmed: bool,
        *payloads: Mapping[RowsKey, np.ndarray],
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
            ``directions``: (layer, first row, last row) -> preconditioned rows; ``reports``: what
            the solves did; ``chips``: chip -> `ChipCost`; ``busy_s``: part of the step -> wall
            time this host computed for.
        """
        with self._timed("solve_rows"):
            directions = self._solve_rows(step, payloads)
        with self._timed("cost"):
            counts = {number: keeper.take_counts() for number, keeper in self._keepers.items()}
            chips = {
                chip: ledger.price(step, factors_due, programmed, counts)
                for chip, ledger in self._ledgers.items()
            }
        busy_s, self._busy_s = self._busy_s, {}
        return {
            "directions": directions,
            "reports": self._reports,
            "chips": chips,
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
        return {number: keeper.state() for number, keeper in self._keepers.items()}

    def restore(self, states: Mapping[int, dict[str, np.ndarray]]) -> None:
        """Go on from the states of a checkpoint; blocks of other hosts are ignored."""
        for number, keeper in self._keepers.items():
            keeper.restore(states.get(number, {}))
        self._own_sums, self._own_rows = {}, {}
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
        self, step: int, payloads: Sequence[Mapping[RowsKey, np.ndarray]]
    ) -> dict[PieceKey, np.ndarray]:
        rows = dict(self._own_rows)
        for payload in payloads:
            rows |= payload
        self._own_rows = {}
        directions = {}
        for keeper in self._keepers.values():
            block = keeper.block
            if block.factor != "A":
                continue
            keys = sorted(k for k in rows if k[0] == block.layer_name and k[3] == block.start)
            right = np.hstack([rows[key] for key in keys])
            x, report = keeper.solve(step, right)
            directions[block.layer_name, block.start, block.stop] = x
            self._reports.append(report)
        return directions

    def _rows_for(
        self, host: int, solved: Mapping[PieceKey, np.ndarray]
    ) -> dict[RowsKey, np.ndarray]:
        """Return the rows of solved pieces that the A blocks of a host's chips need."""
        rows = {}
        for block in self._setup.plan.blocks:
            owner = self._setup.routes[self._setup.block_owner(block.index)]
            if block.factor != "A" or owner != host:
                continue
            for (layer, start, stop), value in solved.items():
                if layer == block.layer_name:
                    part = np.ascontiguousarray(value[block.start : block.stop])
                    rows[layer, start, stop, block.start] = part
        return rows

    @contextlib.contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self._busy_s[part] = time.perf_counter() - started

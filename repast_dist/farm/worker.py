"""A worker of simulated chips: a plain object without Ray, which a Ray actor wraps.

It does whole training steps: its chips' micro-batches, the reduction and the solves of the pieces
its chips own, the price of all that, and the update of its copy of the weights. What other workers
need goes straight to them. Results depend on what is asked, never on which worker is asked, so work
can be moved and repeated freely.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from repast_dist.analog.kernels.chosen import current
from repast_dist.farm.cost import CostRecorder
from repast_dist.farm.exchange import LOSS, ROWS, Area, RowsOf, SolveTask, TreeSum, common, within
from repast_dist.farm.peers import Arrays, Peers
from repast_dist.farm.records import MicroBatchOutcome, StepReport, WorkerAnswer
from repast_dist.farm.replica import Replica
from repast_dist.farm.setup import FarmSetup, chip_engine, chip_engines
from repast_dist.farm.stages import StageRunner, distinct
from repast_dist.ground.errors import FarmError
from repast_dist.training.block_state import BlockState
from repast_dist.training.matrices import Matrices
from repast_dist.training.network import Evaluation
from repast_dist.training.optimizers import SecondOrder
from repast_dist.training.optimizers.matrix_unit import Due
from repast_dist.training.ranges import Ranges, largest, wider
from repast_dist.training.sampling import total_steps
from repast_dist.training.second_order import Preconditioner, under
from repast_dist.training.solve_report import SolveReport


class ChipWorker:
    """A worker: some chips of the farm, their state, and their part of every step.

    Parameters
    ----------
    chips : tuple of int
        The chips this worker holds.
    setup : FarmSetup
        Settings, plan and data, the same for all workers.
    peers : Peers
        The other workers.
    """

    def __init__(self, chips: tuple[int, ...], setup: FarmSetup, peers: Peers) -> None:
        self._chips, self._peers = chips, peers
        self.reassign(setup)

    def reassign(self, setup: FarmSetup) -> None:
        """Take another plan; this discards all state, so `restore` must follow."""
        job = setup.job
        self._setup, self._job = setup, job
        self._network = setup.network
        computing = [chip for chip in self._chips if chip in setup.computing]
        self._engines = chip_engines(job, computing, setup.schedule)
        self._arithmetics = distinct(self._engines.values())
        self._me = setup.routes[self._chips[0]]
        self._pieces = [piece for piece in setup.pieces if setup.routes[piece.chip] == self._me]
        self._tasks: dict[int, list[SolveTask]] = {worker: [] for worker in setup.workers}
        for task in setup.tasks:
            self._tasks[setup.routes[task.chip]].append(task)
        self._others = [worker for worker in setup.workers if worker != self._me]
        self._stages = range(len(setup.stages))
        self._buckets = {
            worker: [setup.bucket(worker, stage) for stage in self._stages]
            for worker in setup.workers
        }
        self._runner = StageRunner(setup, self._me, self._engines, self._peers, self._timed)
        self._second_order = Preconditioner(
            job.optimizer,
            setup.plan.blocks,
            job.machine.policy.soi,
            self._held_blocks(),
            setup.fused,
            setup.gradient_noise(),
        )
        owners = {
            layer: chip
            for layer, chip in setup.matrix_owners.items()
            if setup.routes[chip] == self._me
        }
        self._matrices = Matrices(
            job.optimizer.matrices, owners, setup.matrix_shapes, self._engines
        )
        some = chip_engine(job, self._chips[0])
        self._keeps_ranges = some.keeps_ranges
        self._follows = some.keeps_ranges and some.vmm is not None and some.vmm.adc.follows
        self._first_margin = job.machine.hardware.chip.adc.first_margin
        self._ranges: dict[str, np.ndarray] = {}
        places = [setup.place_of[chip] for chip in self._chips]
        self._costs = CostRecorder(self._chips, setup.plan, places)
        self._replica = Replica(setup, total_steps(len(setup.data.train_inputs), job.train))
        self._step = -1
        self._reports: list[SolveReport] = []
        self._squares: dict[str, float] = {}
        self._busy_s: dict[str, float] = {}

    def _held_blocks(self) -> dict[tuple[int, int], BlockState]:
        job, optimizer = self._job, self._job.optimizer.second_order
        if optimizer is None:
            return {}
        plan, policy, routes = self._setup.plan, job.machine.policy, self._setup.routes
        return {
            (chip, number): BlockState(
                plan.blocks[number],
                chip,
                self._engines[chip],
                policy.inversion,
                optimizer,
                int(plan.shapes.right_sides[number]) * policy.soi.interval,
                self._setup.held_rows(number),
                policy.soi.stale,
                policy.soi.renewal_change,
                policy.soi.keep_levels,
            )
            for chip, number in sorted(self._setup.held)
            if routes[chip] == self._me
        }

    def kernels(self) -> str:
        """Return the name of what its products are computed with.

        Raises
        ------
        SettingsError
            Its machine does not have the kernels that are asked for.
        """
        return current().name

    def advance(self, first: int, count: int) -> WorkerAnswer:
        """Do training steps together with all other workers.

        Parameters
        ----------
        first, count : int
            The steps; `first` must be the one that comes next.

        Raises
        ------
        PeersLost
            Other workers are gone.
        RepastError
            What a chip found wrong; chip, layer, block and step are named.
        """
        try:
            steps = tuple(self._do(step) for step in range(first, first + count))
        except BaseException:
            # The others must not wait for this worker.
            self._peers.close()
            self._step = -1
            raise
        return WorkerAnswer(self._costs.take(), self._replica.checksum(), steps)

    def evaluate(self, chunks: Sequence[int], size: int) -> dict[int, Evaluation]:
        """Evaluate the weights on some chunks of the test set, of `size` samples each."""
        data, setup = self._setup.data, self._setup
        # The same chip for all, whichever worker holds it: chips may differ.
        engine = chip_engine(self._job, setup.chips[0], setup.schedule)
        values = self._replica.values
        loaded = self._network.load(values, engine, self._step, with_backward=False)
        results = {}
        for chunk in chunks:
            part = slice(chunk * size, (chunk + 1) * size)
            results[chunk] = loaded.evaluate(data.test_inputs[part], data.test_labels[part])
        return results

    def common_state(self) -> dict[str, np.ndarray]:
        """Return the arrays that are the same on all workers, by name."""
        ranges = {f"ranges/{what}": values for what, values in self._ranges.items()}
        return self._replica.arrays() | self._second_order.common_state() | ranges

    def block_state(self) -> dict[str, np.ndarray]:
        """Return the arrays of the blocks and matrices that this worker's chips hold, by name."""
        return self._second_order.block_state() | self._matrices.arrays()

    def restore(self, step: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Load the states of all workers, to continue at a step; others' blocks are ignored."""
        self._step = step
        self._replica.restore(arrays)
        self._second_order.restore(arrays)
        self._matrices.restore(arrays)
        self._ranges = {}
        self._set_ranges(under("ranges", arrays))
        self._costs.clear()

    # One step ---------------------------------------------------------------------------

    def _do(self, step: int) -> StepReport:
        if step != self._step:
            raise FarmError(f"worker {self._me} is at step {self._step}, it was asked for {step}")
        statistics = self._second_order.statistics_due(step)
        programs = self._second_order.programs(step)
        self._busy_s, self._reports = {}, []

        calibrates = self._keeps_ranges and not self._ranges
        if calibrates:
            self._calibrate(step, statistics)
        outcomes, sums = self._train(step, statistics)
        losses = self._losses(step, outcomes)
        for found in sums.values():
            found |= losses
        own = sums.pop(self._me)
        self._peers.send(step, "sums", sums)
        received = self._peers.receive(step, "sums")

        with self._timed("reduce"):
            loss = self._adapt_damping(step, [own, *received.values()])
            gradients = self._reduce([own, *received.values()], statistics is not None)
        rule = self._second_order.rule
        damping = None if rule is None else rule.damping
        if programs:
            with self._timed("prepare"):
                self._second_order.program(step)
        with self._timed("solve_columns"):
            solved = self._solve_columns(step, gradients)
            needed = self._replica.needed(gradients)
            columns = {worker: self._parts_for(worker, solved) for worker in self._setup.workers}
        ranges = [self._needed_ranges()]
        self._peers.send(
            step, "columns", {h: _packed(columns[h], needed, ranges[0]) for h in self._others}
        )
        for message in self._peers.receive(step, "columns").values():
            columns[self._me] |= _unpacked("columns", message)
            needed |= _unpacked("gradients", message)
            ranges.append(_unpacked_ranges(message))

        with self._timed("solve_rows"):
            directions = self._solve_rows(step, columns[self._me])
        late: list[Ranges] = []
        if self._setup.matrix_owners:
            found = self._gathered(step, directions) if self._setup.preconditioned else gradients
            directions = self._matrix_directions(step, found)
            needs = self._needed_ranges()
            late = [wider(needs, self._first_margin) if calibrates else needs]
        message = _packed(directions, {}, largest(late))
        self._peers.send(step, "directions", dict.fromkeys(self._others, message))
        with self._timed("cost"):
            self._price(step, statistics is not None, programs, calibrates)
        for message in self._peers.receive(step, "directions").values():
            directions |= _unpacked("columns", message)
            late.append(_unpacked_ranges(message))

        with self._timed("update"):
            self._replica.update(step, needed, directions)
            self._second_order.measure(self._squares, self._replica.squares)
        if rule is not None:
            rule.note(loss, self._replica.predicted)
        if self._follows:
            self._set_ranges(largest(ranges))
        if self._follows or calibrates:
            self._set_ranges(largest(late))
        self._step = step + 1
        clipping = tuple(engine.meter.take() for engine in self._arithmetics)
        return StepReport(tuple(outcomes), tuple(self._reports), clipping, self._busy_s, damping)

    def _losses(
        self, step: int, outcomes: Sequence[MicroBatchOutcome]
    ) -> dict[tuple[str, int], np.ndarray]:
        """Return the losses of this worker's micro-batches where the damping is adapted, (2,) each:
        in this step, and of the step before with the weights that it made, if that is due.
        """
        if self._second_order.rule is None:
            return {}
        count, before = self._job.train.micro_batches, {}
        if self._setup.plan.work.repeats_samples(step):
            values = self._replica.used
            with self._timed("repeat"):
                before = dict(self._runner.repeated(step, values, range(count)))
        return {
            (LOSS, item.micro_batch): np.array(
                [item.loss_sum, before.get(item.micro_batch, 0.0)], np.float64
            )
            for item in outcomes
        }

    def _adapt_damping(self, step: int, payloads: Sequence[Arrays]) -> float:
        """Adapt the damping if it is due; return the mean loss of the batch, if it ever is."""
        rule = self._second_order.rule
        if rule is None:
            return 0.0
        found = {
            key[1]: values
            for payload in payloads
            for key, values in payload.items()
            if key[0] == LOSS
        }
        sums = np.zeros(2)
        for number in sorted(found):
            sums += found[number]
        loss, repeated = (sums / self._job.train.batch_size).tolist()
        if self._setup.plan.work.repeats_samples(step):
            rule.adapt(repeated)
        return float(loss)

    def _calibrate(self, step: int, statistics: SecondOrder | None) -> None:
        """Run the step's first micro-batch for the ranges that it needs; its sums are not used.

        The chips that hold its layers do it, with the ranges of the very calls, and tell the
        others.
        """
        # A step that was given up has left its own.
        self._needed_ranges()
        for _ in self._runner.run(step, "calibrate", self._replica.used, statistics, [0]):
            pass
        own = self._needed_ranges()
        self._peers.send(step, "ranges", dict.fromkeys(self._others, _packed({}, {}, own)))
        received = self._peers.receive(step, "ranges").values()
        first = largest([own, *map(_unpacked_ranges, received)])
        self._set_ranges(wider(first, self._first_margin))

    def _set_ranges(self, ranges: Ranges) -> None:
        """Set the converters of all chips; what is not mentioned stays."""
        self._ranges = self._ranges | dict(ranges)
        for engine in self._arithmetics:
            engine.ranges.kept = self._ranges

    def _needed_ranges(self) -> dict[str, np.ndarray]:
        return largest(engine.ranges.take() for engine in self._arithmetics)

    def _train(
        self, step: int, statistics: SecondOrder | None
    ) -> tuple[list[MicroBatchOutcome], dict[int, dict[Any, np.ndarray]]]:
        """Run this worker's micro-batches; return their outcomes, and for every worker the sums and
        the rows of fused blocks.
        """
        count, workers = self._job.train.micro_batches, self._setup.workers
        sums = {worker: [TreeSum(count) for _ in self._stages] for worker in workers}
        rows: dict[int, dict[RowsOf, np.ndarray]] = {worker: {} for worker in workers}
        outcomes = []
        for engine in self._arithmetics:
            engine.meter.take()
            engine.ranges.take()
        values = self._replica.used
        for passed in self._runner.run(step, "train", values, statistics, range(count)):
            with self._timed("train"):
                result, micro_batch, stage = passed.result, passed.micro_batch, passed.stage
                if stage == self._stages[-1]:
                    outcomes.append(MicroBatchOutcome(micro_batch, result.loss_sum, result.correct))
                traces = None
                forms = statistics is not None and self._forms_factors(micro_batch)
                if forms:
                    blocks = self._buckets[self._me][stage].blocks
                    traces = self._second_order.traces(result.factors, result.rows, blocks)
                measured = self._buckets[self._me][stage].measured
                squares = self._second_order.squares(result.gradients, measured)
                for worker in workers:
                    bucket = self._buckets[worker][stage]
                    vector = bucket.pack(result.gradients, result.factors, traces, squares)
                    sums[worker][stage].add((0, micro_batch), vector)
                    if forms:
                        rows[worker] |= bucket.rows(result.rows, micro_batch)
        return outcomes, {worker: _nodes(sums[worker]) | rows[worker] for worker in workers}

    def _reduce(self, payloads: Sequence[Arrays], factors_due: bool) -> dict[Area, np.ndarray]:
        """Add up the contributions of all micro-batches and update the running averages.

        Returns
        -------
        dict
            Area -> mean gradient of the batch, for this worker's pieces.
        """
        train = self._job.train
        whole, found = [TreeSum(train.micro_batches) for _ in self._stages], {}
        for payload in payloads:
            for key, values in payload.items():
                if key[0] == ROWS:
                    found[key] = values
                elif key[0] != LOSS:
                    stage, *node = key
                    whole[stage].add(tuple(node), values)
        gradients: dict[Area, np.ndarray] = {}
        forming = [n for n in range(train.micro_batches) if self._forms_factors(n)]
        # The sums of factors are those of fewer samples.
        all_over = train.micro_batches / len(forming)
        samples = len(forming) * train.micro_batch_size
        traces = np.empty(len(self._setup.plan.blocks))
        matrices: dict[int, np.ndarray] = {}
        for bucket, tree in zip(self._buckets[self._me], whole, strict=True):
            mean = tree.total / train.batch_size
            gradients |= bucket.gradients(mean)
            squares = bucket.squares(mean).tolist()
            self._squares |= dict(zip(bucket.measured, squares, strict=True))
            if factors_due:
                traces[[block.index for block in bucket.blocks]] = all_over * bucket.traces(mean)
                for block, sums in bucket.factors(mean).items():
                    matrices[block] = all_over * sums
                for block, values in bucket.gathered(found, forming).items():
                    matrices[block] = values / np.sqrt(samples)
        if factors_due:
            self._second_order.add(traces, matrices)
        return gradients

    def _forms_factors(self, micro_batch: int) -> bool:
        soi, train = self._job.machine.policy.soi, self._job.train
        return soi.forms_factors(micro_batch, train.micro_batches)

    def _solve_columns(
        self, step: int, gradients: Mapping[Area, np.ndarray]
    ) -> dict[Area, np.ndarray]:
        """Solve this worker's gradient pieces with their G blocks."""
        layers = self._setup.preconditioned
        return {
            piece.area: self._solve(piece, step, gradients[piece.area])
            for piece in self._pieces
            if piece.area[0] in layers
        }

    def _solve_rows(self, step: int, parts: Mapping[Area, np.ndarray]) -> dict[Area, np.ndarray]:
        """Solve the rows of solved columns with this worker's A blocks."""
        directions = {}
        for task in self._tasks[self._me]:
            right = np.empty(task.shape)
            for area, values in parts.items():
                if common(area, task.area) == area:
                    right[within(area, task.area)] = values
            directions[task.area] = self._solve(task, step, right)
        return directions

    def _gathered(self, step: int, solved: Mapping[Area, np.ndarray]) -> dict[Area, np.ndarray]:
        """Send what was solved to the owners of the matrices; return the matrices of this worker's
        chips.
        """
        setup = self._setup
        parts: dict[int, dict[Area, np.ndarray]] = {worker: {} for worker in setup.workers}
        for area, values in solved.items():
            met = common(area, setup.matrix_area(area[0]))
            if met is not None:
                owner = setup.routes[setup.matrix_owners[area[0]]]
                parts[owner][met] = np.ascontiguousarray(values[within(met, area)])
        messages = {worker: _packed(parts[worker], {}, {}) for worker in self._others}
        self._peers.send(step, "solved", messages)
        for message in self._peers.receive(step, "solved").values():
            parts[self._me] |= _unpacked("columns", message)
        whole = {
            setup.matrix_area(layer): np.empty(setup.matrix_shapes[layer])
            for layer in self._matrices.layers
        }
        for area, values in parts[self._me].items():
            target = setup.matrix_area(area[0])
            whole[target][within(area, target)] = values
        return whole

    def _matrix_directions(
        self, step: int, gradients: Mapping[Area, np.ndarray]
    ) -> dict[Area, np.ndarray]:
        """Return the directions of the matrices that this worker's chips own."""
        setup, soi = self._setup, self._job.machine.policy.soi
        areas = {layer: setup.matrix_area(layer) for layer in setup.matrix_owners}
        mine = self._matrices.layers
        whole = {layer: gradients[areas[layer]] for layer in mine}
        due = Due(soi.factors_due(step), soi.inverses_due(step))
        with self._timed("matrices"):
            found = self._matrices.directions(step, whole, due)
        return {areas[layer]: direction for layer, direction in found.items()}

    def _solve(self, task: SolveTask, step: int, right: np.ndarray) -> np.ndarray:
        if task.block is None:
            return right
        _, top, _, left, _ = task.area
        first = top if self._setup.plan.blocks[task.block].transposed else left
        x, report = self._second_order.solve(task.chip, task.block, step, right, first)
        self._reports.append(report)
        return x

    def _parts_for(self, worker: int, solved: Mapping[Area, np.ndarray]) -> dict[Area, np.ndarray]:
        """Return the parts of the solved pieces that the tasks of a worker's chips need."""
        parts = {}
        for task in self._tasks[worker]:
            for whole, values in solved.items():
                area = common(whole, task.area)
                if area is not None:
                    parts[area] = np.ascontiguousarray(values[within(area, whole)])
        return parts

    def _price(self, step: int, factors_due: bool, programmed: bool, calibrated: bool) -> None:
        held = self._second_order.held
        counts = {place: block.take_counts() for place, block in held.items()}
        works = self._matrices.works
        self._costs.price(step, factors_due, programmed, counts, works, calibrated)

    @contextlib.contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            spent_s = time.perf_counter() - started
            self._busy_s[part] = self._busy_s.get(part, 0.0) + spent_s


def _nodes(stages: Sequence[TreeSum]) -> dict[Any, np.ndarray]:
    """Return (stage, level, number) -> sum."""
    return {
        (stage, *node): values
        for stage, tree in enumerate(stages)
        for node, values in tree.nodes.items()
    }


def _packed(
    columns: Mapping[Area, np.ndarray], gradients: Mapping[Area, np.ndarray], ranges: Ranges
) -> Arrays:
    """Return one message that holds all of them."""
    message: dict[Any, np.ndarray] = {("columns", *area): v for area, v in columns.items()}
    message |= {("gradients", *area): values for area, values in gradients.items()}
    return message | {("ranges", what): values for what, values in ranges.items()}


def _unpacked(kind: str, message: Arrays) -> dict[Any, np.ndarray]:
    return {key[1:]: values for key, values in message.items() if key[0] == kind}


def _unpacked_ranges(message: Arrays) -> dict[str, np.ndarray]:
    return {key[0]: values for key, values in _unpacked("ranges", message).items()}

"""Micro-batches of a step on their way through the chips that the layers are spread over.

The chips of a pipeline hold successive layers, one stage each. Time goes in slots: in each, a stage
runs one micro-batch forward and another one backward, and hands on what comes out. Micro-batch k of
a pipeline is in stage s forward in slot k + s, and backward in slot k + 2 (S - 1) - s, of S stages;
so never more than 2 S - 1 of them are on their way. Activations and errors go straight to the
worker that holds the next stage, in the layout in which they were made, so that sums over them have
the same bits wherever they are formed.
"""

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from repast_dist.farm.peers import Arrays, Peers
from repast_dist.farm.setup import FarmSetup
from repast_dist.ground.errors import RepastError
from repast_dist.training.engines import Engine
from repast_dist.training.network import (
    FactorsAsked,
    LoadedNetwork,
    LoadedPart,
    MicroBatch,
    MicroBatchResult,
    PartRun,
    Values,
)
from repast_dist.training.optimizers import SecondOrder
from repast_dist.training.sampling import micro_batch_samples

_ACTIVATIONS, _ERRORS = "activations", "errors"
_Address = tuple[str, int, int]
"""(what, chip that takes it, micro-batch)."""


@dataclasses.dataclass(frozen=True)
class Passed:
    """What a micro-batch left in one stage.

    Attributes
    ----------
    stage, chip, micro_batch : int
        Where, and which micro-batch of the step.
    result : MicroBatchResult
        Gradients and factors of the stage's layers; the loss of the last stage.
    """

    stage: int
    chip: int
    micro_batch: int
    result: MicroBatchResult


class StageRunner:
    """Runs micro-batches through what the chips of one worker hold.

    Parameters
    ----------
    setup : FarmSetup
        Settings, plan and data.
    worker : int
        This worker.
    engines : mapping
        Chip of this worker that computes -> its arithmetic; chips that compute alike share one.
    peers : Peers
        The other workers.
    timed : callable
        Part of a step -> a context in which this worker computes; it waits for others outside.
    """

    def __init__(
        self,
        setup: FarmSetup,
        worker: int,
        engines: Mapping[int, Engine],
        peers: Peers,
        timed: Callable[[str], AbstractContextManager[None]],
    ) -> None:
        self._setup, self._engines, self._peers, self._timed = setup, engines, peers, timed
        self._others = [other for other in setup.workers if other != worker]

    def run(
        self,
        step: int,
        part: str,
        values: Values,
        statistics: SecondOrder | None,
        micro_batches: Sequence[int],
    ) -> Iterator[Passed]:
        """Run micro-batches of a step; yield what they leave in the stages of this worker.

        Parameters
        ----------
        step : int
            The training step.
        part : str
            The part of the step that they are.
        values : mapping
            Weights and running values.
        statistics : SecondOrder or None
            The optimizer whose statistics are computed by the micro-batches that form factors;
            None: no statistics.
        micro_batches : sequence of int
            The micro-batches, the same ones on all workers.

        Raises
        ------
        PeersLost
            Other workers are gone.
        RepastError
            What a chip found wrong.
        """
        queues: dict[int, list[int]] = {}
        for number in micro_batches:
            queues.setdefault(self._setup.micro_batch_owner(number), []).append(number)
        if len(self._setup.stages) == 1:
            yield from self._alone(step, part, values, statistics, queues)
        else:
            yield from self._together(step, part, values, statistics, queues)

    def _alone(
        self,
        step: int,
        part: str,
        values: Values,
        statistics: SecondOrder | None,
        queues: Mapping[int, Sequence[int]],
    ) -> Iterator[Passed]:
        """Every chip runs whole micro-batches; those that compute alike hold the same weights."""
        mine: dict[int, list[tuple[int, int]]] = {}
        for chip, engine in self._engines.items():
            numbers = queues.get(chip, ())
            mine.setdefault(id(engine), []).extend((chip, number) for number in numbers)
        for engine in distinct(self._engines.values()):
            if not mine[id(engine)]:
                continue
            with self._timed(part), _named(mine[id(engine)][0][0]):
                loaded = self._setup.network.load(values, engine, step)
            most = loaded.at_once(self._setup.job.train.micro_batch_size)
            for group in self._groups(mine[id(engine)], most, statistics):
                with self._timed(part):
                    results = self._results(loaded, step, statistics, group)
                for (chip, number), result in zip(group, results, strict=True):
                    yield Passed(0, chip, number, result)

    def _groups(
        self, queue: Sequence[tuple[int, int]], most: int, statistics: SecondOrder | None
    ) -> Iterator[list[tuple[int, int]]]:
        """Yield chips and micro-batches that are run together: so many at most, and either all of
        them form factors or none does.
        """
        forming: dict[bool, list[tuple[int, int]]] = {}
        for chip, number in queue:
            forms = _asked(self._setup, number, statistics) is not None
            forming.setdefault(forms, []).append((chip, number))
        for alike in forming.values():
            yield from map(list, itertools.batched(alike, min(most, len(alike))))

    def _results(
        self,
        loaded: LoadedNetwork,
        step: int,
        statistics: SecondOrder | None,
        group: Sequence[tuple[int, int]],
    ) -> list[MicroBatchResult]:
        """Return what micro-batches leave that are run together."""
        if len(group) > 1:
            # What is wrong with one of them shows again, with its name, when each runs alone.
            with contextlib.suppress(RepastError):
                return self._run(loaded, step, statistics, [number for _, number in group])
        found = []
        for chip, number in group:
            with _named(chip):
                found += self._run(loaded, step, statistics, [number])
        return found

    def _run(
        self,
        loaded: LoadedNetwork,
        step: int,
        statistics: SecondOrder | None,
        numbers: Sequence[int],
    ) -> list[MicroBatchResult]:
        setup, batches = self._setup, []
        for number in numbers:
            samples = _samples(setup, step, number)
            batches.append(MicroBatch(number, *_batch(setup, step, samples), samples))
        return loaded.run_micro_batches(batches, _asked(setup, numbers[0], statistics))

    def repeated(
        self, step: int, values: Values, micro_batches: Sequence[int]
    ) -> Iterator[tuple[int, float]]:
        """Yield this worker's micro-batches of the step before, and the sums of their losses with
        the weights that it made; where every chip runs whole micro-batches.
        """
        loaded: dict[int, LoadedNetwork] = {}
        for number in micro_batches:
            engine = self._engines.get(self._setup.micro_batch_owner(number))
            if engine is None:
                continue
            if id(engine) not in loaded:
                network = self._setup.network
                loaded[id(engine)] = network.load(values, engine, step, with_backward=False)
            samples = _samples(self._setup, step - 1, number)
            found = loaded[id(engine)].evaluate(*_batch(self._setup, step - 1, samples))
            yield number, float(found.loss_sum)

    def _together(
        self,
        step: int,
        part: str,
        values: Values,
        statistics: SecondOrder | None,
        queues: Mapping[int, Sequence[int]],
    ) -> Iterator[Passed]:
        """Chips hand on what they made, slot by slot."""
        setup = self._setup
        last = len(setup.stages) - 1
        slots = max(map(len, queues.values())) + 2 * last
        line = _Line(setup, self._engines, step, values, statistics)
        places = [(chip, *setup.place_in_pipeline(chip)) for chip in self._engines]
        for slot in range(slots):
            passed: list[Passed] = []
            with self._timed(part):
                for chip, first, stage in places:
                    queue = queues.get(first, [])
                    forward, backward = slot - stage, slot - 2 * last + stage
                    with _named(chip):
                        if stage <= last and 0 <= forward < len(queue):
                            line.forward(chip, stage, queue[forward])
                        if stage <= last and 0 <= backward < len(queue):
                            passed.append(line.backward(chip, stage, queue[backward]))
            if slot < slots - 1:
                self._hand_on(step, f"{part} {slot}", line)
            yield from passed

    def _hand_on(self, step: int, part: str, line: "_Line") -> None:
        """Exchange what the chips made in a slot."""
        outgoing: dict[int, dict[Any, np.ndarray]] = {worker: {} for worker in self._others}
        for address, arrays in line.take_outgoing().items():
            worker = self._setup.routes[address[1]]
            if worker in outgoing:
                outgoing[worker] |= _laid_out(address, arrays)
            else:
                line.incoming[address] = arrays
        self._peers.send(step, part, outgoing)
        for message in self._peers.receive(step, part).values():
            line.incoming |= _as_made(message)


class _Line:
    """The stages of one worker's chips in one step, and what is between them."""

    def __init__(
        self,
        setup: FarmSetup,
        engines: Mapping[int, Engine],
        step: int,
        values: Values,
        statistics: SecondOrder | None,
    ) -> None:
        self._setup, self._engines, self._step = setup, engines, step
        self._values, self._statistics = values, statistics
        self._loaded: dict[tuple[int, int], LoadedPart] = {}
        self._running: dict[tuple[int, int], PartRun] = {}
        self._outgoing: dict[_Address, list[np.ndarray]] = {}
        self.incoming: dict[_Address, list[np.ndarray]] = {}

    def forward(self, chip: int, stage: int, number: int) -> None:
        """Run a micro-batch through the layers of a stage."""
        engine = self._engines[chip]
        # Chips that compute alike hold the same weights.
        held = stage, id(engine)
        if held not in self._loaded:
            self._loaded[held] = self._setup.parts[stage].load(self._values, engine, self._step)
        samples = _samples(self._setup, self._step, number)
        run = self._running[chip, number] = self._loaded[held].begin(
            samples, number, _asked(self._setup, number, self._statistics)
        )
        if stage:
            (inputs,) = self.incoming.pop((_ACTIVATIONS, chip, number))
        else:
            inputs, _ = _batch(self._setup, self._step, samples)
        outputs = run.forward(inputs)
        if stage < len(self._setup.stages) - 1:
            after = self._setup.next_in_pipeline(chip, 1)
            self._outgoing[_ACTIVATIONS, after, number] = [outputs]

    def backward(self, chip: int, stage: int, number: int) -> Passed:
        """Send the errors of a micro-batch back through the layers of a stage."""
        setup = self._setup
        run = self._running.pop((chip, number))
        if stage < len(setup.stages) - 1:
            errors = self.incoming.pop((_ERRORS, chip, number))
        else:
            samples = _samples(setup, self._step, number)
            errors = run.errors(*_batch(setup, self._step, samples))
        handed_on = run.backward(errors)
        if stage:
            self._outgoing[_ERRORS, setup.next_in_pipeline(chip, -1), number] = handed_on
        return Passed(stage, chip, number, run.result())

    def take_outgoing(self) -> dict[_Address, list[np.ndarray]]:
        """Return what was made for other stages since the last call."""
        outgoing, self._outgoing = self._outgoing, {}
        return outgoing


def distinct(engines: Iterable[Engine]) -> list[Engine]:
    """Return engines without those that come again."""
    return list({id(engine): engine for engine in engines}.values())


def _samples(setup: FarmSetup, step: int, number: int) -> np.ndarray:
    """Return the numbers of a micro-batch's samples in the data set."""
    job = setup.job
    return micro_batch_samples(job.seed, len(setup.data.train_inputs), job.train, step, number)


def _asked(setup: FarmSetup, number: int, statistics: SecondOrder | None) -> FactorsAsked | None:
    """Return what a micro-batch leaves for factors; None: it forms none."""
    job = setup.job
    soi = job.machine.policy.soi
    if statistics is None or not soi.forms_factors(number, job.train.micro_batches):
        return None
    blocks, unformed = setup.factor_blocks, setup.unformed
    return FactorsAsked(statistics, blocks, unformed, soi.factor_positions)


def _batch(setup: FarmSetup, step: int, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return samples and their labels."""
    return setup.data.batch(samples, setup.job.seed, step)


@contextlib.contextmanager
def _named(chip: int) -> Iterator[None]:
    """Name the chip in what it finds wrong."""
    try:
        yield
    except RepastError as error:
        raise type(error)(f"chip {chip}: {error}") from error


def _laid_out(address: _Address, arrays: Sequence[np.ndarray]) -> dict[Any, np.ndarray]:
    """Return a message that keeps the order in which the axes of arrays lie in memory."""
    message: dict[Any, np.ndarray] = {}
    for place, values in enumerate(arrays):
        order = sorted(range(values.ndim), key=lambda axis: -values.strides[axis])
        message[*address, place, *order] = values.transpose(order)
    return message


def _as_made(message: Arrays) -> dict[_Address, list[np.ndarray]]:
    """Undo `_laid_out`."""
    found: dict[_Address, list[np.ndarray]] = {}
    for key, values in sorted(message.items(), key=lambda item: item[0][:4]):
        what, chip, number, _, *order = key
        made = values.transpose(np.argsort(order))
        found.setdefault((what, chip, number), []).append(made)
    return found

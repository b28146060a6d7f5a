"""The preconditioner averages the factors, damps and programs SOI blocks, and solves with them.

A worker of a farm calls its methods one by one for the blocks that its chips hold. In one process
`Preconditioner.directions` does everything. The split of the damping between the two sides of a
layer depends on traces alone. Traces add up like the matrices do, so every worker receives those of
all blocks along with the sums it reduces, and no further message is needed.
"""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

import numpy as np

from repast_dist.training.block_state import BlockState, FactorBlock
from repast_dist.training.gradient_noise import GradientNoise
from repast_dist.training.optimizers import Optimizer, SecondOrder, Side
from repast_dist.training.solve_report import SolveReport

HeldBlocks = Mapping[tuple[int, int], BlockState]
"""(chip, block number) -> the block on that chip."""


class Renewal(Protocol):
    """The schedule on which matrices are averaged and blocks programmed."""

    def factors_due(self, step: int) -> bool:
        """Return whether a step updates the running averages."""

    def inverses_due(self, step: int) -> bool:
        """Return whether a step programs the blocks anew."""


class Preconditioner:
    """The SOI blocks that one process holds, with the traces of all blocks.

    Parameters
    ----------
    optimizer : Optimizer
        The method; with a first-order method nothing is ever due.
    blocks : sequence of FactorBlock
        All SOI blocks of the network.
    renewal : Renewal
        The schedule of averages and programming.
    held : mapping
        The blocks that this process holds.
    fused : collection of int
        Numbers of the blocks whose product is not formed.
    noise : GradientNoise or None
        What chooses the targets of solves; None: they are those of the inversion scheme.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        blocks: Sequence[FactorBlock],
        renewal: Renewal,
        held: HeldBlocks,
        fused: Collection[int] = (),
        noise: GradientNoise | None = None,
    ) -> None:
        self._noise = noise
        self._fused = fused
        self._optimizer = optimizer.second_order
        self._blocks, self._renewal, self.held = blocks, renewal, held
        self._damping = BlockDamping(blocks, self._optimizer)

    @property
    def rule(self) -> "DampingRule | None":
        """What adapts the damping, if anything does."""
        return self._damping.rule

    def statistics_due(self, step: int) -> SecondOrder | None:
        """Return the optimizer if a step needs its statistics, otherwise None."""
        return self._optimizer if self._renewal.factors_due(step) else None

    def programs(self, step: int) -> bool:
        """Return whether a step programs the blocks anew."""
        return self._optimizer is not None and self._renewal.inverses_due(step)

    def traces(
        self,
        matrices: Mapping[tuple[str, Side], np.ndarray],
        rows: Mapping[tuple[str, Side], np.ndarray] | None = None,
        blocks: Sequence[FactorBlock] | None = None,
    ) -> np.ndarray:
        """Return the traces of blocks of a micro-batch, (blocks,) float64.

        Parameters
        ----------
        matrices : mapping
            (layer, "A" or "G") -> (n, n) float64 of formed blocks.
        rows : mapping, optional
            (layer, "A" or "G") -> (R, n) float64 of fused ones.
        blocks : sequence of FactorBlock, optional
            The blocks; None: all of the network.
        """
        wanted = self._blocks if blocks is None else blocks
        return block_traces(wanted, matrices, rows or {}, self._fused)

    def add(self, traces: np.ndarray, matrices: Mapping[int, np.ndarray]) -> None:
        """Add the statistics of a batch to the running averages.

        Parameters
        ----------
        traces : ndarray
            (blocks,) of all blocks.
        matrices : mapping
            Block number -> (n, n), of the blocks that are held here; of a fused one (R, n) rows.
        """
        self._damping.add(traces)
        for (_, number), block in self.held.items():
            block.add(matrices[number])

    def squares(self, sums: Mapping[str, np.ndarray], layers: Sequence[str]) -> np.ndarray | None:
        """Return the squared norms of a micro-batch's gradients, (layers,); None: noise is not
        measured.
        """
        return None if self._noise is None else self._noise.squares(sums, layers)

    def measure(self, parts: Mapping[str, float], wholes: Mapping[str, float]) -> None:
        """Add a batch to what is known of the noise of gradients, if it is measured; parameters are
        those of `GradientNoise.add`.
        """
        if self._noise is not None:
            self._noise.add(parts, wholes)

    def program(self, step: int) -> None:
        """Damp the averages of the held blocks and program them into arrays."""
        damping = self._damping.of_blocks()
        for (_, number), block in self.held.items():
            bits = None
            if self._noise is not None:
                bits = self._noise.bits(block.target_bits)[block.block.layer_name]
            block.prepare(step, float(damping[number]), bits)

    def solve(
        self, chip: int, block: int, step: int, part: np.ndarray, first: int = 0
    ) -> tuple[np.ndarray, SolveReport]:
        """Return the solution of a block for a part of a gradient, in the same shape, which begins
        with a column, or, of G, a row, of that number.
        """
        state = self.held[chip, block]
        if not state.block.transposed:
            return state.solve(step, part, first)
        # x G = dW for symmetric G: solve G x^T = dW^T.
        x, report = state.solve(step, np.ascontiguousarray(part.T), first)
        return x.T, report

    def directions(
        self, step: int, gradients: Mapping[str, np.ndarray]
    ) -> tuple[dict[str, np.ndarray], list[SolveReport]]:
        """Return the preconditioned gradients of all layers; this process must hold all blocks."""
        solved: dict[str, np.ndarray] = {}
        reports = []
        for (chip, number), state in sorted(
            self.held.items(), key=lambda item: (not item[1].block.transposed, item[0])
        ):
            block = state.block
            cut = slice(block.start, block.stop)
            area = (slice(None), cut) if block.transposed else (cut, slice(None))
            whole = solved.setdefault(block.layer_name, np.array(gradients[block.layer_name]))
            whole[area], report = self.solve(chip, number, step, whole[area])
            reports.append(report)
        return solved, reports

    def common_state(self) -> dict[str, np.ndarray]:
        """Return the arrays that are the same in all processes."""
        state = {f"damping/{name}": value for name, value in self._damping.arrays().items()}
        noise = {} if self._noise is None else self._noise.arrays()
        return state | {f"noise/{name}": value for name, value in noise.items()}

    def block_state(self) -> dict[str, np.ndarray]:
        """Return the arrays of the blocks that this process holds."""
        return {
            f"block/{number}/{name}": value
            for (_, number), block in self.held.items()
            for name, value in block.arrays().items()
        }

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Load the states of all processes; other names are ignored."""
        self._damping.restore(under("damping", arrays))
        if self._noise is not None:
            self._noise.restore(under("noise", arrays))
        for (_, number), block in self.held.items():
            block.restore(under(f"block/{number}", arrays))


def block_traces(
    blocks: Sequence[FactorBlock],
    factors: Mapping[tuple[str, Side], np.ndarray],
    rows: Mapping[tuple[str, Side], np.ndarray],
    fused: Collection[int],
) -> np.ndarray:
    """Return the traces of the blocks, (blocks,) float64.

    Parameters
    ----------
    blocks : sequence of FactorBlock
        The blocks.
    factors : mapping
        (layer, "A" or "G") -> (n, n) float64.
    rows : mapping
        (layer, "A" or "G") -> (R, n) float64, of the factors of fused blocks.
    fused : collection of int
        Numbers of the fused blocks.
    """
    formed = {key: np.ascontiguousarray(factor.diagonal()) for key, factor in factors.items()}
    squares = {key: np.sum(values**2, axis=0) for key, values in rows.items()}
    return np.array(
        [
            (squares if block.index in fused else formed)[block.layer_name, block.factor][
                block.start : block.stop
            ].sum()
            for block in blocks
        ]
    )


class BlockDamping:
    """The running averages of the traces of all blocks, which determine the damping.

    Parameters
    ----------
    blocks : sequence of FactorBlock
        All blocks of the plan.
    optimizer : SecondOrder or None
        The method, which splits the damping and weighs averages; None where nothing is due.
    """

    def __init__(self, blocks: Sequence[FactorBlock], optimizer: SecondOrder | None) -> None:
        self._blocks, self._optimizer = blocks, optimizer
        self._traces, self._updates = np.zeros(len(blocks)), 0
        self.rule = None if optimizer is None else DampingRule.of(optimizer)
        self.restore({})

    def add(self, traces: np.ndarray) -> None:
        """Add the traces of a batch's factors, (blocks,), to the averages."""
        assert self._optimizer is not None
        self._updates += 1
        past, fresh = self._optimizer.average_weights(self._updates)
        self._traces = past * self._traces + fresh * traces

    @property
    def _now(self) -> SecondOrder:
        assert self._optimizer is not None
        if self.rule is None:
            return self._optimizer
        return dataclasses.replace(self._optimizer, damping=self.rule.damping)

    def of_blocks(self) -> np.ndarray:
        """Return the damping of every block, (blocks,), from the full matrices of its layer, or
        from the block alone.
        """
        optimizer = self._now
        if optimizer.damps_blocks:
            return self._of_each()
        sums: dict[str, dict[Side, tuple[float, int]]] = {}
        for block, trace in zip(self._blocks, self._traces.tolist(), strict=True):
            sizes = sums.setdefault(block.layer_name, {})
            before, size = sizes.get(block.factor, (0.0, 0))
            sizes[block.factor] = (before + trace, size + block.size)
        split = {layer: optimizer.dampings(sizes) for layer, sizes in sums.items()}
        return np.array([split[block.layer_name][block.factor] for block in self._blocks])

    def _of_each(self) -> np.ndarray:
        dampings = self._now.dampings
        return np.array(
            [
                dampings({block.factor: (trace, block.size)})[block.factor]
                for block, trace in zip(self._blocks, self._traces.tolist(), strict=True)
            ]
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the averages as arrays, for a checkpoint."""
        found = {"traces": self._traces, "updates": np.array(self._updates)}
        return found if self.rule is None else found | self.rule.arrays()

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Load what `arrays` returned; without any arrays, begin anew."""
        first = 0.0 if self._optimizer is None else self._optimizer.first_diagonal
        begun = [first * block.size for block in self._blocks]
        self._traces = np.array(arrays.get("traces", begun), np.float64)
        self._updates = int(arrays.get("updates", 0))
        if self.rule is not None:
            self.rule.restore(arrays)


_LITTLE, _MUCH = 0.25, 0.75
"""Of what was predicted: where the loss fell by less, damping grows, where by more, it shrinks."""


class DampingRule:
    """The damping as Levenberg and Marquardt adapt it (Martens and Grosse 2015, section 6.5).

    Parameters
    ----------
    damping : float
        That of the first step.
    change : float
        Factor of a change.
    """

    def __init__(self, damping: float, change: float) -> None:
        self._first, self._change = damping, change
        self.damping, self._before, self._predicted = damping, 0.0, 0.0

    @classmethod
    def of(cls, optimizer: SecondOrder) -> "DampingRule | None":
        """Return the rule of an optimizer; None: its damping stays as it is."""
        if not optimizer.damping_every:
            return None
        return cls(optimizer.damping, optimizer.damping_change)

    def note(self, loss: float, predicted: float) -> None:
        """Note the loss of a step's samples, and what the update should change it by."""
        self._before, self._predicted = loss, predicted

    def adapt(self, loss: float) -> None:
        """Change the damping by the loss of the same samples after the update. A model that
        predicts no fall, as momentum may lead to, says nothing.
        """
        if not self._predicted < 0:
            return
        ratio = (loss - self._before) / self._predicted
        if ratio > _MUCH:
            self.damping *= self._change
        elif not ratio >= _LITTLE:
            self.damping /= self._change

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the state as arrays, for a checkpoint."""
        return {"rule": np.array([self.damping, self._before, self._predicted])}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Load what `arrays` returned; without any, begin anew."""
        begin = [self._first, 0.0, 0.0]
        self.damping, self._before, self._predicted = np.array(arrays.get("rule", begin)).tolist()


def under(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays whose names begin with ``prefix/``, under the rest of their names."""
    start = f"{prefix}/"
    return {
        name.removeprefix(start): value for name, value in arrays.items() if name.startswith(start)
    }

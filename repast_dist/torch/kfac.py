"""K-FAC as an optimizer of PyTorch: factors from hooks, solves on the simulated arrays.

The method, the averages, the damping, the blocks and the solves are those of the NumPy engine
(`repast_dist.training`); here they get a step from a loop that is the user's.
"""

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from repast_dist.ground.errors import DataError, SettingsError
from repast_dist.hardware.hardware import Hardware
from repast_dist.planning.blocks import SoiBlock, soi_blocks
from repast_dist.planning.machine import Machine
from repast_dist.torch.conversion import (
    Conversion,
    conversion,
    convert,
    is_converted,
    own_matrices,
)
from repast_dist.torch.costs import StepCosts, StepKind
from repast_dist.torch.fisher import Likelihood
from repast_dist.torch.matrices import Matrix, to_numpy
from repast_dist.torch.pages import write_page_of
from repast_dist.torch.simulation import MicroBatch
from repast_dist.torch.statistics import Statistics, logits
from repast_dist.trace import SOLVE_SCHEMA, solve_batch
from repast_dist.training.block_state import BlockState
from repast_dist.training.kfac import kl_clip_scale
from repast_dist.training.optimizers import SecondOrder, Update
from repast_dist.training.optimizers.kfac import Kfac
from repast_dist.training.second_order import Preconditioner
from repast_dist.training.solve_report import SolveReport

_TORCH_ARITHMETIC = {
    "engine.forward": "float64",
    "engine.backward": "float64",
    "engine.gradient": "float64",
}
_STATE = "repast_dist"


@dataclasses.dataclass(frozen=True)
class StepFacts:
    """What is known of one step.

    Attributes
    ----------
    step : int
        Its number, from 0.
    loss : float or None
        The loss, where `KFAC.step` was told it.
    time_s : float
        Simulated seconds.
    wall_s : float
        Seconds since the step before.
    """

    step: int
    loss: float | None
    time_s: float
    wall_s: float


class KFAC(torch.optim.Optimizer):
    """K-FAC whose factors are formed and inverted on the simulated arrays.

    Parameters
    ----------
    model : Module
        The network. Without a call of `convert` before, only factors and solves run on arrays, and
        products with weights in float64.
    lr : float
        Learning rate, of each parameter group and of schedulers.
    damping : float
        lambda, added to the diagonals of the factors.
    hardware : Hardware, optional
        The chips, where the network is not converted yet.
    loss : str or Likelihood
        ``cross_entropy``, ``binary_cross_entropy`` or ``squared_error``, each a mean over all of
        its terms as in PyTorch; a `Likelihood` says more. ``fisher="empirical"`` does not use it.
    momentum, weight_decay, damping_form, fisher, factor_decay, kl_clip
        As in `repast_dist.training.optimizers.kfac.Kfac`. Biases of matrices do not decay.
    params : iterable, optional
        Parameters or groups of them, as of any optimizer; None: all that are trained.
    accumulation_steps : int
        Micro-batches of a step, where the loop divides their losses by that number; the empirical
        Fisher matrix undoes it.
    chips : int
        Chips that the costs are for; the numbers do not depend on it.
    outputs : callable, optional
        Picks the logits, or the outputs of a regression, from what the network returns; None: the
        tensor itself, ``.logits``, or the first of several.
    method : SecondOrder, optional
        Another second-order method; lr, weight_decay and momentum of it follow the groups.
    **settings
        As in `convert`, where the network is not converted yet.

    Raises
    ------
    SettingsError
        A setting is wrong.
    """

    def __init__(
        self,
        model: nn.Module,
        lr: float = 0.05,
        damping: float = 0.03,
        hardware: Hardware | None = None,
        *,
        loss: str | Likelihood = "cross_entropy",
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        damping_form: str = "pi",
        fisher: str = "sampled",
        factor_decay: float = 0.95,
        kl_clip: float | None = 0.01,
        params: Iterable[Any] | None = None,
        accumulation_steps: int = 1,
        chips: int = 1,
        outputs: Callable[[Any], torch.Tensor] | None = None,
        method: SecondOrder | None = None,
        **settings: Any,
    ) -> None:
        if not is_converted(model):
            given = {name: value for name, value in settings.items() if name != "engine"}
            engine = {"engine": settings["engine"]} if "engine" in settings else {}
            convert(model, hardware, engine, _TORCH_ARITHMETIC, **given)
        elif hardware is not None or settings:
            raise SettingsError(
                "the network is converted already, with its hardware and settings; valid: "
                "KFAC(model, ...) without them"
            )
        self._made: Conversion = conversion(model)
        self._method = method or _method(
            learning_rate=lr,
            damping=damping,
            momentum=momentum,
            weight_decay=weight_decay,
            damping_form=damping_form,
            fisher=fisher,
            factor_decay=factor_decay,
            kl_clip=kl_clip,
        )
        if self._method.matrices is not None:
            raise SettingsError(
                f"method: {self._method.name} updates whole matrices, which the farm does alone; "
                "valid: a method that only solves, or training on the farm (model.factory)"
            )
        policy = self._made.settings.machine.policy
        _check_policy(policy)
        if self._method.damping_every:
            raise SettingsError(
                f"method: damping that is adapted every {self._method.damping_every} steps is not "
                "modelled here; valid: adapt_damping_every=0"
            )
        if chips < 1 or accumulation_steps < 1:
            raise SettingsError("chips, accumulation_steps: valid: 1 or more")
        trained = [item for item in model.parameters() if item.requires_grad]
        super().__init__(
            trained if params is None else params,
            {"lr": lr, "momentum": momentum, "weight_decay": weight_decay},
        )
        self._names = {parameter: name for name, parameter in model.named_parameters()}
        own_matrices(self._made.simulation, {id(item): name for item, name in self._names.items()})
        self._made.work.forget()
        likelihood = loss if isinstance(loss, Likelihood) else Likelihood(loss)  # type: ignore[arg-type]
        self._statistics = Statistics(
            self._made.simulation,
            self._method,
            likelihood,
            outputs or logits,
            lambda micro_batch: float(micro_batch.samples * accumulation_steps),
        )
        self._statistics.due = policy.soi.factors_due
        self._statistics.prepare = self._prepare
        self._made.simulation.watchers.append(self._statistics)
        machine = Machine(self._made.hardware, policy)
        self._costs, self._chips = StepCosts(machine, chips), chips
        self._preconditioner: Preconditioner | None = None
        self._blocks: tuple[SoiBlock, ...] = ()
        self._restored: dict[str, np.ndarray] = {}
        self._solves: list[SolveReport] = []
        self._facts: list[StepFacts] = []
        self._last_wall = time.monotonic()

    # The step -----------------------------------------------------------------------------

    def step(self, closure: Callable[[], Any] | None = None, *, loss: Any = None) -> Any:
        """Take a step.

        Parameters
        ----------
        closure : callable, optional
            Computes the loss again, and returns it.
        loss : float or Tensor, optional
            The loss of the step, for the report.

        Raises
        ------
        DataError
            The network was not called and differentiated since the last step, or a gradient or an
            update is not finite.
        InversionError
            A solve diverged, and ``inversion.on_divergence`` is ``raise``.
        """
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch.no_grad():
            self._take_step(None if loss is None else float(loss))
        return loss

    def number(self, samples: Sequence[int] | np.ndarray | torch.Tensor) -> None:
        """Tell the numbers in the data set of the samples that the network is called with next.

        They address the labels that the sampled Fisher matrix draws, which then do not depend on
        how a batch is cut into micro-batches; else samples are numbered within the step.
        """
        self._statistics.number(samples)

    def _take_step(self, loss: float | None) -> None:
        simulation, statistics = self._made.simulation, self._statistics
        done = statistics.finished
        if not done:
            raise DataError(
                "the network was not called and differentiated since the last step; valid: "
                "loss.backward() of a call in training mode before step(), of a network with some "
                "layer on arrays that is trained"
            )
        step = done[0].step
        solver = self._preconditioner
        assert solver is not None
        if solver.statistics_due(step) is not None:
            matrices = statistics.total()
            own = {
                block.index: matrices[block.layer_name, block.factor][
                    block.start : block.stop, block.start : block.stop
                ]
                for block in self._blocks
            }
            solver.add(solver.traces(matrices), own)
        programs = solver.programs(step)
        if programs:
            solver.program(step)
        names = dict.fromkeys(block.layer_name for block in self._blocks)
        layers = {name: simulation.matrices[name] for name in names}
        gradients = {
            name: matrix.gathered(lambda parameter: parameter.grad)
            for name, matrix in layers.items()
        }
        directions, reports = solver.directions(step, gradients)
        self._solves += reports
        self._update(step, layers, self._clipped(layers, gradients, directions))
        self._price(step, done, programs, loss)
        statistics.clear()
        simulation.advance(step + 1)

    def _prepare(self, micro_batch: MicroBatch) -> Sequence[SoiBlock]:
        """Cut the factors into blocks when it is known what the network consists of."""
        workload = self._made.work.workload(micro_batch.signature)
        policy = self._made.settings.machine.policy
        soi = policy.soi
        self._blocks = soi_blocks(workload, soi.block_size, self._method.sides, widths=soi.widths)
        plan = self._costs.planned(self._kind([micro_batch]))
        right_sides = plan.shapes.right_sides * policy.soi.interval
        held = {
            (chip, block.index): BlockState(
                block,
                chip,
                self._made.simulation.engine,
                policy.inversion,
                self._method,
                int(right_sides[block.index]),
                renewal_change=policy.soi.renewal_change,
                keep_levels=policy.soi.keep_levels,
            )
            for block, chip in zip(self._blocks, plan.block_owner, strict=True)
        }
        self._preconditioner = Preconditioner(self._method, self._blocks, policy.soi, held)
        if self._restored:
            self._preconditioner.restore(self._restored)
            self._restored = {}
        return self._blocks

    def _clipped(
        self,
        layers: Mapping[str, Matrix],
        gradients: Mapping[str, np.ndarray],
        directions: Mapping[str, np.ndarray],
    ) -> dict[str, np.ndarray]:
        """Return the directions, scaled for the bound on the KL divergence of the whole step."""
        bound = getattr(self._method, "kl_clip", None)
        rates = {
            parameter: float(group["lr"])
            for group in self.param_groups
            for parameter in group["params"]
        }
        rate = {name: rates.get(m.parameter(m.weight), 0.0) for name, m in layers.items()}
        scale = kl_clip_scale(
            {name: rate[name] * gradients[name] for name in directions},
            {name: rate[name] * directions[name] for name in directions},
            1.0,
            bound,
        )
        return {name: scale * direction for name, direction in directions.items()}

    def _update(
        self, step: int, layers: Mapping[str, Matrix], directions: Mapping[str, np.ndarray]
    ) -> None:
        """Update all parameters, group by group."""
        found: dict[nn.Parameter, np.ndarray] = {}
        biases: set[nn.Parameter] = set()

        def place(parameter: nn.Parameter) -> np.ndarray:
            if parameter not in found:
                found[parameter] = np.zeros(tuple(parameter.shape))
            return found[parameter]

        for name, matrix in layers.items():
            matrix.scatter(directions[name], place)
        for matrix in self._made.simulation.matrices.values():
            if matrix.bias is not None:
                biases.add(matrix.parameter(matrix.bias))
        for group in self.param_groups:
            live = [item for item in group["params"] if item.grad is not None]
            method = self._of_group(group)
            self._update_some(step, method, [p for p in live if p not in biases], found)
            plain = dataclasses.replace(method, weight_decay=0.0)
            self._update_some(step, plain, [p for p in live if p in biases], found)

    def _of_group(self, group: Mapping[str, Any]) -> SecondOrder:
        """Return the method with the settings of a parameter group."""
        has = {field.name for field in dataclasses.fields(self._method)}
        wanted: dict[str, Any] = {
            "learning_rate": float(group["lr"]),
            "momentum": float(group["momentum"]),
            "weight_decay": float(group["weight_decay"]),
            # Directions are scaled already, over all groups.
            "kl_clip": None,
        }
        if wanted["learning_rate"] == 0:
            # A rate of 0 is no setting of a method, but schedulers begin or end with it.
            wanted["learning_rate"] = float(np.finfo(np.float64).tiny)
        try:
            return dataclasses.replace(
                self._method, **{name: value for name, value in wanted.items() if name in has}
            )
        except ValueError as error:
            raise _wrong("a parameter group", error) from None

    def _update_some(
        self,
        step: int,
        method: SecondOrder,
        parameters: Sequence[nn.Parameter],
        directions: Mapping[nn.Parameter, np.ndarray],
    ) -> None:
        if not parameters:
            return
        weights = {self._names[item]: to_numpy(item) for item in parameters}
        gradients = {
            self._names[item]: to_numpy(item.grad).astype(np.float64) for item in parameters
        }
        solved = {self._names[item]: directions[item] for item in parameters if item in directions}
        state = method.initial_state(weights)
        for parameter in parameters:
            for kind, values in self.state.get(parameter, {}).items():
                state[f"{kind}/{self._names[parameter]}"] = to_numpy(values)
        with np.errstate(over="ignore", invalid="ignore"):
            new, kept = method.update(
                Update(weights, gradients, solved, state, step, step + 1, frozenset())
            )
        for parameter in parameters:
            name = self._names[parameter]
            if not np.isfinite(new[name]).all():
                raise DataError(
                    f"step {step}, {name}: the update is not finite, training diverged; a smaller "
                    "lr or more damping may help"
                )
            value = np.ascontiguousarray(new[name]).reshape(tuple(parameter.shape))
            parameter.copy_(torch.from_numpy(value))
            self.state[parameter] = {
                kind: torch.from_numpy(np.ascontiguousarray(values))
                for key, values in kept.items()
                for kind, _, owner in [key.partition("/")]
                if owner == name
            }

    # Costs --------------------------------------------------------------------------------

    def _kind(self, done: Sequence[MicroBatch]) -> StepKind:
        largest = max(done, key=lambda item: item.samples)
        workload = self._made.work.workload(largest.signature)
        return StepKind(
            workload=dataclasses.replace(workload, losses=self._statistics.losses),
            micro_batches=len(done),
            micro_batch_size=largest.samples,
            sides=self._method.sides,
            fisher_passes=self._statistics.passes,
        )

    def _price(
        self, step: int, done: Sequence[MicroBatch], programs: bool, loss: float | None
    ) -> None:
        assert self._preconditioner is not None
        held = self._preconditioner.held
        of_block = {number: block.take_counts() for (_, number), block in held.items()}
        owners = self._costs.planned(self._kind(done)).block_owner
        placed = {(chip, number): of_block[number] for number, chip in enumerate(owners)}
        due = self._preconditioner.statistics_due(step) is not None
        seconds = self._costs.add(self._kind(done), step, due, programs, placed)
        now = time.monotonic()
        self._facts.append(StepFacts(step, loss, seconds, now - self._last_wall))
        self._last_wall = now

    @property
    def costs(self) -> pa.Table:
        """What every chip did in the steps so far: rows of the trace, with simulated seconds and
        joules; columns carry their unit in the field's metadata.
        """
        return self._costs.table

    @property
    def solves(self) -> pa.Table:
        """One row per solve with an SOI block: method, rounds, residual, converged or not."""
        rows = solve_batch(
            {name: value for name, value in vars(report).items() if name in SOLVE_SCHEMA.names}
            for report in self._solves
        )
        return pa.Table.from_batches([rows])

    def report(self, path: str | Path) -> Path:
        """Write one page: losses, time and energy per phase and chip, inversions, the network.

        Raises
        ------
        DataError
            No step was taken yet.
        """
        if self._costs.plan is None:
            raise DataError("no step was taken yet; valid: report() after step()")
        return write_page_of(
            Path(path),
            self._made,
            self._costs.plan,
            self._method,
            self._facts,
            self._costs.batches(),
            self._solves,
        )

    # State --------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the state as tensors, with averages, blocks and ranges of converters."""
        found: dict[str, Any] = super().state_dict()
        simulation = self._made.simulation
        arrays = {"step": np.array(simulation.step)}
        if self._preconditioner is not None:
            arrays |= self._preconditioner.common_state() | self._preconditioner.block_state()
        arrays |= self._restored
        for name, written in simulation.written().items():
            arrays[f"written/{name}"] = np.array(written)
        kept = simulation.engine.ranges.kept
        arrays |= {f"ranges/{what}": values for what, values in kept.items()}
        found[_STATE] = {name: torch.from_numpy(np.array(item)) for name, item in arrays.items()}
        return found

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned; blocks are programmed with the same errors again.

        Raises
        ------
        DataError
            It is no state of this optimizer.
        """
        if _STATE not in state_dict:
            raise DataError(f"the state has no '{_STATE}'; valid: what KFAC.state_dict returned")
        plain = {name: value for name, value in state_dict.items() if name != _STATE}
        super().load_state_dict(plain)
        # PyTorch gives states the type of their parameter, which is less for half precisions.
        for group, saved in zip(self.param_groups, plain["param_groups"], strict=True):
            for parameter, number in zip(group["params"], saved["params"], strict=True):
                for kind, values in plain["state"].get(number, {}).items():
                    self.state[parameter][kind] = values.clone()
        arrays = {name: to_numpy(item) for name, item in state_dict[_STATE].items()}
        simulation = self._made.simulation
        simulation.advance(int(arrays["step"]))
        simulation.restore_ranges(
            {
                name.removeprefix("ranges/"): values
                for name, values in arrays.items()
                if name.startswith("ranges/")
            }
        )
        simulation.restore_written(
            {
                name.removeprefix("written/"): int(written)
                for name, written in arrays.items()
                if name.startswith("written/")
            }
        )
        self._statistics.clear()
        if self._preconditioner is None:
            self._restored = arrays
        else:
            self._preconditioner.restore(arrays)


def _method(**values: Any) -> Kfac:
    try:
        return Kfac(**values)
    except (TypeError, ValueError) as error:
        raise _wrong("KFAC", error) from None


def _wrong(where: str, error: Exception) -> SettingsError:
    """Return one line that says which value is wrong, and what would be valid."""
    said: list[Any] = getattr(error, "errors", list)()
    parts = [f"{'.'.join(map(str, e['loc']))}={e['input']!r}: {e['msg']}" for e in said]
    return SettingsError(f"{where}: {'; '.join(parts) or error}")


def _check_policy(policy: Any) -> None:
    wanted = {
        "soi.fusion": (policy.soi.fusion, "off"),
        "soi.stale": (policy.soi.stale, 0),
        "soi.factor_positions": (policy.soi.factor_positions, 1.0),
        "soi.factor_micro_batches": (policy.soi.factor_micro_batches, 1.0),
        "soi.residual_to_noise": (policy.soi.residual_to_noise, 0.0),
        "partition.layers": (policy.partition.layers, "replicate"),
        "partition.stages_in_flight": (policy.partition.stages_in_flight, 1),
        "partition.update_delay": (policy.partition.update_delay, 0),
        "partition.idle_chips": (policy.partition.idle_chips, "none"),
        "partition.grad_worker_fraction": (policy.partition.grad_worker_fraction, 0.0),
    }
    for name, (value, valid) in wanted.items():
        if value != valid:
            raise SettingsError(f"{name}={value} is not modelled here; valid: {valid}")

"""Planning and pricing a training step, without running it."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from repast_dist.api.loading import (
    HARDWARE,
    Override,
    as_overrides,
    checked_settings,
    given_hardware,
)
from repast_dist.api.notebook import facts_html, table_html
from repast_dist.ground.errors import SettingsError
from repast_dist.ground.presets import setting_groups
from repast_dist.hardware.hardware import Hardware
from repast_dist.network.shapes import Workload
from repast_dist.network.workload import ONNX
from repast_dist.ops import OP_NAMES, trace_columns
from repast_dist.planning.machine import Machine
from repast_dist.planning.ops import step_ops
from repast_dist.planning.plan import Plan
from repast_dist.planning.summary import StepSummary, summarise
from repast_dist.planning.timeline import place
from repast_dist.studies.costing import planned_step
from repast_dist.studies.figures import STEP_UNITS, step_figures
from repast_dist.studies.plan import plan_page
from repast_dist.trace import trace_batch

_POLICY = ("soi", "partition", "inversion")


class PlannedStep:
    """A step of training as planned: who does what, and what it costs.

    Parameters
    ----------
    plan : Plan
        Who does what.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    @cached_property
    def summary(self) -> StepSummary:
        """Time, energy and their parts of an average step."""
        return summarise(self.plan)

    @cached_property
    def figures(self) -> dict[str, Any]:
        """Key figures: time and energy, throughput, area, power, lifetime, what limits it."""
        return step_figures(self.plan, self.summary)

    @property
    def units(self) -> dict[str, str]:
        """Units of the key figures."""
        return dict(STEP_UNITS)

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What the description of the network assumes."""
        return self.plan.workload.assumptions

    @cached_property
    def tables(self) -> dict[str, pa.Table]:
        """Tables by name; columns carry their unit in the field's metadata.

        ``ops`` lists every operation of a step that renews factors and inverses, ``segments`` what
        the parts of an average step add to its time, ``chips`` who does how much, ``blocks`` the
        SOI blocks and their chips (second-order plans only), ``layers`` the network.
        """
        unit = {"unit": "s"}
        fields = [pa.field("segment", pa.string()), pa.field("time_s", pa.float64(), metadata=unit)]
        seconds = self.summary.segment_s
        segments = pa.table([list(seconds), list(seconds.values())], schema=pa.schema(fields))
        return {"ops": self._ops(), "segments": segments, **plan_page(self.plan).tables}

    def _ops(self) -> pa.Table:
        plan = self.plan
        ops = step_ops(plan, None, 0, factors_due=True, inverses_due=True)
        costs = plan.price(ops)
        prices = {
            "start_s": place(plan, ops, costs.duration_s).absolute_start_s(),
            "duration_s": costs.duration_s,
            "energy_j": costs.energy_j,
        }
        return pa.Table.from_batches([trace_batch(trace_columns(ops, prices), OP_NAMES)])

    def __repr__(self) -> str:
        work, step = self.plan.work, self.summary
        return (
            f"PlannedStep({self.plan.workload.name} on {work.chips:,} chips, {work.batch_size:,} "
            f"samples: {step.step_s:.3g} s, {step.energy_j:.3g} J)"
        )

    def _repr_html_(self) -> str:
        heading = f"{self.plan.workload.name} on {self.plan.work.chips:,} chips"
        facts = facts_html(heading, self.figures, self.units)
        return facts + table_html(self.tables["segments"])


def plan(
    network: str | Path | Workload = "vgg16",
    hardware: Hardware | Machine | None = None,
    *overrides: Override,
    chips: int | None = None,
    batch_size: int | None = None,
    micro_batch_size: int | None = None,
    config_dir: str | Path | None = None,
    **groups: Any,
) -> PlannedStep:
    """Plan a step of training a network on some chips, and price it.

    Parameters
    ----------
    network : str, Path or Workload
        A published network or a table of your own, ``"model"`` for the network of the settings, the
        path of an ONNX file, or layers of your own.
    hardware : Hardware or Machine, optional
        The chips; a machine brings its policy, too. None: those of the settings.
    *overrides, config_dir, **groups
        As in `load_settings`: ``partition="capacity"``, ``optimizer="sgd"``, ...
    chips, batch_size, micro_batch_size : int, optional
        Chips, samples per step and per micro-batch. None: those of the settings.

    Raises
    ------
    SettingsError
        A setting is wrong or not read by a plan, or stands beside an object or an argument that
        has it already; or the hardware is none.
    CapacityError
        The network does not fit and ``partition.overflow`` is ``error``.
    DataError
        The ONNX file cannot be read as a network.
    """
    given = {
        "farm.chips": chips,
        "train.batch_size": batch_size,
        "train.micro_batch_size": micro_batch_size,
    }
    own = {name: value for name, value in given.items() if value is not None}
    texts = as_overrides((*overrides, own), groups)
    _refuse_twice(texts, hardware, network)
    _refuse_both(as_overrides(overrides, groups), own)
    settings = checked_settings(
        ["study=plan", *_network(network, config_dir is not None), *texts], config_dir
    )
    machine = settings.machine
    if isinstance(hardware, Machine):
        machine = hardware
    elif hardware is not None:
        machine = Machine(given_hardware(hardware), machine.policy)
    workload = network if isinstance(network, Workload) else None
    return PlannedStep(planned_step(settings, machine, workload))


def _network(network: str | Path | Workload, own_folder: bool) -> list[str]:
    if isinstance(network, Workload):
        return []
    if str(network).endswith(".onnx"):
        return as_overrides([{"workload": ONNX, "workload.path": str(network)}], {})
    # A table of your own needs no file in `conf/workload`.
    preset = own_folder or str(network) in setting_groups()["workload"]
    return as_overrides([{"workload" if preset else "workload.name": str(network)}], {})


def _refuse_twice(texts: list[str], hardware: Any, network: Any) -> None:
    """Refuse settings of what is given as an object."""
    taken: dict[str, str] = {}
    if hardware is not None:
        taken |= dict.fromkeys(HARDWARE, "the hardware is given; valid: leave out one of them")
    if isinstance(hardware, Machine):
        taken |= dict.fromkeys(_POLICY, "the machine is given; valid: leave out one of them")
    if isinstance(network, Workload):
        reason = f"{network.name} is given; valid: leave out one of them"
        taken |= dict.fromkeys(("workload", "model"), reason)
    names = [text.partition("=")[0].lstrip("+~").partition(".")[0] for text in texts]
    wrong = [f"{name}: {taken[name]}" for name in names if name in taken]
    if wrong:
        raise SettingsError("\n".join(dict.fromkeys(wrong)))


def _refuse_both(texts: list[str], own: Mapping[str, int]) -> None:
    """Refuse settings that stand beside an argument of the same meaning."""
    names = [text.partition("=")[0].lstrip("+~") for text in texts]
    wrong = [
        f"{name}: {name.rpartition('.')[2]}={own[name]} is given, too; valid: leave out one of them"
        for name in names
        if name in own
    ]
    if wrong:
        raise SettingsError("\n".join(dict.fromkeys(wrong)))

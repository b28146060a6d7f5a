"""The page of an optimizer's steps: that of a training run, made of what the optimizer recorded."""

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from repast_dist.ground.files import RESULT, TRACE, write_json
from repast_dist.ground.spec import to_dict
from repast_dist.ground.versions import versions
from repast_dist.hardware.effects import ideal_effects
from repast_dist.ops.pricing import component_energy
from repast_dist.planning.plan import Plan
from repast_dist.planning.wear import Wear, cell_writes
from repast_dist.report.page import write_page
from repast_dist.report.run_data import load_run
from repast_dist.report.run_report import run_page
from repast_dist.torch.conversion import Conversion
from repast_dist.trace import TraceWriter, read_trace, solve_batch, totals
from repast_dist.training.optimizers import SecondOrder
from repast_dist.training.solve_report import SolveReport


def write_page_of(
    path: Path,
    made: Conversion,
    plan: Plan,
    method: SecondOrder,
    facts: Sequence[Any],
    rows: Sequence[pa.RecordBatch],
    solves: Sequence[SolveReport],
) -> Path:
    """Write the page, and return its path.

    Parameters
    ----------
    path : Path
        The HTML file.
    made : Conversion
        The network.
    plan : Plan
        The plan of the last step.
    method : SecondOrder
        The optimizer's method.
    facts : sequence of StepFacts
        The steps.
    rows : sequence of RecordBatch
        Rows of the trace, one step after the other.
    solves : sequence of SolveReport
        All solves.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / path.stem
        run.mkdir()
        steps = range(facts[0].step, facts[-1].step + 1)
        with TraceWriter(run / TRACE, n_chips=plan.work.chips) as trace:
            trace.append(steps, rows, solve_batch(vars(report) for report in solves))
        write_json(run / RESULT, _result(made, plan, method, facts, run))
        write_page(run_page(load_run(run)), path, standalone=True)
    return path


def _result(
    made: Conversion, plan: Plan, method: SecondOrder, facts: Sequence[Any], run: Path
) -> dict[str, Any]:
    settings = to_dict(made.settings)
    kept = ("seed", "engine", "inversion", "soi", "partition")
    hardware = made.hardware
    shown = {name: settings[name] for name in kept} | {
        "model": {"name": type(made.model).__name__},
        "dataset": {"name": "data of a PyTorch loop"},
        "optimizer": to_dict(method),
        "farm": {"chips": plan.work.chips},
        "chip": to_dict(hardware.chip),
        "device": to_dict(hardware.device),
        "components": to_dict(hardware.components),
        "interconnect": to_dict(hardware.interconnect),
    }
    found = totals(read_trace(run / TRACE)).to_dict()
    each_s = found["time_s"] / max(found["steps"], 1)
    wear = Wear(cell_writes(plan), hardware.costs.endurance, each_s)
    analog = made.settings.engine.uses_analog()
    return {
        "settings": shown,
        "seed": made.settings.seed,
        "method": method.name,
        "versions": versions(),
        "ideal_effects": list(ideal_effects(hardware)) if analog else [],
        "status": "finished",
        "wall_s": sum(fact.wall_s for fact in facts),
        "epochs": [],
        "steps": [dataclasses.asdict(fact) for fact in facts],
        "events": _events(made),
        "layers": _layers(made),
        "blocks": [
            {**dataclasses.asdict(block), "n": block.size, "chip": chip}
            for block, chip in zip(plan.blocks, plan.block_owner, strict=True)
        ],
        "component_energy_j": component_energy(hardware.costs),
        "wear": wear.record(found["steps"], 1),
    }


def _layers(made: Conversion) -> list[dict[str, Any]]:
    """Return one row per matrix, and one per module whose parameters stay PyTorch's own."""
    rows = []
    workload = made.work.latest
    shapes = {row.name: row for row in workload.layers} if workload else {}
    for name, matrix in made.simulation.matrices.items():
        used = shapes.get(name)
        rows.append(
            {
                "name": name,
                "kind": matrix.kind.name,
                "shape": (matrix.inputs + (matrix.bias is not None), matrix.outputs),
                "positions": used.vectors_per_sample if used else 1,
                "preconditioned": matrix.preconditioned,
                "reason": _why(matrix.trained, matrix.without_factors),
            }
        )
    rows += [
        {
            "name": item.path or "network",
            "kind": item.kind,
            "shape": (item.parameters,),
            "positions": 1,
            "preconditioned": False,
            "reason": f"{item.reason}, plain gradient",
        }
        for item in made.treatments
        if not item.converted
    ]
    return rows


def _why(trained: bool, without_factors: str) -> str:
    if not trained:
        return "not trained"
    return without_factors or "K-FAC"


def _events(made: Conversion) -> list[dict[str, Any]]:
    """Return what was assumed about the network."""
    workload = made.work.latest
    assumed = list(workload.assumptions) if workload else []
    device = made.hardware.device
    if made.settings.engine.uses_analog() and any(
        cell.ages or cell.wears for cell in (device.cell, device.inv_cell)
    ):
        assumed.append(
            "Cells are as old as device.age_s when they are used, and written as often as "
            "device.previous_writes: what passes and wears in the run is left out."
        )
    return [{"step": 0, "kind": "assumed", "message": text} for text in assumed]

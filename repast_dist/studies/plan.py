"""``study=plan``: who does what in a step, and how well the work is balanced, before it is run."""

from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from repast_dist.ops.op import Segment
from repast_dist.planning.blocks import SoiBlock
from repast_dist.planning.plan import Plan, fusion_rows
from repast_dist.planning.summary import summarise
from repast_dist.report.console import print_table
from repast_dist.report.idle_chips import idle_chips_line
from repast_dist.report.page import KeyFigure, Note
from repast_dist.report.study_page import Chart, StudyPage, StudySection
from repast_dist.report.units import counted, percent, si
from repast_dist.studies.costing import (
    NETWORKS,
    planned_step,
    print_networks,
    size_section,
    size_table,
    table,
    workload_notes,
)
from repast_dist.studies.kinds.plan import PlanStudy
from repast_dist.studies.output import finish
from repast_dist.studies.settings import RunSettings

_OF_SOI = (Segment.RENEW_AND_SOLVE_G, Segment.SOLVE_A)


def plan_page(plan: Plan) -> StudyPage:
    """Return the tables of a plan: chips, SOI blocks, layers.

    Parameters
    ----------
    plan : Plan
        The plan.
    """
    chips, blocks = _chip_rows(plan), _block_rows(plan)
    units = {"g_blocks_s": "s", "a_blocks_s": "s", "work_s": "s"}
    tables = {
        "chips": table(chips, units),
        "layers": table(_layer_rows(plan), {}),
        NETWORKS: size_table([plan.workload]),
    }
    sections = [StudySection("Chips", tables=["chips"])]
    cost = summarise(plan)
    figures = [
        KeyFigure("step", si(cost.step_s, "s"), number=cost.step_s, unit="s"),
        KeyFigure("energy of a step", si(cost.energy_j, "J"), number=cost.energy_j, unit="J"),
        KeyFigure("chips", f"{plan.work.chips:,}", number=plan.work.chips),
        KeyFigure("micro-batches", f"{plan.work.micro_batches:,}", number=plan.work.micro_batches),
        KeyFigure("SOI blocks", f"{len(plan.blocks):,}", number=len(plan.blocks)),
    ]
    batches = counted(plan.work.micro_batches, "micro-batch", "micro-batches")
    answer = (
        f"{plan.workload.name}: {batches} of "
        f"{plan.work.micro_batch_size} samples on {counted(plan.work.chips, 'chip')} take "
        f"{si(cost.step_s, 's')} and {si(cost.energy_j, 'J')}"
    )
    if blocks:
        busiest, bound = soi_makespan_s(plan), soi_bound_s(plan)
        excess = max(busiest / bound - 1, 0.0)
        of_step = sum(cost.segment_s[segment.title] for segment in _OF_SOI)
        answer += (
            f"; SOI blocks are renewed and solved with in {si(of_step, 's')} of it, and the "
            f"busiest chips have {percent(excess, 1)} more of that work than the lower bound"
        )
        figures += [
            KeyFigure("renewing and solving", si(of_step, "s"), number=of_step, unit="s"),
            KeyFigure("SOI work of the busiest chips", si(busiest, "s"), number=busiest, unit="s"),
            KeyFigure("lower bound", si(bound, "s"), number=bound, unit="s"),
        ]
        tables |= {
            "blocks": table(blocks, {"work_s": "s"}),
            "work": table(_work_rows(chips), {"work_s": "s"}),
        }
        work = Chart(
            "bars",
            "work",
            "SOI work per chip and step",
            x="chip",
            y="work_s",
            series="factor",
            stacked=True,
        )
        sections = [
            StudySection("Chips", charts=[work], tables=["chips"]),
            StudySection(
                "SOI blocks",
                tables=["blocks"],
                intro="Work is the time of all of a step's right-hand sides on one copy of a "
                "block. Copies share them and banks work side by side, so a step takes less. "
                "G blocks are solved before A blocks, so the busiest chip of each kind "
                "counts. No assignment of whole blocks is below the lower bound: per kind the mean "
                "over chips or the largest block.",
            ),
        ]
        fusion = fusion_rows(plan)
        measures = {"s": "s", "j": "J"}
        units = {f"{w}_{m}": u for w in ("apart", "fused", "saved") for m, u in measures.items()}
        tables["fusion"] = table(fusion, units)
        inside = sum(row["fused"] for row in fusion)
        saved, saved_j = (sum(row[f"saved_{unit}"] for row in fusion) for unit in measures)
        sections.append(
            StudySection(
                "Fusion of products and inversion",
                tables=["fusion"],
                intro=f"soi.fusion={plan.policy.soi.fusion}: {inside} of {len(fusion)} blocks have "
                "their activations in the inverting loop instead of their product, which saves "
                f"{si(saved, 's')} and {si(saved_j, 'J')} of block work per step. No time where "
                "the rows of the batches that are held do not fit an inverting array.",
            )
        )
    return StudyPage(
        study="plan",
        title=f"Plan of {plan.workload.name} on {counted(plan.work.chips, 'chip')}",
        answer=answer + ".",
        tables=tables,
        sections=[size_section(), *sections, StudySection("Layers", tables=["layers"])],
        key_figures=figures,
        notes=[*(Note(line) for line in _idle_chips(plan)), *workload_notes([plan.workload])],
    )


def _idle_chips(plan: Plan) -> list[str]:
    """Return a line on chips that are switched off, where they may be."""
    partition, work = plan.policy.partition, plan.work
    if partition.idle_chips == "none":
        return []
    return [idle_chips_line(work.chips, work.machine_chips, partition.objective)]


def soi_makespan_s(plan: Plan) -> float:
    """Return the modelled time of all SOI blocks on one copy each, one after the other: the busiest
    chip's G blocks, then A blocks.
    """
    return sum(float(_load(plan, factor).max()) for factor in ("G", "A"))


def soi_bound_s(plan: Plan) -> float:
    """Return what no assignment of whole blocks is faster than."""
    bound = 0.0
    for factor in ("G", "A"):
        cost = plan.block_costs.per_step_s * _is_factor(plan, factor)
        speeds = plan.chip_speeds
        bound += max(float(cost.sum() / speeds.sum()), float(cost.max() / speeds.max()))
    return bound


def run(study: PlanStudy, settings: RunSettings, run_dir: Path | None, console: Console) -> Path:
    """Plan a step of the settings."""
    plan = planned_step(settings)
    page = plan_page(plan)

    def details() -> None:
        for name in ("chips", "blocks"):
            if name in page.tables:
                print_table(name, page.tables[name], console)
        for line in _idle_chips(plan):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        print_networks([plan.workload], console)

    return finish(page, settings, console, details=details)


def _is_factor(plan: Plan, factor: str) -> np.ndarray:
    return np.array([block.factor == factor for block in plan.blocks], bool)


def _load(plan: Plan, factor: str) -> np.ndarray:
    """Return (chips,) modelled seconds per step on blocks of one kind."""
    cost = plan.held_costs.per_step_s * _is_factor(plan, factor)[plan.holdings.block]
    seconds: np.ndarray = np.bincount(plan.holdings.chip, cost, plan.work.chips)
    return seconds / plan.chip_speeds


def _chip_rows(plan: Plan) -> list[dict[str, Any]]:
    batches = np.bincount(np.asarray(plan.micro_batch_owner), minlength=plan.work.chips)
    holder = plan.holdings.chip
    blocks = np.bincount(holder, minlength=plan.work.chips)
    arrays = np.bincount(holder, plan.held_shapes.inv_arrays, plan.work.chips)
    seconds = {factor: _load(plan, factor) for factor in ("G", "A")}
    return [
        {
            "chip": chip,
            "micro_batches": int(batches[chip]),
            "soi_blocks": int(blocks[chip]),
            "inverting_arrays": int(arrays[chip]),
            "available": plan.hardware.chip.inv_arrays,
            "g_blocks_s": float(seconds["G"][chip]),
            "a_blocks_s": float(seconds["A"][chip]),
        }
        for chip in range(plan.work.chips)
    ]


def _block_rows(plan: Plan) -> list[dict[str, Any]]:
    return [
        {
            "block": block.index,
            "layer": block.layer_name,
            "factor": block.factor,
            "rows": f"{block.start}:{block.stop}",
            "n": block.size,
            "chip": int(plan.holdings.chip[number]),
            "right_sides": int(plan.holdings.right_sides[number]),
            "copies": int(plan.places.copies[number]),
            "programmed_every_step": not plan.places.stays[number],
            "work_s": float(plan.held_costs.per_step_s[number]),
        }
        for number, block in _held_blocks(plan)
    ]


def _held_blocks(plan: Plan) -> list[tuple[int, SoiBlock]]:
    """Return (holding, block), by block."""
    order = np.argsort(plan.holdings.block, kind="stable").tolist()
    return [(number, plan.blocks[plan.holdings.block[number]]) for number in order]


def _work_rows(chips: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"chip": str(row["chip"]), "factor": factor, "work_s": row[f"{factor.lower()}_blocks_s"]}
        for row in chips
        for factor in ("G", "A")
    ]


def _layer_rows(plan: Plan) -> list[dict[str, Any]]:
    table, arrays = plan.layers, plan.allocation
    fields = (table.rows, table.columns, arrays.copies, arrays.first_bank, arrays.resident)
    return [
        {
            "layer": layer.name,
            "kind": layer.kind.name,
            "rows": rows,
            "columns": columns,
            "copies": copies,
            "first_bank": bank,
            "stays_written": resident,
        }
        for layer, rows, columns, copies, bank, resident in zip(
            plan.workload.layers, *(field.tolist() for field in fields), strict=True
        )
    ]

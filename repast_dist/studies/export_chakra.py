"""``study=export-chakra``: the plan of a step as Chakra execution traces, one per chip."""

import dataclasses
from pathlib import Path

from rich.console import Console

from repast_dist.ground.files import write_json
from repast_dist.ground.plugins import checksums
from repast_dist.planning.chakra import write_chakra
from repast_dist.planning.plan import fusion_rows
from repast_dist.studies.costing import chosen_workload, print_networks
from repast_dist.studies.kinds.export_chakra import ExportChakraStudy
from repast_dist.studies.output import begin, write_answer
from repast_dist.studies.settings import RunSettings


def run(
    study: ExportChakraStudy, settings: RunSettings, run_dir: Path | None, console: Console
) -> Path:
    """Plan a step of the settings' workload and write the traces and the plan."""
    machine = settings.machine
    workload = chosen_workload(settings)
    plan = machine.plan(workload, study.chips, study.batch_size, study.micro_batch_size)
    folder = begin(settings, run_dir)
    owners = zip(plan.blocks, plan.block_owner, plan.block_costs.per_step_s.tolist(), strict=True)
    write_json(
        folder / "plan.json",
        {
            "workload": workload.name,
            "chips": plan.work.chips,
            "pipeline_stages": plan.allocation.stages,
            "layer_stage": plan.allocation.stage.tolist(),
            "layer_copies": plan.allocation.copies.tolist(),
            "layer_resident": plan.allocation.resident.tolist(),
            "micro_batch_owner": list(plan.micro_batch_owner),
            "blocks": [
                {**dataclasses.asdict(block), "chip": chip, "modelled_s": seconds}
                for block, chip, seconds in owners
            ],
            "fusion": fusion_rows(plan),
        },
    )
    paths = write_chakra(plan, folder / "chakra", study.steps, study.ticks_per_s)
    answer = f"{len(paths)} Chakra traces of a step of {workload.name}, one per chip."
    write_answer(folder, study.name, answer, {}, checksums(settings.plugins))
    print_networks([workload], console)
    console.print(f"{len(paths)} traces:    {folder / 'chakra'}", markup=False, soft_wrap=True)
    console.print(f"Plan:          {folder / 'plan.json'}", markup=False, soft_wrap=True)
    return folder

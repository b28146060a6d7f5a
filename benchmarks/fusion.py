"""Where fused inversion wins: planned work of a block per step, formed and fused.

A block is that of a dense layer as wide; its rows are those of the batches that it holds. Prints
time and energy of a fused block over those of a formed one, below 1 where fusion wins, for widths,
rows, schemes and amplifiers; then how many blocks of published networks could be fused and how many
are, with a batch whose rows are held alone.
"""

import argparse
import itertools
from typing import Any

from rich.console import Console
from rich.table import Table

from repast_dist.network.kinds import DENSE
from repast_dist.network.shapes import LayerShape, Workload
from repast_dist.network.workload import WorkloadSpec, build_workload
from repast_dist.planning.machine import Machine
from repast_dist.planning.plan import Plan
from repast_dist.settings import load_settings

WIDTHS, ROWS = (64, 128, 256), (8, 16, 32, 64, 128, 256)
SCHEMES = {
    "single": ("inversion=single",),
    "fcg, 16 bits": ("inversion=fcg",),
    "fcg, 8 bits, read early": (
        "inversion=fcg", "inversion.target_bits=8", "inversion.product_bits=16",
        "inversion.array_read_after=4", "soi.assumed_iterations=4",
    ),
}  # fmt: skip
AMPLIFIERS = {
    "100 times slower": (),
    "20 times slower": ("device.opamp.compensation=20",),
    "at rest at once": ("device.opamp.gbw_hz=null",),
}
NETWORKS = (
    "vgg13", "vgg16", "vgg19", "msra1", "msra2", "msra3", "resnet18", "resnet34", "resnet50",
    "resnet101", "resnet152", "densenet121", "bert_base", "bert_large", "gpt2_small", "vit_b16",
)  # fmt: skip


def machine_of(*settings: str) -> Machine:
    """Return a machine that chooses by cost."""
    return load_settings(["soi.fusion=auto", "soi.interval=1", *settings]).machine


def planned(machine: Machine, width: int, rows: int) -> Plan:
    """Return the plan of one layer with square weights and a batch of so many samples."""
    layer = LayerShape(name="fc", kind=DENSE, in_features=width, out_features=width, bias=False)
    micro_batch = min(rows, 8)
    return machine.plan(Workload(name="one", layers=(layer,)), 1, rows, micro_batch)


def ratios(*settings: str) -> list[list[Any]]:
    """Return rows: width, rows held, then fused over formed, time and energy."""
    machine = machine_of(*settings)
    found = []
    for width, rows in itertools.product(WIDTHS, ROWS):
        if max(width, rows) > machine.hardware.chip.inv.size:
            continue
        choice = planned(machine, width, rows).fusion
        # A blocks, whose activations are in arrays anyway.
        time, energy = choice.fused_s[0] / choice.apart_s[0], choice.fused_j[0] / choice.apart_j[0]
        found.append([width, rows, time, energy])
    return found


def networks(batch: int, *settings: str) -> list[list[Any]]:
    """Return rows: network, its blocks, those whose rows fit, and for time and for energy, those
    that are cheaper fused and the share of the blocks' work that this saves.
    """
    machine = machine_of("soi.block_size=256", *settings)
    found = []
    for name in NETWORKS:
        workload = build_workload(WorkloadSpec(name=name))
        plan = machine.plan(workload, 1, batch, min(batch, 8))
        choice, fits = plan.fusion, plan.shapes.held <= machine.hardware.chip.inv.size
        row: list[Any] = [name, len(fits), int(fits.sum())]
        for apart, fused in ((choice.apart_s, choice.fused_s), (choice.apart_j, choice.fused_j)):
            less = fused < apart
            row += [int(less.sum()), float((apart - fused)[less].sum() / apart.sum())]
        found.append(row)
    return found


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chip", default="repast")
    parser.add_argument("--batch", type=int, nargs="*", default=[256, 8])
    arguments = parser.parse_args()
    chip, console = f"chip={arguments.chip}", Console(width=160)
    for amplifiers, speed in AMPLIFIERS.items():
        table = Table(title=f"fused over formed, time / energy; outer amplifiers {amplifiers}")
        for column in ("width", "rows", *SCHEMES):
            table.add_column(column, justify="right")
        columns = [ratios(chip, *speed, *scheme) for scheme in SCHEMES.values()]
        for rows in zip(*columns, strict=True):
            cells = [f"{time:.2f} / {energy:.2f}" for _, _, time, energy in rows]
            table.add_row(str(rows[0][0]), str(rows[0][1]), *cells)
        console.print(table)
    for batch, (scheme, settings), (amplifiers, speed) in itertools.product(
        arguments.batch, SCHEMES.items(), AMPLIFIERS.items()
    ):
        table = Table(title=f"batch of {batch}, {scheme}, outer amplifiers {amplifiers}")
        for column in ("network", "blocks", "fit", "faster", "saved", "less energy", "saved"):
            table.add_column(column)
        for name, blocks, fit, faster, time, less, energy in networks(
            batch, chip, *speed, *settings
        ):
            table.add_row(
                name, str(blocks), str(fit), str(faster), f"{time:.2%}", str(less), f"{energy:.2%}"
            )
        console.print(table)


if __name__ == "__main__":
    main()

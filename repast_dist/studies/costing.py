"""Parts that the cost studies share: the network asked about, plans, and tables with units."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
from rich.console import Console

from repast_dist.farm.specs import chip_speed
from repast_dist.network.shapes import Workload
from repast_dist.network.workload import MODEL, build_workload
from repast_dist.planning.machine import Machine
from repast_dist.planning.plan import Plan
from repast_dist.report.console import say
from repast_dist.report.page import Note
from repast_dist.report.study_page import StudySection
from repast_dist.report.units import percent
from repast_dist.studies.settings import RunSettings
from repast_dist.training.optimizers.base import Fisher


def planned_step(
    settings: RunSettings, machine: Machine | None = None, workload: Workload | None = None
) -> Plan:
    """Plan a step of training on the settings' farm.

    Parameters
    ----------
    settings : RunSettings
        All settings.
    machine, workload : Machine, Workload, optional
        What is planned for and what is trained; None: those of the settings.

    Raises
    ------
    SettingsError, DataError
        The network cannot be read or placed.
    """
    farm, train, second = settings.farm, settings.train, settings.optimizer.second_order
    trained = workload or chosen_workload(settings)
    return (machine or settings.machine).plan(
        trained,
        farm.chips,
        train.batch_size,
        train.micro_batch_size,
        sides=second.sides if second else (),
        speeds=tuple(chip_speed(farm, chip) for chip in range(farm.chips)),
        decay=second.lasting_decay if second else 0.0,
        fusible=second is not None and second.fusible,
        fisher_passes=_fisher_passes(trained, second.output_gradients) if second else 0,
        update_operations=settings.optimizer.update_operations,
        clips=second is not None and second.clips,
        damping_every=second.damping_every if second else 0,
        matrices=settings.optimizer.matrices,
    )


def _fisher_passes(workload: Workload, fisher: Fisher) -> int:
    """Return the extra backward passes for the Fisher factors: of one label that is drawn, or one
    per output of the losses; one where the network has no loss.
    """
    outputs = sum(loss.rows * loss.width for loss in workload.losses)
    return {"empirical": 0, "sampled": 1, "exact": max(outputs, 1)}[fisher]


def chosen_workload(settings: RunSettings) -> Workload:
    """Return the network of the settings: a table, an ONNX file, or the model that is trained.

    Raises
    ------
    SettingsError, DataError
        The file is missing or unreadable.
    """
    if settings.workload.name == MODEL:
        samples = settings.train.micro_batch_size
        return settings.model.build(settings.dataset.load, settings.seed, samples).workload
    return build_workload(settings.workload)


_NETWORK_UNITS = {"of_parameters": "fraction", "of_macs": "fraction"}

NETWORKS = "networks"
"""Name of the table of `size_table`."""

NETWORKS_CAPTION = (
    "Of one sample's forward pass. The last two columns are the shares that second order reaches; "
    "other weights get a first-order update."
)


def size_table(workloads: Iterable[Workload]) -> pa.Table:
    """Return how large networks are, and how much of them second order reaches."""
    rows = [
        {
            "network": workload.name,
            "layers": len(workload.layers),
            "parameters": workload.parameter_count,
            "macs": workload.macs_per_sample,
            "digital_ops": workload.digital_ops_per_sample,
            "of_parameters": workload.preconditioned_parameters / max(1, workload.parameter_count),
            "of_macs": workload.preconditioned_macs / max(1, workload.macs_per_sample),
        }
        for workload in workloads
    ]
    return table(rows, _NETWORK_UNITS)


def size_section() -> StudySection:
    """Return the section of a page that shows `size_table`."""
    return StudySection("Networks", tables=[NETWORKS], intro=NETWORKS_CAPTION)


def print_networks(workloads: Sequence[Workload], console: Console) -> None:
    """Print how large networks are, and what was assumed of them."""
    for workload in workloads:
        reached = workload.preconditioned_parameters / max(1, workload.parameter_count)
        of_macs = workload.preconditioned_macs / max(1, workload.macs_per_sample)
        say(
            f"{workload.name}: {workload.parameter_count:,} parameters, "
            f"{workload.macs_per_sample:,} MACs and "
            f"{workload.digital_ops_per_sample:,} digital operations per sample; second order "
            f"reaches {percent(reached, 1)} of the parameters and {percent(of_macs, 1)} of the "
            "MACs.",
            console,
        )
    for note in workload_notes(workloads):
        say(f"Assumed of {note.text}", console)


def workload_notes(workloads: Iterable[Workload]) -> list[Note]:
    """Return what the tables of networks assume, each assumption once with its networks."""
    networks: dict[str, list[str]] = {}
    for workload in workloads:
        for assumption in workload.assumptions:
            networks.setdefault(assumption, []).append(workload.name)
    return [Note(f"{', '.join(names)}: {text}") for text, names in networks.items()]


def table(rows: Sequence[Mapping[str, Any]], units: Mapping[str, str]) -> pa.Table:
    """Make an Arrow table of records; every number column needs a unit.

    Parameters
    ----------
    rows : sequence of mapping
        Records with the same keys; at least one.
    units : mapping
        Column -> unit; text columns and plain counts may be left out.
    """
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    plain = pa.table(columns)
    fields = [
        field.with_metadata({"unit": units.get(field.name, "" if _is_text(field) else "1")})
        for field in plain.schema
    ]
    return plain.cast(pa.schema(fields))


def _is_text(field: pa.Field) -> bool:
    return pa.types.is_string(field.type) or pa.types.is_boolean(field.type)

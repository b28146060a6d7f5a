"""Checks that a trace has no missing, duplicate or changed rows."""

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from repast_dist.ground.files import SOLVES, sha256
from repast_dist.trace.reader import read_trace
from repast_dist.trace.stream import run_of, stream_messages
from repast_dist.trace.writer import from_runs, open_path, read_manifest

_IDENTITY = ("chip", "bank", "step", "phase", "op", "layer", "block", "micro_batch", "start_s")


@dataclasses.dataclass(frozen=True)
class Finding:
    """One fault of a trace.

    Attributes
    ----------
    kind : {"missing", "duplicate", "damaged", "unlisted", "open"}
        Kind of the fault.
    where : str
        File, or chip and step.
    message : str
        What was found and what was expected.
    """

    kind: str
    where: str
    message: str


def verify(folder: Path, *, steps: int | None = None) -> list[Finding]:
    """Check a trace against its manifest and the steps it should cover.

    Parameters
    ----------
    folder : Path
        The trace folder.
    steps : int or None
        Number of steps that the run did; None: up to the last step of the manifest.

    Returns
    -------
    list of Finding
        Empty if every chip has its rows of every step exactly once.

    Raises
    ------
    RunDirectoryError
        There is no readable manifest.
    """
    manifest = read_manifest(folder)
    findings: list[Finding] = []
    for store in (folder, folder.parent / SOLVES):
        findings.extend(_check_files(store, read_manifest(store)))
        if open_path(store).exists():
            findings.append(
                Finding(
                    "open",
                    open_path(store).name,
                    "the writer was not closed: the run goes on or crashed",
                )
            )
    if any(finding.kind == "damaged" for finding in findings):
        return findings
    table = read_trace(folder, columns=_IDENTITY)
    found = _rows_per_chip(table, manifest["chips"])
    findings.extend(_check_counts(manifest, found))
    findings.extend(_check_coverage(manifest, found, steps))
    findings.extend(_check_duplicates(table))
    return findings


def whole_steps(folder: Path, run: str | None = None) -> int:
    """Return how many steps, from the first, the trace and the solve reports both hold whole.

    Parameters
    ----------
    folder : Path
        The trace folder.
    run : str, optional
        SHA-256 of the run's settings: files with other runs' rows are passed over.

    Raises
    ------
    RunDirectoryError
        A manifest is missing or damaged.
    """
    return min(_whole_steps(folder, run), _whole_steps(folder.parent / SOLVES, run))


def _whole_steps(folder: Path, run: str | None) -> int:
    found: set[int] = set()
    for part in read_manifest(folder)["parts"]:
        if _damage(folder, part) is not None:
            continue
        if run is None or run_of(pq.read_schema(folder / part["file"])) == run:
            found.update(part["steps"])
    for message in stream_messages(open_path(folder), run):
        found.update(message.steps)
    return next(step for step in itertools.count() if step not in found)


def _check_files(folder: Path, manifest: dict[str, Any]) -> Iterator[Finding]:
    for part in manifest["parts"]:
        damage = _damage(folder, part)
        if damage is not None:
            yield Finding("damaged", part["file"], damage)
    listed = {part["file"] for part in manifest["parts"]}
    # Other programs read whatever Parquet lies there.
    for path in sorted(folder.rglob("*.parquet")):
        name = str(path.relative_to(folder))
        if name not in listed:
            yield Finding("unlisted", name, "not in the manifest")


def _damage(folder: Path, part: dict[str, Any]) -> str | None:
    """Return what is wrong with the file of a part; every byte of it is read."""
    try:
        found = sha256(folder / part["file"])
    except OSError as error:
        return f"cannot be read ({error})"
    return None if found == part["sha256"] else "its SHA-256 is not that in the manifest"


def _rows_per_chip(table: pa.Table, n_chips: int) -> dict[int, np.ndarray]:
    steps, chips = table["step"].to_numpy(), table["chip"].to_numpy()
    order = np.argsort(steps, kind="stable")
    values, edges = np.unique(steps[order], return_index=True)
    return {
        int(step): np.bincount(rows, minlength=n_chips)
        for step, rows in zip(values, np.split(chips[order], edges[1:]), strict=True)
    }


def _check_counts(manifest: dict[str, Any], found: dict[int, np.ndarray]) -> Iterator[Finding]:
    nothing = np.zeros(manifest["chips"], np.int64)
    for part in manifest["parts"]:
        for step, runs in zip(part["steps"], part["rows_per_chip"], strict=True):
            rows, expected = found.get(step, nothing), from_runs(runs)
            for chip in np.flatnonzero(rows[: len(expected)] != expected):
                kind = "missing" if rows[chip] < expected[chip] else "duplicate"
                yield Finding(
                    kind,
                    f"chip {chip}, step {step}",
                    f"{rows[chip]} rows, the manifest lists {expected[chip]}",
                )


def _check_coverage(
    manifest: dict[str, Any], found: dict[int, np.ndarray], steps: int | None
) -> Iterator[Finding]:
    last = steps if steps is not None else max(found, default=-1) + 1
    active = sum(found.values(), np.zeros(manifest["chips"], np.int64)) > 0
    for step in range(last):
        if step not in found:
            yield Finding("missing", f"step {step}", "no rows of any chip")
            continue
        # A chip that the plan gave nothing to do has no rows in any step.
        for chip in np.flatnonzero(active & (found[step] == 0)):
            yield Finding("missing", f"chip {chip}, step {step}", "no rows of this chip")
    for step in sorted(step for step in found if step >= last):
        yield Finding("duplicate", f"step {step}", f"beyond the run's {last} steps")


def _check_duplicates(table: pa.Table) -> Iterator[Finding]:
    keys = list(_IDENTITY)
    plain = table
    for name in ("phase", "op"):
        index = plain.schema.get_field_index(name)
        plain = plain.set_column(index, name, plain[name].cast(pa.string()))
    counted = plain.group_by(keys).aggregate([([], "count_all")])
    repeated = counted.filter(np.asarray(counted["count_all"]) > 1)
    for row in repeated.slice(0, 100).to_pylist():
        yield Finding(
            "duplicate",
            f"chip {row['chip']}, step {row['step']}",
            f"{row['count_all']} equal rows: {row['phase']} {row['op']}, bank {row['bank']}, "
            f"layer {row['layer']}, block {row['block']}, start {row['start_s']} s",
        )

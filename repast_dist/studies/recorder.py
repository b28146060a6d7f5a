"""Puts what happens in a training run where it belongs: trace, result.json, log and terminal."""

import datetime
import hashlib
import json
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from repast_dist.farm.checkpoint import Checkpoint
from repast_dist.farm.records import EpochRecord, Event, StepRecord
from repast_dist.ground.errors import RunDirectoryError
from repast_dist.ground.files import LOG, RESULT, TRACE, write_json
from repast_dist.ground.plugins import checksums
from repast_dist.ground.spec import to_dict
from repast_dist.ground.user_code import code_checksums
from repast_dist.ground.versions import versions
from repast_dist.hardware.effects import ideal_effects
from repast_dist.report.console import RunProgress
from repast_dist.report.units import percent
from repast_dist.studies import stored
from repast_dist.studies.run_result import read_result, settings_digest
from repast_dist.studies.settings import RunSettings
from repast_dist.trace import TraceWriter, solve_batch
from repast_dist.training.solve_report import SolveReport

_OF_THE_END = ("totals", "wear", "finished", "error")
"""What a result says of how a run ended, which is no longer so once it goes on."""

# Times longer than a save took until result.json is saved again while the run goes.
_SAVE_PAUSE = 50.0


class RunRecorder:
    """Records one run; see `repast_dist.farm.coordinator.Recorder`.

    Parameters
    ----------
    run_dir : Path
        The run's directory.
    settings : RunSettings
        Its settings.
    facts : mapping
        Entries of result.json that are known before training: layers, blocks, plan, and
        ``working_chips``, the chips that are not switched off.
    progress : RunProgress
        The terminal display.
    resumed : Checkpoint or None
        Where an old run goes on.
    """

    def __init__(
        self,
        run_dir: Path,
        settings: RunSettings,
        facts: Mapping[str, Any],
        progress: RunProgress,
        resumed: Checkpoint | None,
    ) -> None:
        self._path = run_dir / RESULT
        self._progress = progress
        self._classifies = settings.model.classifies
        self._log = _open_log(run_dir / LOG)
        self._started = time.monotonic()
        plain = to_dict(settings)
        stored = read_result(run_dir) if resumed else {}
        digest = stored["settings_sha256"] if resumed else settings_digest(plain)
        self._trace = TraceWriter(
            run_dir / TRACE,
            n_chips=facts["working_chips"],
            settings_sha256=digest,
            resume_step=resumed.step if resumed else None,
        )
        self._saved_at = self._save_cost_s = 0.0
        if resumed is None:
            self.result: dict[str, Any] = {
                "study": settings.study.name,
                "settings": plain,
                "settings_sha256": digest,
                "seed": settings.seed,
                "versions": versions(),
                "plugins": _checksums(settings),
                "ideal_effects": (
                    list(ideal_effects(settings.hardware)) if settings.engine.uses_analog() else []
                ),
                "command": " ".join(sys.argv),
                "started": _now(),
                "wall_s": 0.0,
                "epochs": [],
                "steps": [],
                "events": [],
            }
        else:
            # The checkpoint knows more than a result that was saved before it, and less than one
            # saved after it.
            records = {name: list(resumed.state[name]) for name in ("steps", "epochs")}
            self.result = {**stored, **records}
            for name in _OF_THE_END:
                self.result.pop(name, None)
            now = _checksums(settings)
            _check_plugins(self.result["plugins"], now, run_dir)
            self._forget(resumed.step)
            told = [f"resumed at step {resumed.step}", *_changed_farm(stored["settings"], plain)]
            self.event(Event(resumed.step, "resume", ", ".join(told)))
            other = _other_versions(self.result["versions"], versions())
            if other:
                self.event(Event(resumed.step, "versions", f"resumed with {', '.join(other)}"))
        self.result |= {**facts, "status": "running"}
        self._earlier_s = float(self.result["wall_s"])
        self._save()

    def kernels(self, names: Sequence[str]) -> None:
        """Record what the workers compute products with."""
        self.result["kernels"] = sorted({*self.result.get("kernels", ()), *names})
        self._save()

    def steps(
        self,
        records: Sequence[StepRecord],
        rows: Sequence[pa.RecordBatch],
        solves: Sequence[SolveReport],
    ) -> None:
        """Record some steps."""
        last = records[-1]
        steps = range(records[0].step, last.step + 1)
        self._trace.append(steps, rows, solve_batch(vars(report) for report in solves))
        self.result["steps"] += [record.plain() for record in records]
        for record in records:
            self._log.info(
                "step %d loss %.6g accuracy %.4f simulated %.6g s wall %.3f s",
                *(record.step, record.loss, record.accuracy, record.time_s, record.wall_s),
            )
        accuracy = last.accuracy if self._classifies else None
        self._progress.update(last.step + 1, loss=last.loss, accuracy=accuracy)

    def epoch(self, record: EpochRecord) -> None:
        """Record one epoch that was tested."""
        self._progress.tested()
        self.result["epochs"].append(record.plain())
        self._log.info("epoch %s", json.dumps(record.plain()))
        text = f"epoch {record.epoch}: train loss {record.train_loss:.4f}, "
        text += f"test loss {record.test_loss:.4f}"
        if self._classifies:
            text += f", test accuracy {percent(record.test_accuracy)}"
        else:
            text += f", squared error {record.test_squared_error:.4f}"
        self._progress.message(text)
        self._save_now_and_then()

    def event(self, event: Event) -> None:
        """Record something that should be known afterwards."""
        self.result["events"].append(event.plain())
        self._log.warning("step %d %s: %s", event.step, event.kind, event.message)
        if event.kind != "divergence" or self._first_of(event.kind):
            self._progress.message(f"step {event.step}: {event.kind}: {event.message}")

    def cut(self) -> None:
        """Make the trace durable up to here."""
        self._trace.sync()
        self._save_now_and_then()

    def saved(self) -> None:
        """Have what lies in the run directory copied, where a copy is kept."""
        stored.saved()

    def drop_from(self, step: int) -> None:
        """Forget a step and all after it."""
        self._trace.drop_from(step)
        self._forget(step)

    def seal(self) -> None:
        """Write all that is left of the trace; no step follows."""
        self._trace.close()

    def finish(self, status: str, **entries: Any) -> None:
        """Close the records with how the run ended."""
        self.seal()
        self.result |= {"status": status, "finished": _now(), **entries}
        self._save()
        self._log.info("run %s", status)
        for handler in list(self._log.handlers):
            handler.close()
            self._log.removeHandler(handler)

    def _forget(self, step: int) -> None:
        for name in ("steps", "epochs"):
            # An epoch's record carries the step after it.
            last = step if name == "epochs" else step - 1
            self.result[name] = [item for item in self.result[name] if item["step"] <= last]
        self.result["events"] = [
            item
            for item in self.result["events"]
            if item["step"] < step or item["kind"] not in ("divergence", "target")
        ]

    def _first_of(self, kind: str) -> bool:
        return sum(item["kind"] == kind for item in self.result["events"]) == 1

    def _save_now_and_then(self) -> None:
        """Save unless that took more than a small part of the time since it was done last."""
        if time.monotonic() - self._saved_at > _SAVE_PAUSE * self._save_cost_s:
            self._save()

    def _save(self) -> None:
        started = time.monotonic()
        self.result["wall_s"] = self._earlier_s + started - self._started
        write_json(self._path, self.result)
        self._saved_at = time.monotonic()
        self._save_cost_s = self._saved_at - started


def _checksums(settings: RunSettings) -> dict[str, str]:
    """Return plug-in, module or file of the user's -> SHA-256 of what it holds."""
    files = {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in settings.model.files
    }
    return checksums(settings.plugins) | code_checksums(settings.code) | files


def _changed_farm(stored: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Name the settings of the farm that the run goes on with and did not begin with."""
    before = stored.get("farm", {})
    return [
        f"farm.{name}={value}" for name, value in now["farm"].items() if before.get(name) != value
    ]


def _other_versions(stored: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Name what is not of the version that the run began with."""
    return [
        f"{name} {now.get(name, 'missing')} (the run began with {stored.get(name, 'none')})"
        for name in sorted({*stored, *now})
        if stored.get(name) != now.get(name)
    ]


def _check_plugins(stored: Mapping[str, str], now: Mapping[str, str], run_dir: Path) -> None:
    """Refuse to go on with plug-ins that are not those of the run: its numbers would change."""
    changed = sorted(name for name in stored if stored[name] != now.get(name))
    if changed:
        raise RunDirectoryError(
            f"{run_dir}: plug-in {', '.join(changed)} has changed since the run began; valid: the "
            f"file with SHA-256 {stored[changed[0]]}"
        )


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def _open_log(path: Path) -> logging.Logger:
    log = logging.getLogger(f"repast_dist.run.{path.parent.name}")
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    return log

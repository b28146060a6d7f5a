"""How far a sweep has come: its points, the run of each, and which of them are finished.

All of it is in the sweep's folder before the first run begins, and what has changed is written
after every run, so that a sweep that was stopped at any moment can go on.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from rich.console import Console

from repast_dist.farm.storage.specs import of_point
from repast_dist.ground.errors import RunDirectoryError
from repast_dist.ground.files import (
    ANSWER,
    SETTINGS,
    SWEEP,
    checked_entries,
    read_json,
    write_json,
)
from repast_dist.ground.spec import to_dict
from repast_dist.studies import resume_study, run_study
from repast_dist.studies.run_directory import placed
from repast_dist.studies.run_result import has_finished, settings_digest
from repast_dist.studies.settings import RunSettings, checked_settings

_FOLDER = "settings"
_POINT: dict[str, type | tuple[type, ...]] = {
    "settings": str,
    "sha256": str,
    "overrides": list,
    "run": str,
    "finished": bool,
}


@dataclasses.dataclass
class SweepPoint:
    """One point of a sweep.

    Attributes
    ----------
    settings : RunSettings
        All settings.
    overrides : list of str
        What the user said of it, for the headings.
    sha256 : str
        Identifies the settings.
    run : Path
        Where its run directory is, once it has begun.
    finished : bool
        Whether the run is finished.
    """

    settings: RunSettings
    overrides: list[str]
    sha256: str
    run: Path
    finished: bool = False

    def finished_meanwhile(self) -> bool:
        """Return whether the run is finished, also if nobody noted it."""
        return has_finished(self.run)

    def do(self, farm: Mapping[str, Any], console: Console) -> None:
        """Do the run, or what is left of it; nothing, if it is finished.

        One that was stopped and keeps nothing to go on with begins anew in another directory.

        Parameters
        ----------
        farm : mapping
            Settings of ``farm`` to change where it is gone on with.
        console : Console
            Where it is shown.

        Raises
        ------
        KeyboardInterrupt, RepastError, OSError
            Ctrl-C, or the run failed.
        """
        if self.finished_meanwhile():
            console.print(f"Finished before: {self.run}", markup=False, soft_wrap=True)
        elif self.has_begun():
            resume_study(self.run, farm, console)
        else:
            self.run = self._free_place(console)
            with placed(self.run):
                self.run = run_study(self.settings, console)

    def _free_place(self, console: Console) -> Path:
        """Return the run's directory, or, where a stopped run lies there, one beside it."""
        place, number = self.run, 1
        while (place / SETTINGS).is_file():
            number += 1
            place = self.run.with_name(f"{self.run.name}_{number}")
        if place != self.run:
            console.print(
                f"study={self.settings.study.name} keeps nothing to go on with of {self.run}: it "
                f"begins anew in {place}",
                markup=False,
                soft_wrap=True,
            )
        return place

    def has_begun(self) -> bool:
        """Return whether there is a run directory to go on with."""
        return (self.run / SETTINGS).is_file() and self.settings.study.can_resume(self.run)


@dataclasses.dataclass
class SweepState:
    """The points of a sweep and its folder.

    Attributes
    ----------
    folder : Path
        The sweep's folder.
    points : list of SweepPoint
        In the order of the table.
    table : list of dict
        What is known of the finished runs: settings that differ, key figures.
    """

    folder: Path
    points: list[SweepPoint]
    table: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    @classmethod
    def begin(
        cls,
        folder: Path,
        settings: Sequence[RunSettings],
        overrides: Sequence[Sequence[str]],
        runs: Sequence[str] = (),
    ) -> None:
        """Write down the points of a new sweep.

        Parameters
        ----------
        folder : Path
            The sweep's folder.
        settings, overrides : sequence
            Of every point.
        runs : sequence of str, optional
            Where its run directory is, below the sweep's folder; by default numbered from 1.
        """
        (folder / _FOLDER).mkdir(exist_ok=True)
        points = []
        for number, (item, words) in enumerate(zip(settings, overrides, strict=True)):
            run = folder / (runs[number] if runs else f"{number + 1:04d}")
            if not runs:
                storage = of_point(item.storage, run.name)
                item = dataclasses.replace(item, storage=storage)
            plain = to_dict(item)
            write_json(folder / settings_file(number), plain)
            points.append(SweepPoint(item, list(words), settings_digest(plain), run))
        write_json(folder / SETTINGS, to_dict(settings[0]))
        cls(folder, points).save()

    @classmethod
    def read(cls, folder: Path, farm: Mapping[str, Any]) -> Self:
        """Read the state of a sweep that was stopped.

        Parameters
        ----------
        folder : Path
            The sweep's folder.
        farm : mapping
            Settings of ``farm`` to change in the runs that are not finished.

        Raises
        ------
        RunDirectoryError
            A file is missing, damaged or changed.
        """
        path = folder / SWEEP
        stored = read_json(path)
        checked_entries(path, stored, {"plan": list})
        points = []
        for item in stored["plan"]:
            checked_entries(path, item, _POINT)
            plain = read_json(folder / item["settings"])
            if settings_digest(plain) != item["sha256"]:
                raise RunDirectoryError(
                    f"{folder / item['settings']}: the settings have changed since the sweep "
                    f"began; valid: those with SHA-256 {item['sha256']}"
                )
            checked_entries(folder / item["settings"], plain, {"farm": dict})
            settings = checked_settings({**plain, "farm": plain["farm"] | farm})
            run = folder / item["run"]
            finished = item["finished"] and (run / ANSWER).is_file()
            points.append(
                SweepPoint(settings, list(item["overrides"]), item["sha256"], run, finished)
            )
        return cls(folder, points)

    @property
    def finished(self) -> list[SweepPoint]:
        """The points whose runs are finished."""
        return [point for point in self.points if point.finished]

    def relative(self, run: Path) -> str:
        """Return the path of a run from the sweep's folder: both can be moved together."""
        return os.path.relpath(run, self.folder)

    def save(self) -> None:
        """Write what has changed."""
        plan = [
            {
                "settings": settings_file(number),
                "sha256": point.sha256,
                "overrides": point.overrides,
                "run": self.relative(point.run),
                "finished": point.finished,
            }
            for number, point in enumerate(self.points)
        ]
        runs = [item["run"] for item in plan if item["finished"]]
        write_json(self.folder / SWEEP, {"runs": runs, "points": self.table, "plan": plan})


def settings_file(number: int) -> str:
    """Return where the settings of a point are, below the sweep's folder."""
    return f"{_FOLDER}/{number + 1:04d}.json"

"""Studies of many independent points: on workers, with progress, and nothing done twice.

Every finished point is a small JSON file in the run directory, named by a digest of all that
decides it. A study that was stopped goes on from there, and a later one can take the files over.
"""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from rich.console import Console

from repast_dist.farm.specs import FarmSpec
from repast_dist.farm.study_pool import map_unordered
from repast_dist.ground.errors import FarmError, RunDirectoryError, Stopped
from repast_dist.ground.files import POINTS, read_json, write_json
from repast_dist.ground.spec import to_dict
from repast_dist.ground.versions import versions
from repast_dist.report.console import PointProgress
from repast_dist.studies import stored
from repast_dist.studies.output import begin
from repast_dist.studies.run_directory import locked
from repast_dist.studies.settings import RunSettings
from repast_dist.studies.study import PointStudy

PointFunction = Callable[[Any, Any], dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class PointRunner:
    """Computes the points of a study and keeps their records in its run directory.

    Attributes
    ----------
    run_dir : Path
        Where finished records are kept, in ``points/``.
    farm : FarmSpec
        Where points are computed.
    console : Console
        Where progress is shown.
    reuse : tuple of str
        Run directories whose finished points are taken over.
    """

    run_dir: Path
    farm: FarmSpec
    console: Console
    reuse: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, study: PointStudy, settings: RunSettings, run_dir: Path | None, console: Console
    ) -> Self:
        """Return the runner of a study in a new run directory, or in the one to go on with."""
        return cls(begin(settings, run_dir), settings.farm, console, study.reuse)

    def records(
        self, title: str, function: PointFunction, points: Sequence[Any], shared: Any = None
    ) -> list[dict[str, Any]]:
        """Return the record of every point, in the order of the points.

        Parameters
        ----------
        title : str
            What the progress is of.
        function : callable
            A function of a module, ``function(shared, point)``, that returns a record JSON can
            hold.
        points : sequence
            Frozen dataclasses; all that decides a record must be in its point.
        shared : object
            Moved to every worker once.

        Raises
        ------
        RepastError
            What a point raised; the finished ones are kept.
        """
        folder = self.run_dir / POINTS
        folder.mkdir(exist_ok=True)
        files = [folder / f"{_digest(function, point)}.json" for point in points]
        with locked(self.run_dir):
            _take_over(files, self.reuse)
            # Points that are the same are computed once.
            todo = {
                file: point for file, point in zip(files, points, strict=True) if not file.exists()
            }
            total = len(set(files))
            progress = PointProgress(title, total, done=total - len(todo), console=self.console)
            names = list(todo)
            work = map_unordered(function, shared, list(todo.values()), self.farm)
            with progress, contextlib.closing(work) as results:
                try:
                    for number, record in results:
                        write_json(names[number], record)
                        stored.saved_some()
                        progress.advance()
                except KeyboardInterrupt as stopped:
                    progress.message(f"Interrupted. Go on with: repast-dist resume={self.run_dir}")
                    raise Stopped from stopped
                except FarmError as error:
                    raise FarmError(f"{error}; resume={self.run_dir} goes on") from error
        return [read_json(file) for file in files]


def _digest(function: PointFunction, point: Any) -> str:
    decisive = {
        "function": f"{function.__module__}.{function.__qualname__}",
        "version": versions()["repast-dist"],
        "point": to_dict(point),
    }
    text = json.dumps(decisive, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _take_over(files: Sequence[Path], reuse: Sequence[str]) -> None:
    for source in map(Path, reuse):
        if not (source / POINTS).is_dir():
            raise RunDirectoryError(f"study.reuse: {source} has no folder {POINTS}")
        for file in files:
            found = source / POINTS / file.name
            if found.exists() and not file.exists():
                write_json(file, read_json(found))

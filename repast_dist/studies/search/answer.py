"""``study=search`` proposes points, has them measured, keeps every one, and shows the best."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console

from repast_dist.farm.cluster import cluster
from repast_dist.farm.study_pool import map_unordered
from repast_dist.ground.errors import FarmError, RunDirectoryError, SettingsError, Stopped
from repast_dist.ground.files import ANSWER, POINTS, REPORT, read_json, write_json
from repast_dist.ground.spec import to_dict
from repast_dist.report.console import PointProgress
from repast_dist.studies import stored
from repast_dist.studies.kinds.search import SearchStudy
from repast_dist.studies.measure import Measure
from repast_dist.studies.output import begin, finish
from repast_dist.studies.search.designs import DESIGNS, Design, design
from repast_dist.studies.search.evaluate import SearchPoint, Shared, measured_point
from repast_dist.studies.search.found import Found
from repast_dist.studies.search.goals import Goals
from repast_dist.studies.search.journal import Journal
from repast_dist.studies.search.page import best_table, search_page
from repast_dist.studies.search.proposals import Proposal, Proposals, Record, optuna_module
from repast_dist.studies.search.space import Space, value_at
from repast_dist.studies.settings import RunSettings, in_one_process


def run(study: SearchStudy, settings: RunSettings, run_dir: Path | None, console: Console) -> Path:
    """Search, or take part in a search that others are at, and show what is best.

    Raises
    ------
    SettingsError
        Optuna is missing, a parameter or a goal names nothing, or no point can be measured.
    """
    optuna_module()
    space = Space.of(study.parameters, settings, "study.parameters")
    folder = begin(settings, run_dir)
    # One cluster serves the settings' own design, all points, and what is measured of the best.
    on_ray = settings.farm.backend == "ray"
    with Journal(folder) as journal, cluster(settings.farm) if on_ray else nullcontext():
        search = _Search(study, settings, space, folder, journal, console)
        return search.answered()


class _Search:
    """One process's part in a search."""

    def __init__(
        self, study: SearchStudy, settings: RunSettings, space: Space, folder: Path,
        journal: Journal, console: Console,
    ) -> None:  # fmt: skip
        self._study, self._settings, self._space = study, settings, space
        self._folder, self._journal, self._console = folder, journal, console
        self._plain = dataclasses.replace(in_one_process(settings), run_root="")
        (folder / POINTS).mkdir(exist_ok=True)
        (self._base,) = self._alone("base", study.measures, {-1: {}}).values()
        if "refused" in self._base:
            raise SettingsError(f"the settings as they are: {self._base['refused']}")
        goals = Goals.of(study, self._base)
        self._points = Proposals(study, space, goals, journal, settings.seed)
        self._goals = goals

    def answered(self) -> Path:
        """Measure all points and write the answer, unless another process has written it."""
        self._measure(self._first())
        self._points.look()
        if self._points.open:
            self._console.print(f"{len(self._points.open)} points are with other processes")
        self._journal.wait_for_others()
        # Of processes that ended before they told what they found.
        left = self._points.adopt()
        if left:
            self._measure(iter(left))
        if self._journal.joined and not left and (self._folder / ANSWER).is_file():
            self._console.print(f"Report:        {self._folder / REPORT}", markup=False)
            return self._folder
        return self._show()

    def _first(self) -> Iterator[Proposal]:
        if not self._journal.joined:
            yield from self._points.adopt()
        yield from self._points.coming()

    def _measure(self, proposals: Iterator[Proposal]) -> None:
        self._points.look()
        shared = Shared(self._plain, self._study.measures, self._study.pruning)
        numbers: list[int] = []

        def points() -> Iterator[SearchPoint]:
            for proposal in proposals:
                numbers.append(proposal.number)
                changes = self._space.changes(proposal.seen)
                yield SearchPoint(proposal.number, changes, proposal.curves)

        done = len(self._points.records)
        progress = PointProgress("searching", self._points.total, done=done, console=self._console)
        work = map_unordered(measured_point, shared, points(), self._settings.farm)
        with progress, contextlib.closing(work) as results:
            try:
                for place, record in results:
                    self._points.tell(numbers[place], self._judged(record))
                    stored.saved_some()
                    progress.reach(len(self._points.records))
            except KeyboardInterrupt as stopped:
                progress.message(f"Interrupted. Go on with: repast-dist resume={self._folder}")
                raise Stopped from stopped
            except FarmError as error:
                raise FarmError(f"{error}; resume={self._folder} goes on") from error

    def _judged(self, record: Record) -> Record:
        """Return a record, refused if a number is missing by which points are judged."""
        lacking = self._goals.lacks(record)
        if lacking and "stopped" not in record and "refused" not in record:
            return record | {"refused": f"{lacking} has no value"}
        return record

    def _alone(
        self, name: str, measures: Mapping[str, Measure], points: Mapping[int, Mapping[str, Any]]
    ) -> dict[int, Record]:
        """Return what is measured of some designs, kept in files of their own."""
        files = {number: self._file(name, number) for number in points}
        todo = [number for number, file in files.items() if not file.exists()]
        shared = Shared(self._plain, measures)
        wanted = [SearchPoint(number, points[number]) for number in todo]
        for place, record in map_unordered(measured_point, shared, wanted, self._settings.farm):
            write_json(files[todo[place]], record)
        return {number: read_json(file) for number, file in files.items()}

    def _file(self, name: str, number: int) -> Path:
        return self._folder / POINTS / (f"{name}.json" if number < 0 else f"{name}_{number}.json")

    def _show(self) -> Path:
        """Write tables, page and designs, and print the answer."""
        points = self._points
        if not points.total or len(points.records) < points.total:
            raise RunDirectoryError(f"{self._folder}: points are missing; resume goes on")
        found = Found(
            study=self._study,
            space=self._space,
            goals=self._goals,
            seen=points.seen,
            records=[points.records[number] for number in range(points.total)],
            base=self._base,
            now=_now(self._space, self._settings),
        )
        if not found.complete:
            raise SettingsError(f"no point could be measured: {found.records[0]['refused']}")
        if self._study.finals:
            best = {n: self._space.changes(points.seen[n]) for n in found.best}
            finals = self._alone("final", self._study.finals, {-1: {}, **best})
            found = dataclasses.replace(found, finals=finals)
        designs = self._designs(found)
        for item in designs:
            item.write(self._folder / DESIGNS)
        page = search_page(found, designs, self._folder)

        def details() -> None:
            self._console.print(best_table(found))
            for item in designs[:1]:
                self._console.print(
                    f"Best design:   repast-dist --config-dir {self._folder / DESIGNS} "
                    + " ".join(item.overrides),
                    markup=False,
                    soft_wrap=True,
                )

        return finish(page, self._settings, self._console, self._folder, details)

    def _designs(self, found: Found) -> list[Design]:
        made = []
        for number in found.best:
            how = f"found by study=search as point {number} of {len(found.records)}"
            how += f" ({self._study.sampler.kind}, seed {self._settings.seed}): "
            how += self._study.question
            changes = self._space.changes(found.seen[number])
            made.append(design(found.name(number), self._settings, changes, how))
        return made


def _now(space: Space, settings: RunSettings) -> dict[str, Any]:
    """Return the parameters' values in the settings as they are."""
    data = to_dict(settings)
    now: dict[str, Any] = {}
    for name, item in space.parameters.items():
        if isinstance(item, Mapping):
            same = (it for it, changes in item.items() if _holds(data, changes))
            now[name] = next(same, None)
        else:
            now[name] = value_at(data, name)
    return now


def _holds(data: Mapping[str, Any], changes: Mapping[str, Any]) -> bool:
    return all(value_at(data, path) == value for path, value in changes.items())

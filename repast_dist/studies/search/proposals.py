"""Proposes the points of a search with Optuna, and tells it what was found.

All that is known lies in the journal. Every process that takes part rebuilds the same history from
it, and draws a point with a generator that the number of the point keys. So a search that was
stopped proposes what it would have proposed without the stop.
"""

import dataclasses
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from repast_dist.ground.errors import RunDirectoryError, SettingsError
from repast_dist.ground.rng import words
from repast_dist.studies.kinds.search import SearchStudy
from repast_dist.studies.search.goals import Goals
from repast_dist.studies.search.journal import Entry, Journal
from repast_dist.studies.search.space import Seen, Space

if TYPE_CHECKING:
    import optuna

_WORSE_THAN_ANY = 1e30

Record = dict[str, Any]
"""What was measured of a point; ``refused`` or ``stopped`` says why it is not complete."""


@dataclasses.dataclass(frozen=True)
class Proposal:
    """A point to measure.

    Attributes
    ----------
    number : int
        Which one of the search; points of a search are numbered as they were proposed.
    seen : dict
        The point as the sampler sees it.
    curves : tuple
        Epoch -> number compared, of the runs that have ended, for those that may be stopped.
    """

    number: int
    seen: Seen
    curves: tuple[dict[int, float], ...] = ()


def optuna_module() -> Any:
    """Import Optuna.

    Raises
    ------
    SettingsError
        It is not installed.
    """
    try:
        import optuna as found
    except ModuleNotFoundError as error:
        raise SettingsError(
            "a search needs the optuna package: pip install 'repast-dist[search]'"
        ) from error
    found.logging.set_verbosity(found.logging.WARNING)
    return found


class Proposals:
    """The history of a search, and what comes next.

    Parameters
    ----------
    study : SearchStudy
        What is asked.
    space : Space
        Its parameters.
    goals : Goals
        Its objectives and constraints.
    journal : Journal
        Where all is kept; held by this process.
    seed : int
        The run's seed.
    """

    def __init__(
        self, study: SearchStudy, space: Space, goals: Goals, journal: Journal, seed: int
    ) -> None:
        self._optuna = optuna_module()
        self._study, self._space, self._goals, self._journal = study, space, goals, journal
        self._seed = seed
        self._distributions = space.distributions()
        self._listed = self._list()
        self.total = len(self._listed) if self._listed else int(study.points or 0)
        if self._listed and study.points is not None:
            self.total = min(self.total, study.points)
        self.seen: list[Seen] = []
        self.records: dict[int, Record] = {}
        directions = [
            "minimize" if g == "lowest" else "maximize" for g in goals.objectives.values()
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._history = self._optuna.create_study(directions=directions)

    @property
    def history(self) -> "optuna.Study":
        """All points as Optuna's study, for importances."""
        return self._history

    @property
    def open(self) -> list[int]:
        """Points that were proposed and not told."""
        return [number for number in range(len(self.seen)) if number not in self.records]

    def look(self) -> None:
        """Read what is new in the journal."""
        with self._journal.held():
            self._take_in()

    def adopt(self) -> list[Proposal]:
        """Return the points that stopped processes left open; nobody else may be at work."""
        self.look()
        return [self._proposal(number) for number in self.open]

    def coming(self) -> Iterator[Proposal]:
        """Yield new points until all are proposed, by whichever process.

        A point that was measured before is told at once, with what was found then.
        """
        while (proposal := self._next()) is not None:
            twin = self._measured_before(proposal)
            if twin is None:
                yield proposal
            else:
                self.tell(proposal.number, self.records[twin] | {"same_as": twin})

    def tell(self, number: int, record: Record) -> None:
        """Keep what was found of a point."""
        with self._journal.held():
            self._take_in()
            if number not in self.records:
                self._journal.add({"told": number, "record": record})
                self._take_in()

    def _next(self) -> Proposal | None:
        with self._journal.held():
            self._take_in()
            number = len(self.seen)
            if number >= self.total:
                return None
            before = self._noted_of_all()
            seen, notes = self._drawn(number)
            of_all = {k: v for k, v in self._noted_of_all().items() if before.get(k) != v}
            self._journal.add(
                {"asked": number, "seen": seen, "notes": notes, "notes_of_all": of_all}
            )
            self._take_in()
        return self._proposal(number)

    def _proposal(self, number: int) -> Proposal:
        curves: tuple[dict[int, float], ...] = ()
        if self._study.pruning is not None:
            ended = (record for record in self.records.values() if "curve" in record)
            curves = tuple({int(e): v for e, v in record["curve"]} for record in ended)
        return Proposal(number, self.seen[number], curves)

    def _drawn(self, number: int) -> tuple[Seen, dict[str, Any]]:
        """Return a new point, which the history has now, and what the sampler notes with it."""
        if self._listed:
            seen = dict(self._listed[number])
            self._add(seen, {})
            return seen, {}
        self._history.sampler = self._study.sampler.made(
            int(words(1, self._seed, "search", number)[0] >> 1)
        )
        with warnings.catch_warnings():
            # Of a few samplers that Optuna calls experimental.
            warnings.simplefilter("ignore")
            trial = self._history.ask(self._distributions)
        notes = self._history.get_trials(deepcopy=False)[number].system_attrs
        return dict(trial.params), dict(notes)

    def _noted_of_all(self) -> dict[str, Any]:
        """Return what the sampler notes of no single point, such as the parents of a generation."""
        return dict(self._history._storage.get_study_system_attrs(self._history._study_id))

    def _list(self) -> list[Seen]:
        if self._study.sampler.needs_points:
            return []
        return [dict(item) for item in self._study.sampler.listed(self._space.levels())]

    def _measured_before(self, proposal: Proposal) -> int | None:
        for number, record in self.records.items():
            if self.seen[number] == proposal.seen and "stopped" not in record:
                return number
        return None

    def _take_in(self) -> None:
        for entry in self._journal.news():
            try:
                if "asked" in entry:
                    self._take_asked(entry)
                else:
                    self._take_told(entry)
            except KeyError as error:
                raise RunDirectoryError(f"the journal has an entry without {error}") from None

    def _take_asked(self, entry: Entry) -> None:
        number = entry["asked"]
        if number != len(self.seen):
            raise RunDirectoryError(f"the journal proposes point {number} twice or out of turn")
        if len(self._history.get_trials(deepcopy=False)) == number:
            self._add(entry["seen"], entry["notes"])
            for name, value in entry["notes_of_all"].items():
                self._history._storage.set_study_system_attr(self._history._study_id, name, value)
        self.seen.append(entry["seen"])

    def _add(self, seen: Seen, notes: dict[str, Any]) -> None:
        trial = self._optuna.trial.create_trial(
            state=self._optuna.trial.TrialState.RUNNING,
            params=seen,
            distributions=self._distributions,
            system_attrs=notes,
        )
        self._history.add_trial(trial)

    def _take_told(self, entry: Entry) -> None:
        number, record = entry["told"], entry["record"]
        if number in self.records:
            return
        self.records[number] = record
        states = self._optuna.trial.TrialState
        if "refused" in record:
            self._history.tell(number, state=states.FAIL)
        elif "stopped" in record:
            self._history.tell(number, state=states.PRUNED)
        else:
            self._tell_values(number, record)

    def _tell_values(self, number: int, record: Record) -> None:
        values, excesses = self._goals.values(record), self._goals.excesses(record)
        if self._study.sampler.knows_constraints:
            inner = self._history.get_trials(deepcopy=False)[number]
            trial = self._optuna.trial.Trial(self._history, inner._trial_id)
            for name, excess in excesses.items():
                trial.set_constraint(name, excess)
        elif any(excesses.values()):
            worse = _WORSE_THAN_ANY * (1.0 + sum(excesses.values()))
            goals = self._goals.objectives.values()
            values = [worse if goal == "lowest" else -worse for goal in goals]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._history.tell(number, values)

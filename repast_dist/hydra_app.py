"""What Hydra does itself: launchers and sweepers, its own settings, information, completion.

A command line without any of them is composed by `repast_dist.settings` alone, which is quicker and
resumes sweeps. One that names Hydra's own settings (``hydra/launcher=joblib``,
``hydra.run.dir=...``) is run by Hydra: it decides where and when `Job` is called.
"""

import argparse
import contextlib
import dataclasses
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from repast_dist.api.loading import checked_settings
from repast_dist.api.running import console as console_of
from repast_dist.api.running import sweep
from repast_dist.farm.storage.specs import of_point
from repast_dist.ground.errors import RunDirectoryError, SettingsError
from repast_dist.ground.files import ANSWER, SETTINGS, read_json
from repast_dist.ground.spec import to_dict
from repast_dist.settings import as_hydra_takes_it, check_folder, expand_sweep, explain, hydra_with
from repast_dist.studies.multirun import show_sweep
from repast_dist.studies.output import objective_of, read_figures
from repast_dist.studies.run_directory import placed
from repast_dist.studies.run_result import decisive
from repast_dist.studies.settings import checked_settings as settings_of
from repast_dist.studies.sweep_state import SweepPoint, SweepState

_OWN = re.compile(r"[+~]*hydra[./@]")
_BASIC = "hydra._internal.core_plugins"


@dataclasses.dataclass(frozen=True)
class Where:
    """Where settings come from.

    Attributes
    ----------
    config_dir : Path or None
        A folder of the user's own with groups.
    config_name : str
        The file that lists the defaults.
    """

    config_dir: Path | None = None
    config_name: str = "config"

    def hydra(self) -> Hydra:
        """Return Hydra with the package's files and the user's."""
        if self.config_dir is not None:
            check_folder(self.config_dir)
        return hydra_with(self.config_dir)


@dataclasses.dataclass(frozen=True)
class Job:
    """What Hydra calls, here or wherever a launcher starts it: one run in the folder Hydra names.

    Attributes
    ----------
    where : Where
        Where settings come from.
    quiet : bool
        Print nothing.
    """

    where: Where
    quiet: bool

    def __call__(self, _config: Any) -> float | tuple[float, ...] | None:
        """Do the run, or what is left of it, and return the figures that a sweeper minimises."""
        hydra = HydraConfig.get()
        overrides = [str(item) for item in hydra.overrides.task]
        searched = [str(i) for i in hydra.overrides.hydra if "hydra.searchpath" in str(i)]
        settings = checked_settings(
            [*searched, *overrides], self.where.config_dir, self.where.config_name
        )
        if hydra.mode == RunMode.MULTIRUN:
            storage = of_point(settings.storage, str(hydra.job.num))
            settings = dataclasses.replace(settings, storage=storage)
        point = SweepPoint(settings, overrides, "", Path(hydra.runtime.output_dir))
        _refuse_other_run(point)
        console = Console(quiet=True) if self.quiet else console_of(False)
        point.do(to_dict(settings)["farm"], console)
        values = objective_of(settings.objective, read_figures(point.run))
        return values if len(values) != 1 else values[0]


@contextlib.contextmanager
def _told(words: Sequence[str]) -> Iterator[None]:
    """Tell which settings Hydra stumbled over: it does not check all of its own."""
    try:
        yield
    except (AssertionError, AttributeError, TypeError) as error:
        own = " ".join(word for word in words if _OWN.match(word))
        said = _first_line_of(error)
        raise SettingsError(f"{own}: not what Hydra takes ({said})") from None


def _first_line_of(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _refuse_other_run(point: SweepPoint) -> None:
    """Refuse a folder with the run of other settings; where runs are computed may differ."""
    path = point.run / SETTINGS
    if not path.is_file():
        return
    # A version before may not have known all settings.
    stored = to_dict(settings_of(read_json(path)))
    if decisive(stored) != decisive(to_dict(point.settings)):
        raise RunDirectoryError(
            f"{point.run}: there is a run with other settings; valid: another hydra.run.dir or "
            "hydra.sweep.dir"
        )


def launch(
    overrides: Sequence[str], where: Where, *, multirun: bool, jobs: int | None = None
) -> None:
    """Have Hydra do one run or a sweep.

    Parameters
    ----------
    overrides : sequence of str
        As on the command line.
    where : Where
        Where settings come from.
    multirun : bool
        A sweep: Hydra's sweeper chooses the points, its launcher starts them.
    jobs : int, optional
        How many runs at a time where no launcher is named.

    Raises
    ------
    SettingsError
        A setting is wrong, or Hydra has no such launcher, sweeper or setting of its own.
    RepastError
        A run failed.
    """
    words = [as_hydra_takes_it(item) for item in overrides]
    hydra = where.hydra()
    try:
        if not multirun:
            _run_once(hydra, where, words)
            return
        with _told(words):
            own = hydra.compose_config(where.config_name, words, RunMode.MULTIRUN).hydra
            launcher, sweeper = own.launcher["_target_"], own.sweeper["_target_"]
        folder = Path(os.path.abspath(own.sweep.dir))
        ours = without_hydra(overrides)
        if set(map(_key, overrides)) - set(map(_key, ours)) == {"hydra.sweep.dir"}:
            with placed(folder):
                sweep({}, *ours, jobs=jobs, quiet=False, **dataclasses.asdict(where))
            return
        if sweeper.startswith(_BASIC):
            # A wrong setting is told before anything is launched.
            for point in expand_sweep(ours):
                checked_settings(point, where.config_dir, where.config_name)
        quiet = not launcher.startswith(_BASIC)
        try:
            # Patterns with the time of day are worked out once.
            at = f"hydra.sweep.dir='{folder}'"
            hydra.multirun(where.config_name, Job(where, quiet), [*words, at])
        finally:
            _show(folder)
    except (HydraException, OmegaConfBaseException) as error:
        raise SettingsError(explain(error)) from None
    finally:
        GlobalHydra.instance().clear()


def _run_once(hydra: Hydra, where: Where, words: Sequence[str]) -> None:
    """Have Hydra do one run; what stops it is told by the caller alone, in one line."""
    failed: list[Exception] = []

    def job(config: Any) -> Any:
        try:
            return Job(where, quiet=False)(config)
        except Exception as error:
            failed.append(error)

    with _told(words):
        hydra.run(where.config_name, job, list(words))
    if failed:
        raise failed[0]


def without_hydra(overrides: Sequence[str]) -> list[str]:
    """Return the overrides that are settings of a run, or say where such are looked for."""
    return [i for i in overrides if not _OWN.match(i) or i.startswith("hydra.searchpath")]


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _show(folder: Path) -> None:
    """Write one table of the runs below a folder that are finished."""
    found = (path.parent for path in folder.rglob(SETTINGS) if path.parent != folder)
    runs = [run for run in sorted(found, key=_in_order) if (run / ANSWER).is_file()]
    if not runs:
        return
    settings = [settings_of(read_json(run / SETTINGS)) for run in runs]
    names = [str(run.relative_to(folder)) for run in runs]
    SweepState.begin(folder, settings, [[] for _ in runs], names)
    state = SweepState.read(folder, {})
    for point in state.points:
        point.finished = True
    show_sweep(state, Console())


def _in_order(path: Path) -> list[tuple[int, str]]:
    """Return a key that puts 10 behind 9."""
    parts = re.split(r"(\d+)", str(path))
    return [(int(part), "") if part.isdigit() else (0, part) for part in parts]


type Flags = Mapping[str, Sequence[str] | None]
"""Flag of the command line -> the values that it takes, none if any; None: it takes none."""


def tell(options: argparse.Namespace, where: Where, overrides: Sequence[str], flags: Flags) -> None:
    """Print what Hydra knows: its settings, where they come from, plug-ins, completion.

    Parameters
    ----------
    options : argparse.Namespace
        ``cfg``, ``info``, ``package``, ``resolve`` and ``shell_completion`` of the command line.
    where : Where
        Where settings come from.
    overrides : sequence of str
        As on the command line.
    flags : mapping
        All flags of the command line.

    Raises
    ------
    SettingsError
        A setting is wrong.
    """
    words = [as_hydra_takes_it(item) for item in overrides]
    # Hydra writes through a logger of its own.
    logging.getLogger().handlers.clear()
    if options.shell_completion:
        _complete(where, overrides, flags)
        return
    hydra = where.hydra()
    try:
        if options.info:
            hydra.show_info(options.info, where.config_name, words)
        else:
            kind, package = options.cfg, options.package
            if kind == "hydra" and options.resolve:
                # Hydra's own settings refer to those of the run.
                kind, package = "all", package or "hydra"
            hydra.show_cfg(where.config_name, words, kind, package, options.resolve)
    except (HydraException, OmegaConfBaseException) as error:
        raise SettingsError(explain(error)) from None
    finally:
        GlobalHydra.instance().clear()


def _complete(where: Where, overrides: Sequence[str], flags: Flags) -> None:
    """Install completion, or print what completes the line that the shell asks for."""
    # The line is in a variable of the shell, with the folder that it names.
    line = os.environ.get("COMP_LINE", "")
    named = re.search(r"(?:^|\s)(?:-cd|--config-dir)[\s=](\S+)\s", line)
    folder = Path(named.group(1)).expanduser() if named else where.config_dir
    if line:
        words, settings = _without_flags(line, flags)
        print("".join(f"{word}\n" for word in words), end="")
        if settings is None:
            return
        os.environ["COMP_LINE"] = settings
    try:
        found = hydra_with(folder if folder is not None and folder.is_dir() else None)
        found.shell_completion(where.config_name, list(overrides))
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        # While a line is typed it may be none yet.
        if not line:
            why = explain(error).partition(", available")[0]
            raise SettingsError(
                f"--shell-completion: {why}; valid: install=bash, install=zsh, install=fish, or "
                "uninstall"
            ) from None
    finally:
        GlobalHydra.instance().clear()


def _without_flags(line: str, flags: Flags) -> tuple[list[str], str | None]:
    """Return the flags or their values that complete a line, and the line without flags, whose
    settings Hydra completes, since it has other flags than this program; None: what ends it is
    found.
    """
    program, *before = line.split() or [""]
    word = before.pop() if before and not line[-1].isspace() else ""
    flag, given, _ = word.partition("=")
    if word.startswith("-"):
        known = [f"{flag}={value}" for value in flags.get(flag) or ()] if given else flags
        return sorted(item for item in known if item.startswith(word)), None
    kept, values = [program], None
    for item in before:
        if item in flags or item.startswith("-"):
            values = flags.get(item)
            # With several runs at once a setting may have several values.
            kept += [item] if item in ("-m", "--multirun") else []
        elif values is None or (values and item not in values):
            kept.append(item)
            values = None
        else:
            values = None
    if values is not None and not values:
        return [], None
    matching = [item for item in values or () if item.startswith(word)]
    return matching, None if matching else " ".join([*kept, word])

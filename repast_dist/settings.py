"""From command-line overrides to one validated, frozen settings tree.

Hydra composes the YAML groups of ``conf/``; the result is plain data that the settings classes
check. Every way to get it wrong ends in a `SettingsError` whose lines name the dotted path and
what would be valid.
"""

import functools
import itertools
import math
import pickle
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from hydra import compose, version
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType, RangeSweep
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, OverrideParseException
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from repast_dist.ground.errors import SettingsError, brief
from repast_dist.ground.presets import conf_dir, conf_state, setting_groups
from repast_dist.ground.yaml_size import expanded_nodes, interpolated_size
from repast_dist.studies.settings import RunSettings, checked_settings, unread

# What Hydra and its YAML reader stumble over, beside their own errors.
_UNREADABLE = (YAMLError, ValueError, TypeError, AttributeError, OSError, RecursionError, KeyError)
_LONGEST_MESSAGE = 500
_PLAIN_KEY = r"[\w.]+"
_CHANGES = (OverrideType.CHANGE, OverrideType.FORCE_ADD)
_MOST_VALUES = 100_000
_MOST_POINTS = 10_000


CONFIG = "config"
"""The file of ``conf/`` that lists the defaults."""


def load_settings(
    overrides: Sequence[str] = (), config_dir: Path | None = None, config_name: str = CONFIG
) -> RunSettings:
    """Compose and check the settings.

    Parameters
    ----------
    overrides : sequence of str
        Hydra overrides: ``group=option``, ``dotted.key=value``, ``+new=value``.
    config_dir : Path, optional
        A folder of the user's own with the same groups, searched after the package's.
    config_name : str
        The file that lists the defaults, in ``conf/`` or in that folder.

    Raises
    ------
    SettingsError
        Unknown group, option or key, wrong type or value, impossible combination.
    """
    named = {item.partition("=")[0].lstrip("+") for item in overrides}
    composed = compose_plain(overrides, config_dir, config_name)
    missing = list(_missing(composed, ""))
    if missing:
        raise SettingsError(
            "\n".join(f"{path}: has no value; valid: {path}=..." for path in missing)
        )
    return checked_settings(composed, named)


def _missing(data: Any, path: str) -> Iterator[str]:
    """Yield the paths of values that an option leaves to the user to set."""
    if data == "???":
        yield path
    elif isinstance(data, dict):
        for name, value in data.items():
            yield from _missing(value, f"{path}.{name}" if path else str(name))


def compose_plain(
    overrides: Sequence[str], config_dir: Path | None = None, config_name: str = CONFIG
) -> dict[str, Any]:
    """Compose the groups to plain nested data, without checking values."""
    refuse_other_encodings(overrides)
    if config_dir is not None:
        check_folder(config_dir)
    try:
        return _written_out(_composed(overrides, config_dir, config_name))
    except (HydraException, OmegaConfBaseException) as error:
        raise SettingsError(explain(error)) from None
    except _UNREADABLE as error:
        raise SettingsError(f"not readable as settings: {_first_line(error)}") from None


def refuse_other_encodings(texts: Sequence[str]) -> None:
    """Refuse words that are not UTF-8, such as paths in an old encoding: no file could hold them.

    Raises
    ------
    SettingsError
        Names the word.
    """
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise SettingsError(
                f"{brief(text)} is not UTF-8; valid: text and paths in UTF-8"
            ) from None


def _composed(overrides: Sequence[str], config_dir: Path | None, config_name: str) -> DictConfig:
    """Compose settings; groups that were composed before are not composed again for other values.

    Only what is plainly a choice of an option or the value of one setting is told apart, and only
    where no folder of the user's own may have further groups: Hydra does all else.
    """
    groups = setting_groups()
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    kinds = [_kind(item, groups) for item in parsed]
    if config_dir is not None or config_name != CONFIG or "other" in kinds:
        words = [as_hydra_takes_it(item) for item in overrides]
        return _compose(words, config_dir, config_name)
    choices = [str(i.input_line) for i, kind in zip(parsed, kinds, strict=True) if kind == "choice"]
    config: DictConfig = pickle.loads(_of_groups(tuple(choices), conf_state()))
    for item, kind in zip(parsed, kinds, strict=True):
        if kind == "value":
            OmegaConf.update(config, item.key_or_group, item.value(), merge=True, force_add=True)
    return config


@functools.lru_cache(maxsize=128)
def _of_groups(choices: tuple[str, ...], _state: int) -> bytes:
    """Return composed groups, pickled: a copy is had from that in a third of the time."""
    return pickle.dumps(_compose(choices, None, CONFIG))


def _compose(overrides: Sequence[str], config_dir: Path | None, config_name: str) -> DictConfig:
    Plugins.instance().register(_ConfFiles)
    hydra_with(config_dir, _ConfFiles.scheme())
    try:
        return compose(config_name, overrides=list(overrides))
    finally:
        GlobalHydra.instance().clear()


class _ConfFiles(FileConfigSource):
    """The package's files, each of which is parsed once: a composition takes two dozen of them,
    nearly the same as the one before.
    """

    _parsed: ClassVar[dict[tuple[object, ...], bytes]] = {}

    @staticmethod
    def scheme() -> str:
        return "conf"

    def load_config(self, config_path: str) -> ConfigResult:
        file = Path(self.path, self._normalize_file_name(config_path))
        state = file.stat()
        key = (file, state.st_mtime_ns, state.st_size, state.st_ino)
        if key not in self._parsed:
            self._parsed[key] = pickle.dumps(super().load_config(config_path))
        # Hydra takes what it is given apart.
        return pickle.loads(self._parsed[key])


def hydra_with(config_dir: Path | None, scheme: str = "file") -> Hydra:
    """Return Hydra with the package's files and those of a folder of the user's own."""
    version.setbase("1.3")
    search = create_config_search_path(f"{scheme}://{conf_dir()}")
    if config_dir is not None:
        before = SearchPathQuery(provider="schema")
        search.prepend("command-line", f"file://{config_dir.absolute()}", before)
    GlobalHydra.instance().clear()
    return Hydra.create_main_hydra2(task_name="repast-dist", config_search_path=search)


def _kind(item: Override, groups: Mapping[str, object]) -> str:
    """Tell the choice of an option of a group, the value of a setting, and anything else apart."""
    key = item.key_or_group
    changes = item.type in _CHANGES and item.package is None
    if not changes or item.is_sweep_override() or re.match(r"hydra\b", key):
        return "other"
    if key in groups:
        return "choice" if isinstance(item.value(), str) else "other"
    return "value" if re.fullmatch(_PLAIN_KEY, key) else "other"


def _written_out(config: DictConfig) -> dict[str, Any]:
    """Return plain data without interpolations; what would fill the memory is refused."""
    plain = OmegaConf.to_container(config)
    size = interpolated_size(plain)
    if size > _MOST_VALUES:
        raise SettingsError(
            f"the interpolations ${{...}} stand for {size} values and characters; valid: at most "
            f"{_MOST_VALUES}"
        )
    return OmegaConf.to_container(config, resolve=True) if size else plain  # type: ignore[return-value]


def check_folder(config_dir: Path) -> None:
    """Refuse a folder that is none, and files in it that would fill the memory.

    Raises
    ------
    SettingsError
        Names the folder or the file.
    """
    if not config_dir.is_dir():
        raise SettingsError(f"--config-dir: {config_dir} is no folder")
    for file in [*config_dir.glob("*.yaml"), *config_dir.glob("*/*.yaml")]:
        try:
            text = file.read_bytes()
            # Without aliases a file is what it says.
            values = expanded_nodes(text) if b"*" in text else 0
        except _UNREADABLE:
            # Hydra says so if the file is asked for.
            continue
        if values > _MOST_VALUES:
            raise SettingsError(
                f"{file}: its aliases stand for {values} values; valid: at most {_MOST_VALUES}"
            )


def refuse_unread(settings: RunSettings, overrides: Sequence[str]) -> None:
    """Refuse overrides of settings that the chosen study does not read.

    Parameters
    ----------
    settings : RunSettings
        What the overrides led to.
    overrides : sequence of str
        As given to `load_settings`.

    Raises
    ------
    SettingsError
        One line per setting: what it is, and what would be valid.
    """
    problems = unread(settings, override_paths(overrides))
    if problems:
        raise SettingsError("\n".join(problems))


def override_paths(overrides: Sequence[str]) -> list[str]:
    """Return the dotted path that each override sets; a group at another place is that place."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    paths = [(item.package or item.key_or_group).replace("/", ".") for item in parsed]
    return [path.removeprefix("_global_.") for path in paths]


def as_hydra_takes_it(override: str) -> str:
    """Return an override so that Hydra takes it where its YAML files have no such value or choice.

    A value may be set that the files leave to the default of its class (whether there is such a
    setting at all is for the settings classes to say), and ``+group=option`` chooses an option of
    a group that the defaults list already.
    """
    groups = setting_groups()
    key = override.partition("=")[0]
    chosen = re.fullmatch(r"[\w./-]+", override.partition("=")[2])
    if key.startswith("+") and key.lstrip("+") in groups and chosen:
        return override.lstrip("+")
    is_value = re.fullmatch(_PLAIN_KEY, key) and key not in groups
    return f"++{override}" if is_value and not key.startswith("hydra.") else override


def expand_sweep(overrides: Sequence[str]) -> list[list[str]]:
    """Return one list of overrides per point of a sweep such as ``farm.chips=1,2,4``.

    Raises
    ------
    SettingsError
        An override cannot be parsed, or there are too many points.
    """
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        axes = [
            [f"{item.get_key_element()}={text}" for text in _values(item)]
            if item.is_sweep_override()
            else [str(item.input_line)]
            for item in parsed
        ]
    except HydraException as error:
        raise SettingsError(explain(error)) from None
    except _UNREADABLE as error:
        raise SettingsError(_first_line(error)) from None
    points = math.prod(len(axis) for axis in axes)
    if points > _MOST_POINTS:
        raise SettingsError(f"a sweep of {points} runs; valid: at most {_MOST_POINTS}")
    return [list(point) for point in itertools.product(*axes)]


def _values(axis: Override) -> Iterator[str]:
    """Return the values of an axis; Hydra takes any range, also one that never ends."""
    values = axis.value()
    if isinstance(values, RangeSweep):
        # Range sweeps have a start and an end once they are parsed.
        length = (values.stop - values.start) / (values.step or math.inf)  # type: ignore[operator]
        if not 0 < length <= _MOST_POINTS:
            raise SettingsError(
                f"{axis.key_or_group}: range({values.start},{values.stop},{values.step}) has no "
                f"values, no end or too many; valid: 1 to {_MOST_POINTS} values"
            )
    return axis.sweep_string_iterator()


def farm_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """Return what ``farm.key=value`` overrides say, for a run that is resumed.

    Raises
    ------
    SettingsError
        An override is not of ``farm``, or not valid.
    """
    for item in overrides:
        if not item.startswith("farm."):
            name = item.partition("=")[0]
            raise SettingsError(
                f"{name}: a resumed run keeps its settings; valid: resume=RUN_DIR farm.KEY=VALUE"
            )
    changed = {item.partition("=")[0].removeprefix("farm.").partition(".")[0] for item in overrides}
    farm = compose_plain(overrides)["farm"]
    return {name: farm[name] for name in changed}


def explain(error: Exception) -> str:
    """Return Hydra's several-line message as one line that names the path and what is valid."""
    if isinstance(error, OverrideParseException):
        return _unreadable(error)
    several = re.search(r"Ambiguous value for argument '\+*([^']+)'", str(error))
    if several:
        key, _, values = several.group(1).partition("=")
        return f"{key}: several values; valid: -m {key}={values} for a run each, {key}=[{values}]"
    option = re.search(r"Could not find '([\w/]+)/([^']+)'", str(error))
    if option:
        group, name = option.groups()
        listed = re.search(r"Available options in \S+\n((?:\s+\S+\n)*)", str(error))
        others = listed.group(1).split() if listed else ()
        valid = ", ".join(setting_groups().get(group, others)) or "no such group"
        return f"{group}: no option {brief(name)}; valid: {valid}"
    if "Cannot find primary config" in str(error):
        return f"--config-name: {str(error).partition('. ')[0]}; valid: a file of --config-dir"
    return _first_line(error)


def _unreadable(error: OverrideParseException) -> str:
    """Return what is wrong with a word of the command line that is no override."""
    word = brief(str(error.override).lstrip("+"))
    if "=" not in error.override:
        return f"{word} is no setting; valid: KEY=VALUE, GROUP=OPTION, ~KEY, or open"
    why = _cut(str(error.message).splitlines()[0].strip())
    return f"{word} is not readable: {why}; valid: special characters inside quotes, KEY='...'"


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return _cut(" ".join(lines[:2]) if lines else type(error).__name__)


def _cut(text: str) -> str:
    """Return the beginning of a message of Hydra's, which may repeat all that a user wrote."""
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[:_LONGEST_MESSAGE]}..."


def as_yaml(settings: dict[str, Any]) -> str:
    """Return plain settings as YAML text."""
    return OmegaConf.to_yaml(DictConfig(settings))

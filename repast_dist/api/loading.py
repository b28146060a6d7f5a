"""Settings from Python: the same names, values and errors as on the command line."""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import repast_dist.settings as composed
from repast_dist.ground.errors import SettingsError
from repast_dist.ground.spec import to_dict
from repast_dist.hardware.hardware import Hardware
from repast_dist.studies.settings import RunSettings

Override = str | Mapping[str, Any]
"""``"farm.chips=8"``, or ``{"farm.chips": 8}``."""

HARDWARE = ("chip", "device", "components", "interconnect")
"""Groups of settings that make a `Hardware`."""


def load_settings(
    *overrides: Override, config_dir: str | Path | None = None, **groups: Any
) -> RunSettings:
    """Load the settings of a run.

    Parameters
    ----------
    *overrides : str or mapping
        As on the command line, ``"farm.chips=8"``, or ``{"farm.chips": 8}``.
    config_dir : str or Path, optional
        A folder of your own with groups, as ``--config-dir``.
    **groups
        Groups and values of the top level: ``chip="repast"``, ``seed=1``. A mapping sets some
        values of a group: ``inversion={"method": "fcg", "target_bits": 12}``.

    Raises
    ------
    SettingsError
        One line per problem: dotted path, what is wrong, what would be valid.
    """
    return composed.load_settings(as_overrides(overrides, groups), _folder(config_dir))


def load_hardware(
    chip: Any = "repast",
    device: Any = "reram",
    *overrides: Override,
    config_dir: str | Path | None = None,
    **groups: Any,
) -> Hardware:
    """Load chips and the network between them.

    Parameters
    ----------
    chip, device : str
        Files of ``conf/chip`` and ``conf/device``.
    *overrides, config_dir, **groups
        As in `load_settings`, of ``chip``, ``device``, ``components`` and ``interconnect``; a
        single value is ``**{"chip.adc.bits": 10}``.

    Raises
    ------
    SettingsError
        As `load_settings`; or a setting does not belong to the hardware.
    """
    texts = as_overrides(overrides, {"chip": chip, "device": device, **groups})
    settings = composed.load_settings(texts, _folder(config_dir))
    refuse_others(texts, (*HARDWARE, "plugins"), "not a setting of the hardware")
    return settings.hardware


def given_hardware(hardware: Any) -> Hardware:
    """Return what was given as hardware.

    Raises
    ------
    SettingsError
        It is something else, such as a chip's name.
    """
    if not isinstance(hardware, Hardware):
        raise SettingsError(
            f"hardware: {hardware!r} is none; valid: what load_hardware('repast', 'reram') returns"
        )
    return hardware


def checked_settings(
    overrides: Sequence[str],
    config_dir: str | Path | None = None,
    config_name: str = composed.CONFIG,
) -> RunSettings:
    """Load the settings of a study that is to run; what it does not read is refused.

    Raises
    ------
    SettingsError
        As `load_settings`; or the study does not read a setting.
    """
    settings = composed.load_settings(overrides, _folder(config_dir), config_name)
    composed.refuse_unread(settings, overrides)
    return settings


def refuse_others(overrides: Sequence[str], valid: Sequence[str], why: str) -> None:
    """Refuse overrides outside of some groups.

    Raises
    ------
    SettingsError
        Names the settings, why, and the valid groups.
    """
    wrong = [p for p in composed.override_paths(overrides) if p.partition(".")[0] not in valid]
    if wrong:
        raise SettingsError("\n".join(f"{p}: {why}; valid: {', '.join(valid)}" for p in wrong))


def as_overrides(items: Sequence[Override], groups: Mapping[str, Any]) -> list[str]:
    """Return settings in the words of the command line, in their order.

    Raises
    ------
    SettingsError
        Something is neither text nor a mapping, or its value cannot be written down.
    """
    texts: list[str] = []
    for item in items:
        if isinstance(item, str):
            texts.append(item)
        elif isinstance(item, Mapping):
            texts += _assignments(item)
        else:
            raise SettingsError(f"{item!r}: no setting; valid: 'farm.chips=8', {{'farm.chips': 8}}")
    return [*texts, *_assignments(groups)]


def as_text(value: Any, path: str) -> str:
    """Return a value in the words of the command line.

    Raises
    ------
    SettingsError
        It is no plain value, list or mapping of such.
    """
    if value is None:
        return "null"
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    if isinstance(value, int | float | np.integer | np.floating):
        return repr(value.item() if isinstance(value, np.generic) else value)
    if isinstance(value, str | Path):
        return _quoted(str(value))
    value = _plain(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{k}:{as_text(v, path)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple | np.ndarray):
        return "[" + ",".join(as_text(item, path) for item in value) + "]"
    raise SettingsError(
        f"{path}: {type(value).__name__} is no value of a setting; valid: numbers, text, lists, "
        "mappings"
    )


def _assignments(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield ``path=value``; a mapping for a whole group sets the values that it names."""
    for path, value in values.items():
        value = _plain(value)
        if isinstance(value, Mapping) and "." not in path:
            yield from _assignments({f"{path}.{name}": inner for name, inner in value.items()})
        else:
            yield f"{path}={as_text(value, path)}"


def _plain(value: Any) -> Any:
    """Return a settings object as plain data, and anything else as it is."""
    is_settings = dataclasses.is_dataclass(value) and not isinstance(value, type)
    return to_dict(value) if is_settings else value


# Hydra takes other letters in quotes only.
_BARE = re.compile(r"[A-Za-z_./][\w./-]*", re.ASCII)
_OTHERWISE_READ = {"true", "false", "null", "nan", "inf"}


def _quoted(text: str) -> str:
    """Quote text that would be read as something else without."""
    if _BARE.fullmatch(text) and text.lower() not in _OTHERWISE_READ:
        return text
    # A backslash is itself, but in front of a quote it is written twice.
    inner = re.sub(r"(\\*)'", r"\1\1\\'", text)
    return "'" + re.sub(r"(\\+)$", r"\1\1", inner) + "'"


def _folder(config_dir: str | Path | None) -> Path | None:
    return None if config_dir is None else Path(config_dir)

"""Named sets of settings: what a study's YAML file varies, applied as the command line would."""

from collections.abc import Iterable, Mapping
from typing import Any

from repast_dist.ground.errors import SettingsError
from repast_dist.studies.settings import RunSettings, changed, unread


def varied(settings: RunSettings, changes: Mapping[str, Any], where: str) -> RunSettings:
    """Return settings with a named set of changes.

    Parameters
    ----------
    settings : RunSettings
        What the changes start from.
    changes : mapping
        Dotted path -> value; a group of settings replaces the group.
    where : str
        Path of the set, for example ``study.variants.fcg``; messages begin with it.

    Raises
    ------
    SettingsError
        One line per problem: there is no such setting, its value is not valid, or the study does
        not read it.
    """
    try:
        found = changed(settings, changes)
        problems: Iterable[str] = unread(found, changes)
    except SettingsError as error:
        problems = str(error).splitlines()
    if problems:
        raise SettingsError("\n".join(f"{where}: {problem}" for problem in problems))
    return found

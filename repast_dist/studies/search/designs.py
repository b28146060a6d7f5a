"""The best designs as YAML files that ``--config-dir`` takes, and the commands that use them."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from repast_dist.ground.files import replaced
from repast_dist.ground.presets import setting_groups
from repast_dist.ground.spec import to_dict
from repast_dist.studies.settings import RunSettings, changed

DESIGNS = "designs"
"""Folder in the run directory, with the groups of ``conf/``."""


@dataclasses.dataclass(frozen=True)
class Design:
    """One design as files.

    Attributes
    ----------
    name : str
        What it is called.
    files : mapping
        Path below the folder -> text.
    overrides : tuple of str
        What the command line takes to have it.
    """

    name: str
    files: Mapping[str, str]
    overrides: tuple[str, ...]

    def write(self, folder: Path) -> None:
        """Write the files."""
        for path, text in self.files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            with replaced(folder / path) as aside:
                aside.write_text(text)


def design(name: str, settings: RunSettings, changes: Mapping[str, Any], found: str) -> Design:
    """Return a design as files: one for every group of ``conf/`` in which it differs.

    Parameters
    ----------
    name : str
        What it shall be called.
    settings : RunSettings
        What the design differs from.
    changes : mapping
        Dotted path -> value.
    found : str
        How it was found; it becomes the source where the group has one.
    """
    data = to_dict(changed(settings, changes))
    groups, files, overrides = setting_groups(), {}, []
    for group in dict.fromkeys(path.partition(".")[0] for path in changes):
        if group in groups and isinstance(data[group], dict):
            files[f"{group}/{name}.yaml"] = _text(name, data[group], found)
            overrides.append(f"{group}={name}")
    overrides += [
        f"{path}={_plain(value)}"
        for path, value in changes.items()
        if f"{path.partition('.')[0]}/{name}.yaml" not in files
    ]
    return Design(name, files, tuple(overrides))


def _text(name: str, data: dict[str, Any], found: str) -> str:
    shown = dict(data)
    # Elsewhere the name says which member of a kind is used.
    if "tiles" in shown:
        shown |= {"name": name}
    if "source" in shown:
        shown |= {"source": found}
    body = yaml.safe_dump(shown, sort_keys=False, default_flow_style=None, width=100)
    return f"# {found}\n{body}"


def _plain(value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10_000)
    return text.removesuffix("\n").removesuffix("\n...")

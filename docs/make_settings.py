"""Writes docs/settings.md from the settings classes; a test checks that it is up to date.

Run it after a change of settings: ``python docs/make_settings.py``.
"""

import dataclasses
import sys
import typing
from pathlib import Path

from repast_dist.ground.presets import setting_groups
from repast_dist.ground.registry import Registry
from repast_dist.hardware.components import Component, Quantity
from repast_dist.report.settings_reference import settings_markdown
from repast_dist.studies.settings import RunSettings

TARGET = Path(__file__).parent / "settings.md"
INTRO = """\
# Settings

Written by `docs/make_settings.py` from the settings classes. `group=option` on the command line
chooses a preset of a group, `path.to.setting=value` sets one value; `repast-dist --cfg` prints all
settings with the values of the presets. A wrong name, type or value is refused with what is valid.
"""


def settings_page() -> str:
    """Return the text of docs/settings.md."""
    hints = typing.get_type_hints(RunSettings, include_extras=True)
    presets = setting_groups()
    groups = [
        (name, cls, presets.get(name, [])) for name, hint in hints.items() for cls in _classes(hint)
    ]
    parts = [("components.PART", Component, []), ("components.PART.FIGURE", Quantity, [])]
    return settings_markdown(INTRO, [*groups, *parts], whole=[Component, Quantity])


def _classes(hint: object) -> list[object]:
    """Return the settings classes, or the choice of one, that a field holds; [] for a value."""
    if Registry.of(hint) is not None:
        return [hint]
    options = typing.get_args(hint) or (hint,)
    return [item for item in options if isinstance(item, type) and dataclasses.is_dataclass(item)]


if __name__ == "__main__":
    if sys.argv[1:] == ["--print"]:
        print(settings_page(), end="")
    else:
        TARGET.write_text(settings_page())

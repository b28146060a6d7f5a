"""The map of the house shows the house: every path on it exists, and every room is on it."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
MAP = (ROOT / "docs" / "architecture.md").read_text()


def test_every_path_on_the_map_exists() -> None:
    named = re.findall(r"`([\w./]+(?:\.py|/))`", MAP)
    bases = (ROOT, ROOT / "repast_dist", ROOT / "conf")
    outside = {"solves/", "study/", "trace/"}  # of a run, of a folder of the user's
    missing = {
        path for path in named if not any((base / path).exists() for base in bases)
    } - outside
    assert len(named) > 40
    assert missing == set()


def test_every_room_is_on_the_map_and_in_its_picture() -> None:
    picture = (ROOT / "docs" / "architecture.svg").read_text()
    rooms = {path.parent.name for path in ROOT.glob("repast_dist/*/__init__.py")}
    assert {room for room in rooms if f"| `{room}/` |" not in MAP} == set()
    assert {room for room in rooms if f">{room}/<" not in picture} == set()

"""Make the shipped strokes of letters from the Hershey fonts (no root needed)::

    pip install --target unpacked hershey-fonts==2.1.0
    PYTHONPATH=unpacked python -m repast_dist.training.datasets.make_letter_strokes \
        repast_dist/training/datasets/files

Capitals and small letters of a plain hand, a running hand and an italic. Only the points are taken
over, in the fonts' own units: a capital is 21 high, y grows downwards.
"""

import importlib
import json
import string
import sys
from pathlib import Path

from repast_dist.training.datasets.letter_strokes import FILE

FONTS = ("futural", "scripts", "timesi")


def make(target: Path) -> Path:
    """Write the strokes of all letters into the folder `target`."""
    font = importlib.import_module("HersheyFonts").HersheyFonts()
    glyphs = []
    for name in FONTS:
        font.load_default_font(name)
        for letter in string.ascii_letters:
            strokes = [
                [[round(value) for value in point] for point in stroke]
                for stroke in font.strokes_for_text(letter)
            ]
            glyphs.append({"font": name, "letter": letter, "strokes": strokes})
    path = target / FILE
    lines = ",\n".join(json.dumps(glyph, separators=(",", ":")) for glyph in glyphs)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    return path


if __name__ == "__main__":
    print(make(Path(sys.argv[1])))

"""Make the shipped text from Debian's package (as root)::

    apt-get install bible-kjv
    bible -l100000 gen1:1-rev22:21 </dev/null | python -m repast_dist.training.datasets.make_kjv \
        repast_dist/training/datasets/files

A line per verse without its number; headings of chapters stay.
"""

import bz2
import re
import sys
from pathlib import Path

from repast_dist.training.datasets.text import SHIPPED

_VERSE = re.compile(r"^\s+\d+ ")


def make(printed: str, target: Path) -> Path:
    """Write what the package's command prints as plain text into the folder `target`."""
    lines = [_VERSE.sub("", line).strip() for line in printed.splitlines()]
    path = target / SHIPPED
    text = "\n".join(line for line in lines if line) + "\n"
    path.write_bytes(bz2.compress(text.encode()))
    return path


if __name__ == "__main__":
    print(make(sys.stdin.read(), Path(sys.argv[1])))

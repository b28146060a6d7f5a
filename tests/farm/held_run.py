"""The command, which waits before it records a step until a file is there.

usage: held_run.py FILE STEP SETTING...

So a signal that is sent once some steps are logged comes before the run is over, on any machine.
What the file says, if anything, is the next step to wait at, until it says more or nothing.
"""

import math
import os
import sys
import time
from pathlib import Path

from repast_dist.cli import main
from repast_dist.studies.recorder import RunRecorder


def hold(go: Path, at: int) -> None:
    """Keep the recorder from taking a step before the file is there."""
    record, parent = RunRecorder.steps, os.getppid()

    def wait_and_record(self, records, *others):
        while any(item.step >= until(go, at) for item in records):
            if os.getppid() != parent:
                break  # The test that would let it go on has ended.
            time.sleep(0.01)
        record(self, records, *others)

    RunRecorder.steps = wait_and_record


def until(go: Path, at: int) -> float:
    """Return the step that must wait."""
    if not go.exists():
        return at
    text = go.read_text()
    return int(text) if text else math.inf


if __name__ == "__main__":
    hold(Path(sys.argv[1]), int(sys.argv[2]))
    sys.exit(main(sys.argv[3:]))

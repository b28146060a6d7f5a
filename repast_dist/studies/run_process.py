"""A process that does runs of a sweep, one after the other, for the process that began the sweep.

It reads one line of JSON per run from its standard input and answers each with one line. When its
input ends, because the sweep stopped or its process died, it stops as with Ctrl-C: what the run
under way has finished is kept.
"""

import json
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from repast_dist.ground.errors import RepastError
from repast_dist.ground.files import read_json
from repast_dist.ground.interrupts import interrupt
from repast_dist.studies.settings import checked_settings
from repast_dist.studies.sweep_state import SweepPoint

Task = dict[str, Any]


def main() -> None:
    """Answer until there is nothing more to read."""
    # Whatever prints, prints beside the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
    try:
        # Ctrl-C is for the process that began the sweep: it ends our input.
        signal.signal(signal.SIGINT, interrupt)
        threading.Thread(target=_read, args=(tasks,), daemon=True).start()
        while (task := tasks.get()) is not None:
            print(json.dumps(_answer(task)), file=answers)
    except (KeyboardInterrupt, BrokenPipeError):
        pass


def _read(tasks: "queue.SimpleQueue[Task | None]") -> None:
    for line in sys.stdin:
        tasks.put(json.loads(line))
    tasks.put(None)
    os.kill(os.getpid(), signal.SIGINT)


def _answer(task: Mapping[str, Any]) -> dict[str, str]:
    try:
        plain = read_json(Path(task["settings"]))
        settings = checked_settings({**plain, "farm": plain["farm"] | task["farm"]})
        point = SweepPoint(settings, [], "", Path(task["run"]))
        point.do(task["farm"], Console(quiet=True))
        return {"run": str(point.run)}
    except KeyboardInterrupt:
        return {"error": "stopped", "kind": "KeyboardInterrupt"}
    except (RepastError, OSError) as error:
        return {"error": str(error), "kind": type(error).__name__}
    except Exception:
        return {"error": traceback.format_exc(), "kind": "unexpected"}


if __name__ == "__main__":
    main()

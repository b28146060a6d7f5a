"""Set up logging inside worker processes, which do not inherit the driver's set-up."""

import logging
import sys


def configure_worker_log(chips: tuple[int, ...]) -> None:
    """Send this process' log to its standard output (Ray keeps it per worker), with chip names."""
    name = f"chip {chips[0]}" if len(chips) == 1 else f"chips {chips[0]}-{chips[-1]}"
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter(f"%(asctime)s {name} %(levelname)s %(message)s"))
    root = logging.getLogger("repast_dist")
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    root.propagate = False

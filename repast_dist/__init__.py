"""A farm of simulated RePAST chips: second-order training on analog hardware, with its cost."""

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_HOMES = {
    "RepastError": "ground.errors:RepastError",
    "crossbar": "api.crossbar:crossbar",
    "load_hardware": "api.loading:load_hardware",
    "load_settings": "api.loading:load_settings",
    "open": "api.runs:open_run",
    "parts": "parts",
    "plan": "api.planning:plan",
    "resume": "api.running:resume",
    "solve": "api.solving:solve",
    "study": "api.running:study",
    "sweep": "api.running:sweep",
    "train": "api.running:train",
}
"""Name -> where it is below this package, a module or something in one; loaded when it is first
asked for."""

__all__ = [
    "RepastError",
    "__version__",
    "crossbar",
    "load_hardware",
    "load_settings",
    "open",
    "parts",
    "plan",
    "resume",
    "solve",
    "study",
    "sweep",
    "train",
]

if TYPE_CHECKING:
    from repast_dist import parts as parts
    from repast_dist.api.crossbar import crossbar as crossbar
    from repast_dist.api.loading import load_hardware as load_hardware
    from repast_dist.api.loading import load_settings as load_settings
    from repast_dist.api.planning import plan as plan
    from repast_dist.api.running import resume as resume
    from repast_dist.api.running import study as study
    from repast_dist.api.running import sweep as sweep
    from repast_dist.api.running import train as train
    from repast_dist.api.runs import open_run as open
    from repast_dist.api.solving import solve as solve
    from repast_dist.ground.errors import RepastError as RepastError
else:

    def __getattr__(name: str) -> object:
        """Load one of the package's names."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        home, _, attribute = _HOMES[name].partition(":")
        found = importlib.import_module(f"{__name__}.{home}")
        found = getattr(found, attribute) if attribute else found
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])

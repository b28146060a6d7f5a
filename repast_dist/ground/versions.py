"""The versions of what a result depends on, written beside every result."""

import contextlib
import functools
import importlib.metadata
import platform

from repast_dist.ground.plugins import packages

_PACKAGES = (
    "repast-dist", "ray", "numpy", "scipy", "pyarrow", "hydra-core", "numba", "scikit-learn",
    "hwcomponents", "hwcomponents-adc", "hwcomponents-library",
)  # fmt: skip


_OPTIONAL = ("onednn-cpu-gomp", "torch")


def versions() -> dict[str, str]:
    """Return the version of Python and of each package that can change a number, plug-ins too."""
    return {"python": platform.python_version(), **_installed(), **packages()}


@functools.cache
def _installed() -> dict[str, str]:
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    for name in _OPTIONAL:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found

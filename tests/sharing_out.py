"""How tests are shared out among processes: what takes long first, and together what shares.

A file stays on one process for what its tests share. Those that need the session's Ray all run on
the process that starts it. Files of long tests that share little go test by test.
"""

import re

import pytest
from xdist.scheduler import LoadScopeScheduling

_RAY = "@ray"
_APART = re.compile(
    r"test_settings_act\.py::.*act|test_planning_placement\.py|test_analog_inversion_precision\.py"
    r"|test_farm_faults\.py|test_farm_fusion\.py::test_fused_blocks_train|test_farm_clipping\.py"
    r"|test_studies_effects\.py"
)
_FIRST = (
    _RAY, "test_farm_kills", "removed_node", "is_refused[inversion]", "is_refused[device]",
    "test_docs_commands", "every_effect_on", "test_farm_watch", "test_farm_faults",
    "test_jobs_launchers", "is_refused[chip]", "leaves[cifar", "test_farm_fusion",
    "changes_its_answer[study=headline]", "test_readme_commands", "test_fuzz", "test_farm",
    "test_studies", "cheapest_method", "is_refused[", "leaves[", "of_many_blocks",
    "never_make_a_step_slower", "reach_their_bits",
)  # fmt: skip


class Scheduling(LoadScopeScheduling):
    """Gives a process the tests that belong together, in the order of `turn`."""

    def _split_scope(self, nodeid: str) -> str:
        return scope(nodeid)


def mark(item: pytest.Item) -> None:
    """Let the name of a test say that it needs the session's Ray; names are all there is here."""
    fixtures = getattr(item, "fixturenames", ())
    asks = "request" in fixtures and item.get_closest_marker("ray") is not None
    if "ray_cluster" in fixtures or asks:
        item._nodeid += _RAY


def scope(nodeid: str) -> str:
    """Return the name of the tests that run on the same process."""
    if nodeid.endswith(_RAY):
        return _RAY
    return nodeid if _APART.search(nodeid) else nodeid.partition("::")[0]


def turn(nodeid: str) -> int:
    """Return what sorts tests, those that take long or wait for others first."""
    return next((n for n, part in enumerate(_FIRST) if part in nodeid), len(_FIRST))

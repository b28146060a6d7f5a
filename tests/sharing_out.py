"""How tests are shared out among processes: what takes long first, and together what shares.

A file stays on one process for what its tests share. Those that need the session's Ray all run on
the process that starts it. Files of long tests that share little go test by test.
"""

import re

from xdist.scheduler import LoadScopeScheduling

_OWN_PROCESSES = re.compile(r"test_farm_faults\.py::test_(an_interrupt|a_killed|the_chips)")
_WITH_RAY = re.compile(
    r"test_farm_(faults|training|optimizers|settings_act|stale)\.py|test_studies_points\.py"
    r"|test_farm_pipeline\.py::test_workers|test_plugins\.py|test_torch_farm\.py|test_farm_fusion\.py::test_fused_blocks_on_ray"
)
_APART = re.compile(
    r"test_settings_act\.py::.*act|test_planning_placement\.py|test_analog_inversion_precision\.py"
    r"|test_farm_fusion\.py::test_fused_blocks_train"
    r"|test_farm_clipping\.py"
)
_FIRST = (
    "test_farm_settings_act", "removed_node", "is_refused[device]", "blocks_train_like",
    "test_farm_watch",
    "test_farm_faults", "is_refused[inversion]", "leaves[fashion_cnn]",
    "test_jobs_launchers", "test_docs_commands", "test_farm", "is_refused[", "leaves[fashion_mlp]",
    "test_readme_commands", "cheapest_method", "never_make_a_step_slower", "reach_their_bits",
)  # fmt: skip


class Scheduling(LoadScopeScheduling):
    """Gives a process the tests that belong together, in the order of `turn`."""

    def _split_scope(self, nodeid: str) -> str:
        return scope(nodeid)


def scope(nodeid: str) -> str:
    """Return the name of the tests that run on the same process."""
    if _OWN_PROCESSES.search(nodeid):
        return nodeid
    if _WITH_RAY.search(nodeid):
        return "ray"
    return nodeid if _APART.search(nodeid) else nodeid.partition("::")[0]


def turn(nodeid: str) -> int:
    """Return what sorts tests, those that take long or wait for others first."""
    return next((n for n, part in enumerate(_FIRST) if part in nodeid), len(_FIRST))

"""How tests are shared out among processes: what takes long first, and together what shares.

A file stays on one process for what its tests share. Those that need the session's Ray all run on
the process that starts it. Files of long tests that share little go test by test.
"""

import re

from xdist.scheduler import LoadScopeScheduling

_WITH_RAY = re.compile(
    r"test_farm_settings_act\.py|_on_ray_|_on_two_workers|::test_ray_workers|\[farm1\]"
    r"|test_farm_faults\.py::test_(?!an_interrupt|a_killed|the_chips)"
    r"|test_farm_training\.py::test_(chips_that_share|kernels_change)"
    r"|test_farm_pipeline\.py::test_workers_hand|test_studies_points\.py::test_workers_and_this"
)
_APART = re.compile(
    r"test_settings_act\.py::.*act|test_planning_placement\.py|test_analog_inversion_precision\.py"
    r"|test_farm_faults\.py|test_farm_fusion\.py::test_fused_blocks_train|test_farm_clipping\.py"
    r"|test_studies_effects\.py"
)
_FIRST = (
    "test_farm_kills", "test_cluster", "removed_node", "is_refused[inversion]",
    "is_refused[device]", "test_docs_commands", "every_effect_on", "test_farm_watch",
    "test_farm_faults",
    "test_jobs_launchers", "is_refused[chip]", "leaves[cifar", "test_farm_fusion",
    "changes_its_answer[study=headline]", "test_readme_commands", "test_fuzz", "test_farm",
    "test_studies", "cheapest_method", "is_refused[", "leaves[", "of_many_blocks",
    "never_make_a_step_slower", "reach_their_bits",
)  # fmt: skip


class Scheduling(LoadScopeScheduling):
    """Gives a process the tests that belong together, in the order of `turn`."""

    def _split_scope(self, nodeid: str) -> str:
        return scope(nodeid)


def with_ray(nodeid: str) -> bool:
    """Return whether a test runs on the process that has the session's Ray."""
    return _WITH_RAY.search(nodeid) is not None


def scope(nodeid: str) -> str:
    """Return the name of the tests that run on the same process."""
    if with_ray(nodeid):
        return "ray"
    return nodeid if _APART.search(nodeid) else nodeid.partition("::")[0]


def turn(nodeid: str) -> int:
    """Return what sorts tests, those that take long or wait for others first."""
    if with_ray(nodeid):
        return -1
    return next((n for n, part in enumerate(_FIRST) if part in nodeid), len(_FIRST))

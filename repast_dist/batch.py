"""What a batch script has to know of a run before it starts: does it need the nodes of a cluster?

``python -m repast_dist.batch HEAD:PORT NODES WORDS...`` takes the words of ``repast-dist`` and
prints those to add, one a line, so that the run finds the Ray that the script starts; nothing for a
run that starts no Ray. Wrong settings are told before any node is started.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from repast_dist.cli import EXIT_FAILED, EXIT_OK, EXIT_USAGE, parsed, split_resume
from repast_dist.farm.storage.specs import is_uri
from repast_dist.ground.errors import RepastError, SettingsError
from repast_dist.ground.files import SETTINGS, read_json
from repast_dist.hydra_app import without_hydra
from repast_dist.settings import expand_sweep, farm_overrides, load_settings
from repast_dist.studies.settings import RunSettings, checked_settings
from repast_dist.studies.stored import stored_settings
from repast_dist.studies.sweep_runs import starts_ray

_PATIENCE_S = 600
"""Nodes of a job start at different times."""


def added_words(words: Sequence[str], address: str, nodes: int) -> list[str]:
    """Return the settings that lead a run to the cluster of its job.

    Parameters
    ----------
    words : sequence of str
        Those of ``repast-dist``.
    address : str
        Where the cluster's head will be, ``host:port``.
    nodes : int
        How many it will have.

    Returns
    -------
    list of str
        Nothing for a study that starts no Ray, and for ``farm=inprocess``.

    Raises
    ------
    RepastError
        A setting is wrong, or there is nothing to go on with.
    """
    if not any(map(starts_ray, _settings(words))):
        return []
    named = any(word.startswith(("farm=", "resume=")) for word in words)
    return [
        *([] if named else ["farm=cluster"]),
        f"farm.address={address}",
        f"farm.nodes={nodes}",
        f"farm.node_timeout_s={_PATIENCE_S}",
    ]


def _settings(words: Sequence[str]) -> Iterator[RunSettings]:
    """Yield the settings of every run that the words ask for."""
    options = parsed(words)
    resumed, overrides = split_resume(options.overrides)
    if resumed is None:
        ours = without_hydra(overrides)
        for point in expand_sweep(ours) if options.multirun else [ours]:
            yield load_settings(point, options.config_dir, options.config_name)
        return
    plain = stored_settings(resumed) if is_uri(resumed) else read_json(Path(resumed) / SETTINGS)
    farm = farm_overrides([word for word in overrides if not word.startswith("run_root=")])
    yield checked_settings({**plain, "farm": plain["farm"] | farm})


def main() -> int:
    """Print the words to add and return the exit status: 0, 1 failed, 2 wrong settings."""
    address, nodes, *words = sys.argv[1:]
    try:
        for word in added_words(words, address, int(nodes)):
            print(word)
    except RepastError as error:
        print(f"repast-dist: error: {error}", file=sys.stderr)
        return EXIT_USAGE if isinstance(error, SettingsError) else EXIT_FAILED
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())

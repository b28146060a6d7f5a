"""What a table of a network is, and how tables are found."""

import abc
import functools
from typing import ClassVar

from repast_dist.ground.errors import SettingsError
from repast_dist.ground.registry import Registry
from repast_dist.ground.spec import spec
from repast_dist.network.shapes import Workload


@spec
class NetworkTable(abc.ABC):
    """A network as a list of layer shapes, to be costed without weights or data.

    A table is a class of its own with a field ``name: Literal["my_network"] = "my_network"``
    (several names are several sizes of one network). It returns rows in the order in which they
    run; `repast_dist.network.tables.rows` and `repast_dist.network.shapes` make them.
    """

    usual_sequence: ClassVar[int | None] = None
    """Tokens per sample of a text network unless settings say otherwise; None: takes no text."""

    @abc.abstractmethod
    def workload(self, sequence: int | None = None) -> Workload:
        """Return the rows.

        Parameters
        ----------
        sequence : int or None
            Tokens per sample; None: the usual number.
        """

    def tokens(self, sequence: int | None) -> int:
        """Return the tokens per sample of a text network."""
        usual = self.usual_sequence
        assert usual is not None, f"{NETWORKS.name_of(self)} takes no text"
        return sequence or usual


NETWORKS: Registry[NetworkTable] = Registry(
    "network table",
    NetworkTable,  # type: ignore[type-abstract]
    tag="name",
    home="repast_dist.network.tables",
)


@functools.lru_cache(maxsize=64)
def network_table(name: str, sequence: int | None = None, pretraining: bool = False) -> Workload:
    """Return the rows of a network by its name; a search asks for them at every point.

    Raises
    ------
    SettingsError
        There is no such network, a sequence is given for one that takes no text, or heads for
        pre-training are asked of one that has none.
    """
    table = NETWORKS.get(name)
    if pretraining and not hasattr(table, "pretraining"):
        having = [n for n in NETWORKS.names() if hasattr(NETWORKS.get(n), "pretraining")]
        raise SettingsError(
            f"workload.pretraining: {name} has no heads of its own for pre-training; valid with: "
            f"{', '.join(having)}"
        )
    if sequence is not None and table.usual_sequence is None:
        texts = [n for n in NETWORKS.names() if NETWORKS.get(n).usual_sequence is not None]
        raise SettingsError(
            f"workload.sequence: {name} takes no text; valid with: {', '.join(texts)}"
        )
    heads = {"pretraining": True} if pretraining else {}
    return NETWORKS.load({"name": name, **heads}).workload(sequence)

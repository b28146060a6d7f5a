"""What a study is: settings that say what is asked, what it reads, and how it is answered."""

import abc
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from repast_dist.ground.registry import Registry
from repast_dist.ground.spec import spec
from repast_dist.network.workload import MODEL

if TYPE_CHECKING:
    from rich.console import Console

    from repast_dist.studies.settings import RunSettings

HARDWARE = ("chip", "device", "components", "interconnect", "soi", "partition", "inversion")
"""Settings that decide what a step costs."""

TRAINING = ("seed", "train", "model", "dataset", "optimizer", "engine", *HARDWARE)
"""Settings that decide what a training run computes."""

WORKERS = (
    "farm.backend", "farm.study_workers", "farm.address", "farm.nodes", "farm.node_timeout_s",
    "farm.start_timeout_s", "farm.blas_threads", "farm.kernels", "farm.object_store_bytes",
    "farm.dashboard",
)  # fmt: skip
"""Settings that decide where independent points are computed."""

NO_RUN = "it makes no run; valid: study=report study.run=RUN_DIR export=..."
"""Why a study that only looks at runs exports nothing."""

NOT_COPIED = (
    "it makes no run to copy; valid: study.run=s3://BUCKET/PREFIX for one that is in a store"
)
"""Why a study that only looks at runs has no copy of its own."""


Changes = dict[str, Any]
"""Settings that differ: dotted path -> value; a group of settings replaces the group."""

Variants = dict[str, Changes]
"""Named sets of settings that a study compares."""


class Study(abc.ABC):
    """A question that can be asked: ``study=NAME``.

    A study of your own is one file that ``plugins=[my_study.py]`` names: a class with the
    study's settings, decorated by ``@STUDIES.register`` and ``@spec``, with a field
    ``name: Literal["my_study"] = "my_study"``. It is asked for by ``study.name=my_study`` or by a
    preset ``study/my_study.yaml`` in a folder of your own (``--config-dir``). The classes of all
    studies are loaded at every start: what is slow to import is imported inside `answer`. A study
    of many points that do not depend on each other derives from `PointStudy`.

    Attributes
    ----------
    name : str
        The study's name, annotated ``Literal["my_study"] = "my_study"``.
    reads : tuple of str
        Dotted paths of the settings that the study reads beside its own; a group stands for all
        that is in it. What is not named is refused on the command line.
    """

    name: str
    reads: ClassVar[tuple[str, ...]] = ()

    @abc.abstractmethod
    def answer(self, settings: "RunSettings", run_dir: Path | None, console: "Console") -> Path:
        """Answer the question.

        Parameters
        ----------
        settings : RunSettings
            All settings; ``settings.study`` is this object.
        run_dir : Path or None
            The directory of a stopped run to go on with; None begins a new one.
        console : Console
            Where the answer is printed.

        Returns
        -------
        Path
            The directory that holds the answer.

        Raises
        ------
        RepastError
            The question cannot be answered; the message says why.
        """

    def ignores(self, settings: "RunSettings") -> Mapping[str, str]:
        """Return settings that have no effect beside the others: dotted path -> why, what is valid.

        They are refused on the command line like those that `reads` does not name.
        """
        return {}

    def can_resume(self, run_dir: Path) -> bool:
        """Return whether a stopped run left something to go on with."""
        return False


@spec
class PointStudy(Study):
    """A study of points that do not depend on each other: `repast_dist.studies.points`.

    Attributes
    ----------
    reuse : tuple of str
        Run directories whose finished points are taken over where all that decides a point is the
        same.
    """

    reuse: tuple[str, ...] = ()

    def can_resume(self, run_dir: Path) -> bool:
        """Return whether a stopped run left something to go on with."""
        return True


def refuse_unknown(kind: str, names: Iterable[str], valid: Iterable[str]) -> None:
    """Refuse names that no variant has.

    Raises
    ------
    ValueError
        Names the first one, and the valid ones; a settings class turns it into an error with the
        path.
    """
    known = list(valid)
    for name in names:
        if name not in known:
            raise ValueError(f"{kind}: no variant '{name}'; valid: {', '.join(known)}")


def unread_by_scheme(settings: "RunSettings") -> Mapping[str, str]:
    """Return settings of the inversion scheme that have no effect beside the others."""
    split = settings.soi.block_size > settings.chip.inv.size
    unread = settings.inversion.ignores(split)
    return {f"inversion.{name}": reason for name, reason in unread.items()}


def model_of_a_plan(settings: "RunSettings") -> Mapping[str, str]:
    """Return what a study that plans a step ignores: the trained model, beside another network."""
    if settings.workload.name == MODEL:
        return {}
    reason = f"workload={settings.workload.name} is planned; valid: workload=model"
    return {"model": reason}


STUDIES: Registry[Study] = Registry(
    "study",
    Study,  # type: ignore[type-abstract]
    tag="name",
    home="repast_dist.studies.kinds",
)

"""What exports a run to another program."""

import abc
import importlib.util
from typing import ClassVar

from repast_dist.ground.errors import SettingsError
from repast_dist.studies.exports.curves import RunCurves


class Exporter(abc.ABC):
    """Writes runs for one program.

    Attributes
    ----------
    extra : str
        The extra of this package that brings what is needed.
    """

    extra: ClassVar[str]

    @abc.abstractmethod
    def modules(self) -> tuple[str, ...]:
        """Return the modules that it imports."""

    @abc.abstractmethod
    def write(self, run: RunCurves) -> str:
        """Write a run in place of what was written of it before; return where it is."""

    def require(self) -> None:
        """Refuse to begin where a module is missing.

        Raises
        ------
        SettingsError
            Names it, and the extra that brings it.
        """
        for name in self.modules():
            if importlib.util.find_spec(name) is None:
                raise SettingsError(
                    f"export: {name} is not installed; valid: "
                    f"pip install 'repast-dist[{self.extra}]', or export=null"
                )

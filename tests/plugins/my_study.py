"""A study of one's own: how large may a chip be to stay below an area?"""

from typing import Annotated, ClassVar, Literal

from annotated_types import Gt

from repast_dist.ground.spec import spec
from repast_dist.studies.study import STUDIES, Study


@STUDIES.register
@spec
class LargestStudy(Study):
    """The number of tiles with which a chip stays below an area.

    Attributes
    ----------
    name : {"largest"}
        The study's name.
    area_mm2 : float
        The area.
    """

    reads: ClassVar[tuple[str, ...]] = ("chip", "device", "components", "interconnect")
    name: Literal["largest"] = "largest"
    area_mm2: Annotated[float, Gt(0)] = 100.0

    def answer(self, settings, run_dir, console):
        """Count tiles up to the area."""
        import dataclasses

        from repast_dist.report.page import KeyFigure
        from repast_dist.report.study_page import StudyPage
        from repast_dist.studies.output import finish

        def area(tiles):
            chip = dataclasses.replace(settings.chip, tiles=tiles)
            return dataclasses.replace(settings.hardware, chip=chip).area_m2 * 1e6

        tiles = 1
        while area(tiles + 1) <= self.area_mm2:
            tiles += 1
        page = StudyPage(
            study=self.name,
            title="The largest chip",
            answer=f"{tiles} tiles take {area(tiles):.1f} of {self.area_mm2:g} mm2.",
            key_figures=[KeyFigure("tiles", str(tiles), number=tiles)],
            tables={},
            sections=[],
        )
        return finish(page, settings, console, run_dir)

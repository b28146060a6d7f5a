"""A part of the page of ``study=precision``: sections, and the tables that they show."""

import dataclasses
from collections.abc import Mapping, Sequence

import pyarrow as pa

from repast_dist.report.study_page import StudySection


@dataclasses.dataclass(frozen=True)
class Chapter:
    """Sections of a page with their tables.

    Attributes
    ----------
    sections : sequence of StudySection
        In reading order.
    tables : mapping
        Name -> table.
    captions : mapping
        Name of a table -> how to read it.
    answer : str
        A sentence with the result.
    """

    sections: Sequence[StudySection] = ()
    tables: Mapping[str, pa.Table] = dataclasses.field(default_factory=dict)
    captions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    answer: str = ""

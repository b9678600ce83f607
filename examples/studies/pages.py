"""docs/results/studies: what stands between the marks of a page is made of the raw figures; prose is not touched."""

from __future__ import annotations

from pathlib import Path

from examples.studies.tables import of_study
from examples.studies.variants import STUDIES

FOLDER = Path("docs/results/studies")
BEGIN, END = "<!-- studies: made by `python -m examples.studies render` -->", "<!-- end -->"


def page_of(study: str) -> Path:
    """Where it stands."""
    return FOLDER / f"{study}.md"


def with_tables(page: str, study: str) -> str:
    """The page with the tables that the raw figures give. ValueError where the marks are not there."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{page_of(study)}: the marks are missing: {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{of_study(study)}\n{END}{after}"


def render() -> None:
    """Every page."""
    for study in STUDIES:
        path = page_of(study)
        path.write_text(with_tables(path.read_text(encoding="utf-8"), study), encoding="utf-8")
        print(path)

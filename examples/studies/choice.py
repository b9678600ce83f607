"""Which learning rate a variant takes: the best on the validation split with seed 0, chosen by code alone.

The task's rates are tried first; while the lowest or the highest of them is the best so far, or worse by less than its
margin, half or twice of it is tried as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from examples.studies.cells import Cell
from examples.studies.raw import Raw, read
from examples.studies.runs import Run, Stored, run_of
from examples.studies.tasks import TASKS
from examples.studies.variants import OWN, STUDIES

LOWEST, HIGHEST = 0.0001, 0.1  # where the search ends


def tuned_by(cell: Cell) -> Cell | None:
    """The cell, of seed 0, whose runs decide; None where the rate is given."""
    rate = cell.variant.rate
    if rate == OWN:
        return cell._replace(seed=0)
    study, _, name = rate.partition("/")
    return Cell(study, cell.task, name, 0) if study in STUDIES else None


def tried(cell: Cell) -> dict[str, float | None]:
    """Rate -> validation figure of a tuning cell, infinitely bad where it diverged; None where it was not run.

    In the order in which they are tried.
    """
    task = TASKS[cell.task]
    found = {rate: _figure(cell, rate) for rate in task.rates}
    while beyond := _beyond_the_best(found, task.margin):
        found[beyond] = _figure(cell, beyond)
    return found


def _beyond_the_best(found: Mapping[str, float | None], margin: float) -> str | None:
    """The next rate to try; None while a figure is missing, and when those at both ends are worse than the best."""
    figures = {rate: figure for rate, figure in found.items() if figure is not None}
    if len(figures) < len(found):
        return None
    by_rate = sorted((float(rate), figure) for rate, figure in figures.items())
    good = min(figures.values()) + margin * abs(min(figures.values()))
    (lowest, at_lowest), (highest, at_highest) = by_rate[0], by_rate[-1]
    beyond = [2 * highest] if at_highest <= good and math.isfinite(at_highest) else []
    beyond += [lowest / 2] if at_lowest <= good else []
    return next((f"{rate:g}" for rate in beyond if LOWEST <= rate <= HIGHEST), None)


def _figure(cell: Cell, rate: str) -> float | None:
    raw = read(run_of(cell, rate))
    return None if raw is None else badness(raw)


def chosen(cell: Cell) -> str | None:
    """The rate of this cell; None until all that decide are there."""
    decides = tuned_by(cell)
    if decides is None:
        return cell.variant.rate
    found = tried(decides)
    known = {rate: figure for rate, figure in found.items() if figure is not None}
    return min(known, key=known.__getitem__) if len(known) == len(found) else None


def badness(raw: Raw) -> float:
    """The validation figure of what the run left behind, smaller is better."""
    if "failed" in raw:
        return math.inf
    value = raw["figures"][label(raw)]["validation"][raw["metric"]]
    return math.inf if value is None else value if raw["goal"] == "min" else -value


def label(raw: Raw) -> str:
    """What the run's own model is called among its figures."""
    return "sparse" if "sparse" in raw["figures"] else "dense_control"


class Asked(NamedTuple):
    """The work that a cell asks for; waits: whether its rate, and so more of its work, is known only after that."""

    work: list[Run | Stored]
    waits: bool


def tunes(cell: Cell) -> bool:
    """Whether the cell is one that is made at every rate."""
    return cell.seed == 0 and cell.variant.rate == OWN


def asked(cell: Cell) -> Asked:
    """What decides about its rate as long as that is not known; then its run, and the files of that."""
    decides, rate = tuned_by(cell), chosen(cell)
    work: list[Run | Stored] = []
    if decides is not None and (rate is None or tunes(cell)):
        work += [run_of(decides, each) for each in tried(decides)]
    if rate is not None and not tunes(cell):
        work.append(run_of(cell, rate))
    if rate is not None and cell.variant.forms:
        work.append(Stored(run_of(cell, rate), cell.variant.forms))
    return Asked(work, waits=rate is None)

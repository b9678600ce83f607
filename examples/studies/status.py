"""What is done, and about how long the rest takes."""

from __future__ import annotations

from collections.abc import Sequence

from examples.studies import choice, raw
from examples.studies.cells import ORDER, Cell
from examples.studies.runs import Dense, Run, Stored, Work, key, run_of
from examples.studies.tasks import TASKS


def table(cells: Sequence[Cell]) -> str:
    """A line for every study and task, in the order in which they are made. Shared runs count where they come first."""
    counted: set[str] = set()
    lines = [f"{'':10} {'cells done':>12} {'runs to make':>14} {'core-minutes':>14}"]
    total = 0.0
    for study, task in ORDER:
        group = [cell for cell in cells if (cell.study, cell.task) == (study, task)]
        if not group:
            continue
        missing = [work for cell in group for work in _left(cell, counted)]
        minutes = sum(work.minutes() for work in missing)
        total += minutes
        done = sum(is_done(cell) for cell in group)
        lines.append(f"{study}/{task:8} {f'{done} of {len(group)}':>12} {len(missing):>14} {minutes:>14.0f}")
    return "\n".join([*lines, f"{'':10} {'':>12} {'':>14} {total:>14.0f}"])


def is_done(cell: Cell) -> bool:
    """Whether all that it asks for is there."""
    asked = choice.asked(cell)
    return not asked.waits and all(raw.read(work) for work in asked.work)


def _left(cell: Cell, counted: set[str]) -> list[Work]:
    """What is still to be made for it, with the checkpoints; a rate that is not chosen yet is taken to be the middle
    one."""
    asked = choice.asked(cell)
    work = list(asked.work)
    if asked.waits:
        run = run_of(cell, TASKS[cell.task].rates[1])
        work += [] if choice.tunes(cell) else [run]
        work += [Stored(run, cell.variant.forms)] if cell.variant.forms else []
    dense: list[Dense] = [each for run in work if isinstance(run, Run) for each in run.needs()]
    found: list[Work] = []
    for each in (*dense, *work):
        if key(each) not in counted and raw.read(each) is None:
            counted.add(key(each))
            found.append(each)
    return found

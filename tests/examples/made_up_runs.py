"""Raw figures of runs that nobody made."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from examples.studies import raw, runner
from examples.studies.cells import Cell
from examples.studies.runs import Dense, Run, Work


def made_up(work: Work, badness: Callable[[Run], float]) -> None:
    """The raw figures of a work that nobody did."""
    if isinstance(work, Dense):
        raw.write(work, {"steps": 1, "seconds": 1.0})
    elif isinstance(work, Run):
        value = badness(work)
        label = "dense_control" if "--dense" in work.flags else "sparse"
        figures = {label: {"validation": {"M": value}, "test": {"M": 2 * value}}}
        told = {"metric": "M", "goal": "min", "figures": figures, "weights": 600, "nonzeros": 100, "seconds": 3600.0}
        raw.write(work, {**told, "machine": "an abacus"})
    else:
        files = {form: {"bytes": 1000 if form == "dense" else 100, "figures": {"M": 5.0}} for form in work.forms}
        raw.write(work, {"files": files})


def make_up(chosen: list[Cell], badness: Callable[[Run], float]) -> Iterator[Work]:
    """Everything that a runner would make of these cells, one after the other."""
    while missing := list(runner.missing_work(chosen)):
        for work in missing:
            made_up(work, badness)
            yield work


def by_rate(run: Run) -> float:
    return {"0.001": 12.0, "0.002": 10.0, "0.004": 11.0}[run.flags.split("--lr ")[1].split()[0]] + run.dense.seed

"""From which share of zeros an engine beats dense: bisection over random patterns of one shape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from rnnprune.errors import UsageError
from rnnprune.workflows.bench_measure import case_of, choose_rivals, default_sparse_engine, ready_to_time
from rnnprune.workflows.bench_pieces import random_piece, shape_of
from rnnprune.workflows.bench_rows import SPARSE, BreakEven
from rnnprune.workflows.rivals import DENSE, Work, make_work
from rnnprune.workflows.timing import interleave

HIGHEST = 0.99
HALVINGS = 6  # to 1.5 points


def find_break_even(work: Work, engines: tuple[str, ...], rounds: int, memory: bool) -> list[BreakEven]:
    """One for every sparse engine asked for; the default engine when none is."""
    wanted = [name for name in engines if name.startswith(SPARSE)] or [default_sparse_engine(work)]
    found = []
    for wanted_name in wanted:
        ran = wanted_name

        def speedup(sparsity: float, wanted_name: str = wanted_name) -> float:
            nonlocal ran
            ran, ratio = _speedup(work, wanted_name, sparsity, rounds, memory)
            return ratio

        try:
            sparsity = bisect(speedup)
        except UsageError:  # cannot run here: the rows say why
            continue
        found.append(BreakEven(replace(case_of(work, memory), sparsity=0.0), ran, sparsity, HIGHEST))
    return found


def bisect(speedup: Callable[[float], float]) -> float | None:
    """The lowest sparsity with a speed-up of at least 1, to `HALVINGS` steps; None when `HIGHEST` has none."""
    if speedup(HIGHEST) < 1:
        return None
    if speedup(0.0) >= 1:
        return 0.0
    low, high = 0.0, HIGHEST
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if speedup(middle) >= 1 else (middle, high)
    return high


def _speedup(work: Work, engine: str, sparsity: float, rounds: int, memory: bool) -> tuple[str, float]:
    """The name of what ran on a random pattern of this sparsity, and how much faster than dense it was."""
    piece = random_piece(shape_of(work.piece), sparsity, work.piece.block)
    rivals, left_out = choose_rivals(make_work(piece, work.batch, work.steps, work.threads), (engine,))
    name = next((name for name in rivals if name != DENSE), None)
    if name is None:
        raise UsageError("; ".join(left_out.values()))
    timings = interleave({each: ready_to_time(rivals[each], memory).call for each in (DENSE, name)}, rounds)
    return name, timings[DENSE].median_us / timings[name].median_us

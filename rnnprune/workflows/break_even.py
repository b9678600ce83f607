"""From which share of zeros an engine beats the dense ones: bisection over random patterns of one shape."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from rnnprune.errors import UsageError
from rnnprune.workflows.bench_measure import CANNOT_RUN, case_of, choose_rivals, default_sparse_engine, ready_to_time
from rnnprune.workflows.bench_pieces import random_piece, shape_of
from rnnprune.workflows.bench_rows import SPARSE, BreakEven
from rnnprune.workflows.rivals import DENSE, INT8, Work, make_work
from rnnprune.workflows.timing import interleave

HIGHEST = 0.99
HALVINGS = 6  # to 1.5 points


def find_break_even(work: Work, engines: tuple[str, ...], rounds: int, memory: bool) -> Iterator[BreakEven]:
    """For every sparse engine asked for (the default one when none is): against dense float32, and int8 if it runs."""
    for wanted in [name for name in engines if name.startswith(SPARSE)] or [default_sparse_engine(work)]:
        with contextlib.suppress(UsageError):  # cannot run here: the rows say why
            yield from _of_engine(work, wanted, rounds, memory)


def _of_engine(work: Work, wanted: str, rounds: int, memory: bool) -> Iterator[BreakEven]:
    speedups = functools.cache(functools.partial(_speedups, work, wanted, rounds, memory))
    ran, rivals = speedups(HIGHEST)
    for rival in rivals:
        sparsity = bisect(lambda sparsity, rival=rival: speedups(sparsity)[1][rival])  # type: ignore[misc]
        yield BreakEven(replace(case_of(work, memory), sparsity=0.0), ran, rival, sparsity, HIGHEST)


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


def _speedups(work: Work, engine: str, rounds: int, memory: bool, sparsity: float) -> tuple[str, Mapping[str, float]]:
    """The name of what ran on a random pattern of this sparsity, and how much faster than each dense rival it was."""
    piece = random_piece(shape_of(work.piece), sparsity, work.piece.block)
    work = make_work(piece, work.batch, work.steps, work.threads)
    rivals, left_out = choose_rivals(work, (INT8, engine))
    name = next((name for name in rivals if name not in (DENSE, INT8)), None)
    if name is None:
        raise UsageError("; ".join(left_out.values()))
    calls = {each: ready_to_time(rivals[each], memory).call for each in (DENSE, name)}
    with contextlib.suppress(*CANNOT_RUN):  # the rows say why
        calls[INT8] = ready_to_time(rivals[INT8], memory).call
    timings = interleave(calls, rounds)
    return name, {each: timings[each].median_us / timings[name].median_us for each in calls if each != name}

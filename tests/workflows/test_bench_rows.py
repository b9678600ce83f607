"""What is concluded from timings: goals, suspicion, break-even, equality; with made-up figures."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest

from rnnprune.errors import GoalMissed
from rnnprune.workflows.bench_rows import Benchmark, Case, Row, SameAgain, by_case, describe
from rnnprune.workflows.break_even import HIGHEST, bisect
from rnnprune.workflows.timing import Timing, fastest, interleave, summarise

MATRIX = Case("matvec", "8x8", 0.9, "1x1", 1, 1, 1)
LAYER = Case("lstm", "4->8", 0.9, "16x1", 2, 100, 2)


def row(engine: str, vs_dense: float, error: float = 1e-7, case: Case = MATRIX) -> Row:
    return Row(case, engine, Timing(1.0, 1.0, 1.0, 0.1), vs_dense, None, None, error, 8)


def benchmark(*rows: Row) -> Benchmark:
    return Benchmark(None, rows, {}, ())


def test_the_goal_is_held_against_the_best_sparse_engine_of_the_worst_case() -> None:
    result = benchmark(
        row("torch-dense-fp32", 1.0), row("torch-dense-int8", 9.0), row("torch-csr", 2.0), row("native:sell8", 4.0),
        row("torch-dense-fp32", 1.0, case=LAYER), row("native:16x1", 3.0, case=LAYER),
    )  # fmt: skip
    result.require_speedup(3.0)
    told = (
        r"^--min-speedup 3.5: lstm 4->8, 90.0% zeros in blocks 16x1, sequence of 100, batch 2, 2 threads, "
        r"weights from cache: native:16x1, the best sparse engine, is 3.00 times as fast as dense$"
    )
    with pytest.raises(GoalMissed, match=told):
        result.require_speedup(3.5)


def test_a_wrong_result_or_none_reaches_no_goal() -> None:
    with pytest.raises(GoalMissed, match="no sparse engine ran with the right result"):
        benchmark(row("torch-dense-fp32", 1.0), row("native:sell8", 9.0, error=1e-3)).require_speedup(1.0)


def test_only_float32_engines_are_held_to_rounding() -> None:
    assert row("native:sell8", 1.0, 1.1e-5).is_suspect
    assert row("native:sell8", 1.0, float("nan")).is_suspect
    for exact in ("native:16x1:int8", "torch-dense-int8", "torch-dense-fp16", "torch-dense-fp32:tf32"):
        assert not row(exact, 1.0, 1e-2).is_suspect
    assert row("native:16x1:int8", 1.0).dtype == "int8"
    assert row("torch-dense-fp32:graph", 1.0).dtype == "fp32"


def test_rows_of_one_case_stand_together() -> None:
    first, second = row("torch-csr", 1.0), row("native:sell8", 2.0)
    groups = by_case([first, row("native:sell8", 3.0, case=LAYER), second])
    assert groups[MATRIX] == [first, second]
    assert list(groups) == [MATRIX, LAYER]
    assert describe(MATRIX) == "matvec 8x8, 90.0% zeros, batch 1, 1 thread, weights from cache"
    step = replace(LAYER, steps=1, device="cuda")
    assert describe(step) == "lstm 4->8, 90.0% zeros in blocks 16x1, one step, batch 2"


def test_a_difference_within_the_quartiles_is_none() -> None:
    first = Timing(100.0, 90.0, 120.0, 10.0)
    assert SameAgain(MATRIX, first, Timing(109.0, 90.0, 120.0, 5.0)).is_equal
    apart = SameAgain(MATRIX, first, Timing(80.0, 70.0, 90.0, 5.0))
    assert not apart.is_equal
    assert apart.ratio == 1.25
    assert apart.spread == 0.1


@pytest.mark.parametrize("truth", [0.3, 0.77, 0.9])
def test_bisection_finds_where_sparse_starts_to_win(truth: float) -> None:
    found = bisect(lambda sparsity: 1.0 + sparsity - truth)
    assert found is not None
    assert truth <= found <= truth + HIGHEST / 2**6


@pytest.mark.parametrize(("speedup", "found"), [(lambda _: 2.0, 0.0), (lambda _: 0.5, None)])
def test_bisection_has_an_answer_at_both_ends(speedup: Callable[[float], float], found: float | None) -> None:
    assert bisect(speedup) == found


def test_interleaving_times_every_call_in_every_round() -> None:
    counts = {"a": 0, "b": 0}

    def call(name: str) -> None:
        counts[name] += 1
        sum(range(20_000))

    timings = interleave({name: lambda name=name: call(name) for name in counts}, rounds=2)
    assert timings.keys() == counts.keys()
    assert all(0 < each.min_us <= each.median_us <= each.p90_us for each in timings.values())
    assert min(counts.values()) >= 5 * 2
    assert 0 < fastest(lambda: None, 0.0) < 1


def test_percentiles_by_hand() -> None:
    timing = summarise([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0])
    assert timing == Timing(median_us=6.0, min_us=1.0, p90_us=10.0, iqr_us=5.0)


def test_rivals_take_turns_in_every_round_and_in_starting_it() -> None:
    order: list[str] = []

    def call(name: str) -> Callable[[], object]:
        return lambda: (order.append(name), sum(range(100_000)))

    interleave({"a": call("a"), "b": call("b")}, rounds=3)
    turns = "".join(name for name, _ in itertools.groupby(order))
    assert turns.endswith("abababa"), "ab ba ab ba ab ba, neighbours of one name joined"

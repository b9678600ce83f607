"""What is concluded from timings: goals, suspicion, break-even, equality; with made-up figures."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest

from rnnprune.errors import GoalMissed
from rnnprune.workflows.bench_rows import Benchmark, Case, Row, SameAgain, by_case, describe
from rnnprune.workflows.bench_summary import summary
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


@pytest.mark.parametrize(
    ("second", "verdict"),
    [
        (Timing(109.0, 90.0, 120.0, 5.0), "equal"),
        (Timing(80.0, 70.0, 90.0, 5.0), "different"),
        (Timing(80.0, 70.0, 90.0, 21.0), "noisy"),
        (Timing(240.0, 90.0, 400.0, 200.0), "noisy"),
    ],
)
def test_dense_against_dense_is_judged_by_its_spread_and_not_at_all_when_that_is_wide(
    second: Timing, verdict: str
) -> None:
    check = SameAgain(MATRIX, Timing(100.0, 90.0, 120.0, 10.0), second)
    assert check.verdict == verdict
    assert check.ratio == 100.0 / second.median_us
    assert check.spread == max(0.1, second.iqr_us / second.median_us)
    assert check.to_json()["verdict"] == verdict


def test_a_noisy_row_of_any_engine_says_so() -> None:
    quiet, noisy = (replace(row("native:sell8", 4.0), timing=Timing(4.0, 3.0, 5.0, iqr)) for iqr in (1.0, 1.1))
    assert (quiet.to_json()["noisy"], noisy.to_json()["noisy"]) == (False, True)


def test_a_case_of_a_model_names_its_tensor_and_how_many_it_stands_for() -> None:
    named = replace(MATRIX, name="head\n.weight", alike=("a", "b"))
    assert describe(named).startswith(r"matvec 8x8 (head\n.weight and 2 alike), 90.0% zeros, batch 1")


def test_the_summary_speaks_for_the_largest_layer_and_names_every_losing_case() -> None:
    step, small = replace(LAYER, steps=1), replace(LAYER, shape="2->4")
    result = benchmark(
        replace(row("torch-dense-fp32", 1.0, case=small), nbytes=96),
        replace(row("native:16x1", 2.0, case=small), vs_int8=0.5),
        replace(row("torch-dense-fp32", 1.0, case=LAYER), nbytes=384),
        replace(row("native:16x1", 4.21, case=LAYER), vs_int8=1.52, vs_csr=3.0),
        row("native:16x1", 9.0, case=step), replace(row("native:sell8", 0.9), vs_int8=3.0),
    )  # fmt: skip
    assert summary(result) == (
        "native:16x1: 4.2x torch dense fp32, 1.5x torch dynamic int8, 3x torch.sparse "
        "(lstm 4->8, sequence of 100, batch 2, 2 threads); "
        "every sparse engine is slower than dense in 1 of 4 cases: matvec 8x8, batch 1, 1 thread 0.90x (native:sell8); "
        "every sparse engine is slower than dynamic int8 in 1 of 4 cases: "
        "lstm 2->4, sequence of 100, batch 2, 2 threads 0.50x (native:16x1)"
    )
    assert summary(benchmark(row("torch-csr", 2.0))).endswith("; slower than dense in none of 1 cases")
    assert summary(benchmark(row("torch-dense-fp32", 1.0))) == "no sparse engine ran with the right result"


def test_the_summary_doubts_a_figure_whose_dense_rival_wavers() -> None:
    wide = Timing(1.0, 1.0, 3.0, 0.9)
    result = replace(benchmark(row("torch-csr", 2.0)), same_again=(SameAgain(MATRIX, wide, wide),))
    assert "(matvec 8x8, batch 1, 1 thread), too noisy to trust; " in summary(result)


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

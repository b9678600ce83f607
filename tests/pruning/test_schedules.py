"""Schedules against Algorithm 1 and equation 1, in exact fractions and in literals worked out by hand."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnnprune.errors import UsageError
from rnnprune.pruning.options import ScheduleName, Timing
from rnnprune.pruning.schedules import Cubic, Cut, Gradual, Hard, Schedule, plan_schedule


def epsilon(t: int, steps: tuple[int, int, int], freq: int, q: Fraction, ratio: Fraction) -> Fraction:
    """The paper's threshold at an update, letter for letter."""
    start, ramp, end = steps
    theta = 2 * q * freq / (2 * (ramp - start) + 3 * (end - ramp))
    phi = ratio * theta
    if t < ramp:
        return theta * (t - start + 1) / freq
    return (theta * (ramp - start + 1) + phi * (t - ramp + 1)) / freq


def cuts(schedule: Schedule, steps: int, target: float = 0.9, q: float = 1.0) -> dict[int, Cut]:
    found = {step: schedule.cut_at(step, target, q) for step in range(1, steps + 1)}
    return {step: cut for step, cut in found.items() if cut is not None}


# gradual


# start 10, ramp 30, end 60, every 10 steps, q 1.3:
#   theta = 2 * 1.3 * 10 / (2 * 20 + 3 * 30) = 26 / 130 = 0.2, phi = 1.5 * 0.2 = 0.3 or 2 * 0.2 = 0.4
#   t 20, before the ramp:  0.2 * (20 - 10 + 1) / 10                                        = 0.22
#   t 30, first of the ramp: (0.2 * (30 - 10 + 1) + 0.3 * (30 - 30 + 1)) / 10 = (4.2 + 0.3) / 10 = 0.45, phi 0.4: 0.46
#   t 40: (4.2 + 0.3 * 11) / 10 = 0.75                                                           phi 0.4: 0.86
#   t 50: (4.2 + 0.3 * 21) / 10 = 1.05                                                           phi 0.4: 1.26
#   t 60: (4.2 + 0.3 * 31) / 10 = 1.35                                                           phi 0.4: 1.66
@pytest.mark.parametrize(
    ("ratio", "thresholds"),
    [(1.5, [0.22, 0.45, 0.75, 1.05, 1.35]), (2.0, [0.22, 0.46, 0.86, 1.26, 1.66])],
)
def test_gradual_thresholds_worked_out_by_hand(ratio: float, thresholds: list[float]) -> None:
    schedule = Gradual(10, 30, 60, 10, ratio)
    assert schedule.slopes(1.3) == pytest.approx((0.2, 0.2 * ratio), rel=1e-12)
    made = cuts(schedule, 200, q=1.3)
    assert list(made) == [20, 30, 40, 50, 60]
    assert [cut.threshold for cut in made.values()] == pytest.approx(thresholds, rel=1e-12)
    assert [cut.sparsity for cut in made.values()] == [None, None, None, None, 0.9]


@given(
    start=st.integers(0, 500),
    before=st.integers(1, 500),
    after=st.integers(1, 500),
    freq=st.integers(1, 100),
    ratio=st.fractions(1, 2),
    q=st.fractions(Fraction(1, 1000), 10),
)
def test_gradual_is_algorithm_1_at_every_update(
    start: int, before: int, after: int, freq: int, ratio: Fraction, q: Fraction
) -> None:
    ramp, end = start + before, start + before + after
    updates = [t for t in range(start + 1, end) if t % freq == 0]
    if not updates:
        with pytest.raises(UsageError, match="no update falls between"):
            Gradual(start, ramp, end, freq, float(ratio))
        return
    made = cuts(Gradual(start, ramp, end, freq, float(ratio)), end + 300, q=float(q))
    assert list(made) == [*updates, end]
    for step, cut in made.items():
        assert cut.threshold == pytest.approx(float(epsilon(step, (start, ramp, end), freq, q, ratio)), rel=1e-9)


# Twenty epochs of N steps, Table 1's start 1, ramp 5, end 10: ramp - start = 4 N, end - ramp = 5 N, and at the end
#   eps = 2 q ((4 N + 1) + r (5 N + 1)) / (2 * 4 N + 3 * 5 N) = q (8 N + 10 r N + 2 + 2 r) / (23 N)
#   r 1.5:  q (23 N + 5) / (23 N) -> q          r 2:  q (28 N + 6) / (23 N) -> 28 / 23 q = 1.217 q
@pytest.mark.parametrize("steps_an_epoch", [100, 1000])
@pytest.mark.parametrize(("ratio", "share", "extra"), [(1.5, 1.0, 5), (2.0, 28 / 23, 6)])
def test_where_the_papers_schedule_ends(steps_an_epoch: int, ratio: float, share: float, extra: int) -> None:
    n = steps_an_epoch
    end = Gradual(n, 5 * n, 10 * n, 100, ratio).threshold_at(10 * n, q=0.05)
    assert end == pytest.approx(0.05 * (share + extra / (23 * n)), rel=1e-12)
    assert end == pytest.approx(0.05 * (1.0 if ratio == 1.5 else 1.217), rel=4e-3)


def test_the_threshold_is_zero_before_the_start_and_stays_after_the_end() -> None:
    schedule = Gradual(10, 30, 60, 10)
    assert [schedule.threshold_at(step, 1.3) for step in (0, 9, 10)] == [0.0, 0.0, 0.0]
    assert schedule.threshold_at(11, 1.3) == pytest.approx(0.2 * 2 / 10)
    assert {schedule.threshold_at(step, 1.3) for step in (60, 61, 100, 10**9)} == {schedule.threshold_at(60, 1.3)}


def test_an_end_between_two_updates_still_gets_its_exact_cut() -> None:
    assert list(cuts(Gradual(7, 20, 45, 10), 200)) == [10, 20, 30, 40, 45]
    assert list(cuts(Cubic(7, 45, 10), 200)) == [10, 20, 30, 40, 45]


# cubic and hard


# start 10, end 50, target 0.8: s = 0.8 (1 - (1 - p)^3), p the share of the way
#   t 20: p 1/4, 0.8 (1 - 27/64) = 0.8 * 0.578125 = 0.4625     t 30: p 1/2, 0.8 (1 - 1/8)  = 0.7
#   t 40: p 3/4, 0.8 (1 - 1/64)  = 0.8 * 0.984375 = 0.7875     t 50: the target
def test_cubic_sparsities_worked_out_by_hand() -> None:
    made = cuts(Cubic(10, 50, 10), 500, target=0.8)
    assert list(made) == [20, 30, 40, 50]
    assert [cut.sparsity for cut in made.values()] == pytest.approx([0.4625, 0.7, 0.7875, 0.8], rel=1e-12)
    assert made[50].sparsity == 0.8
    assert {cut.threshold for cut in made.values()} == {None}


def test_cubic_is_flat_outside_its_ramp() -> None:
    schedule = Cubic(10, 50, 10)
    assert [schedule.sparsity_at(step, 0.8) for step in (0, 10, 50, 51, 10**9)] == [0.0, 0.0, 0.8, 0.8, 0.8]


def test_hard_cuts_once() -> None:
    assert cuts(Hard(7), 500) == {7: Cut(sparsity=0.9)}
    assert Hard(7).start_step == 7


@pytest.mark.parametrize("schedule", [Gradual(10, 30, 60, 10), Cubic(10, 60, 10), Hard(60)])
def test_nothing_is_cut_after_the_end(schedule: Schedule) -> None:
    assert all(schedule.cut_at(step, 0.9, 1.0) is None for step in range(61, 5000))


# Schedules that cannot work


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (
            lambda: Gradual(30, 10, 60),
            "needs 0 <= start_step < ramp_step < end_step; found start_step 30, ramp_step 10",
        ),
        (lambda: Gradual(10, 60, 60), "found start_step 10, ramp_step 60, end_step 60"),
        (lambda: Gradual(-1, 10, 60), "found start_step -1"),
        (lambda: Cubic(50, 50), "needs 0 <= start_step < end_step; found start_step 50, end_step 50"),
        (
            lambda: Gradual(10, 30, 60, 100),
            "no update falls between start_step 10 and end_step 60 with a frequency of 100",
        ),
        (lambda: Cubic(0, 100, 100), "no update falls between start_step 0 and end_step 100"),
        (lambda: Cubic(100, 200, 100), "no update falls between start_step 100 and end_step 200"),
        (lambda: Cubic(0, 100, 0), "frequency must be at least 1 step between updates, found 0"),
        (lambda: Gradual(10, 30, 60, 10, slope_ratio=20.0), "slope_ratio must lie in 1 to 2 .*, found 20.0"),
        (lambda: Gradual(10, 30, 60, 10, slope_ratio=0.9), "slope_ratio must lie in 1 to 2 .*, found 0.9"),
        (lambda: Gradual(10, 30, 60, 10, slope_ratio=float("nan")), "slope_ratio must lie in 1 to 2 .*, found nan"),
        (lambda: Hard(0), "needs a step of at least 1 to cut at, found 0"),
    ],
)
def test_a_schedule_that_cannot_work_is_refused(build: object, text: str) -> None:
    assert callable(build)
    with pytest.raises(UsageError, match=text):
        build()


# From shares to steps


@pytest.mark.parametrize(
    ("total", "steps", "frequency"),
    [
        (100_000, (5_000, 25_000, 50_000), 100),
        (2_000, (100, 500, 1_000), 30),  # 900 steps of pruning / 30 updates
        (40, (2, 10, 20), 1),
    ],
)
def test_the_default_timing_is_table_1(total: int, steps: tuple[int, int, int], frequency: int) -> None:
    assert plan_schedule("gradual", total) == Gradual(*steps, frequency, 1.5, False)
    assert plan_schedule("cubic", total) == Cubic(steps[0], steps[2], frequency)
    assert plan_schedule("hard", total) == Hard(steps[0])


def test_timing_reaches_the_schedule() -> None:
    timing = Timing(start=0.1, ramp=0.2, end=0.9, frequency=7, slope_ratio=1.75, revive=True, aim=True)
    assert plan_schedule("gradual", 1000, timing) == Gradual(100, 200, 900, 7, 1.75, True, True)
    assert plan_schedule("cubic", 1000, timing) == Cubic(100, 900, 7)


def test_hard_never_cuts_before_the_first_step() -> None:
    assert plan_schedule("hard", 3) == Hard(1)


NAN = float("nan")


@pytest.mark.parametrize(
    ("name", "shares", "text"),
    [
        ("gradual", (0.5, 0.25, 0.75), "start < ramp < end <= 1 .*; found start 0.5, ramp 0.25, end 0.75$"),
        ("gradual", (0.1, 0.5, 1.1), "start < ramp < end <= 1 .*; found start 0.1, ramp 0.5, end 1.1$"),
        ("gradual", (-0.1, 0.2, 0.5), "start < ramp < end <= 1 .*; found start -0.1"),
        ("gradual", (0.1, 0.5, 0.5), "start < ramp < end <= 1 .*; found start 0.1, ramp 0.5, end 0.5$"),
        ("gradual", (0.1, NAN, 0.5), "start < ramp < end <= 1 .*; found start 0.1, ramp nan, end 0.5$"),
        ("cubic", (0.5, 0.25, 0.5), "0 <= start < end <= 1 .*; found start 0.5, end 0.5$"),
        ("cubic", (0.1, 0.25, 1.1), "0 <= start < end <= 1 .*; found start 0.1, end 1.1$"),
        ("hard", (-0.1, 0.25, 0.5), "a hard schedule needs 0 <= start <= 1 as shares of all steps; found start -0.1$"),
        ("hard", (1.1, 0.25, 0.5), "0 <= start <= 1 .*; found start 1.1$"),
    ],
)
def test_shares_out_of_order_are_refused(name: ScheduleName, shares: tuple[float, float, float], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        plan_schedule(name, 1000, Timing(*shares))


def test_only_the_shares_that_a_schedule_has_are_looked_at() -> None:
    assert plan_schedule("cubic", 1000, Timing(start=0.3)) == Cubic(300, 500, 6)  # the ramp stays at 0.25
    assert plan_schedule("hard", 1000, Timing(start=0.5)) == Hard(500)
    assert plan_schedule("hard", 1000, Timing(start=1.0)) == Hard(1000)


@pytest.mark.parametrize(("name", "total"), [("gradual", 2), ("cubic", 2), ("cubic", 0)])
def test_too_few_steps_are_refused_with_the_remedy(name: ScheduleName, total: int) -> None:
    with pytest.raises(
        UsageError, match=rf"^{total} steps are too few for this schedule: start_step .*; train longer$"
    ):
        plan_schedule(name, total)


def test_what_is_not_the_fault_of_the_planned_steps_is_not_blamed_on_them() -> None:
    with pytest.raises(UsageError, match=r"^no update falls between .* frequency of 100 steps; lower the frequency$"):
        plan_schedule("cubic", 100, Timing(frequency=100))
    with pytest.raises(UsageError, match=r"^slope_ratio must lie in 1 to 2"):
        plan_schedule("gradual", 1000, Timing(slope_ratio=20.0))
    with pytest.raises(UsageError, match=r"^frequency must be at least 1 step"):
        plan_schedule("gradual", 1000, Timing(frequency=0))


@given(total=st.integers(1, 3000), end=st.floats(0.1, 1.0), frequency=st.none() | st.integers(1, 200))
def test_a_planned_schedule_ends_within_the_run_or_is_refused(total: int, end: float, frequency: int | None) -> None:
    timing = Timing(start=0.02, ramp=0.05, end=end, frequency=frequency)
    for name in ("gradual", "cubic", "hard"):
        try:
            schedule = plan_schedule(name, total, timing)  # type: ignore[arg-type]
        except UsageError:
            assert name != "hard"
            continue
        last = schedule.cut_at(schedule.end_step, 0.9, 1.0)
        assert schedule.end_step <= total
        assert last is not None
        assert last.sparsity == 0.9

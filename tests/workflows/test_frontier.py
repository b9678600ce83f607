"""Which points matter and which one to take, on points whose answer can be seen."""

from __future__ import annotations

import math
from typing import Any

import pytest

from rnnprune.tasks.options import Goal
from rnnprune.workflows.budget import Budget
from rnnprune.workflows.frontier import Frontier, Point, Spread, beats, unmatched
from rnnprune.workflows.latency import Latency

TWO_PERCENT = Budget(0.02, relative=True)


def point(name: str, metric: float | tuple[float, ...], size: int, us: float | None = None, **more: Any) -> Point:
    values = metric if isinstance(metric, tuple) else (metric,)
    return Point(
        name=name,
        setting={"target": more.pop("target", 0.9)},
        runs=tuple(f"{name}-seed{seed}" for seed in range(len(values))),
        validation=Spread(values),
        test=Spread((0.0,) * len(values)),  # decides nothing
        sparsity=0.9,
        nonzeros=more.pop("nonzeros", size),
        bytes=size,
        steps=more.pop("steps", 10),
        latency=None if us is None else Latency(us, 100.0, ("native",), 0.0),
    )


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ((1.0, 100, 10.0), (1.1, 100, 10.0), True),
        ((1.0, 100, 10.0), (1.0, 100, 10.0), False),
        ((1.0, 100, 10.4), (1.1, 100, 10.0), True),  # 4 % of a timing is noise
        ((1.0, 100, 11.0), (1.1, 100, 10.0), False),
        ((1.0, 103, 10.0), (1.1, 100, 10.0), False),
        ((1.1, 100, 10.0), (1.0, 100, 10.4), False),
        ((1.0, 100, 10.0), (1.0, 100, 11.0), True),
        ((1.0, 100, 10.0), (math.nan, 10, 1.0), False),  # smaller, though useless
        ((1.0, 100, None), (1.1, 100, 10.0), True),
    ],
)
def test_a_point_beats_another(one: tuple[Any, ...], other: tuple[Any, ...], expected: bool) -> None:
    assert beats(point("one", *one), point("other", *other), "min") is expected


@pytest.mark.parametrize(("goal", "sign"), [("min", 1.0), ("max", -1.0)])
def test_the_front_and_the_fastest_within_the_budget(goal: Goal, sign: float) -> None:
    control = point("control", sign * 10.0, 1000, 100.0)
    points = (
        point("best", sign * 10.0, 300, 40.0),
        point("small", (sign * 10.3, sign * 10.0), 200, 30.0),
        point("beaten", sign * 10.2, 310, 41.0),
        point("poor", sign * 12.0, 100, 10.0),
    )
    found = Frontier("figure", goal, TWO_PERCENT, control, points)
    assert found.front == {"best", "small", "poor"}
    assert (found.take, found.run) == ("small", "small-seed1")
    assert found.loss(points[3]) == pytest.approx(0.2)
    nothing = Frontier("figure", goal, Budget(0.001, relative=True), control, points[1:])
    assert (nothing.take, nothing.run) == (None, None)


def test_a_figure_has_a_spread_from_two_seeds_on() -> None:
    assert Spread((1.0,)).deviation is None
    assert Spread((1.0, 3.0)).deviation == pytest.approx(math.sqrt(2))
    assert Spread((1.0, math.nan)).deviation is None


def test_points_that_cannot_be_compared_are_told() -> None:
    same = (point("a", 1.0, 10), point("b", 1.0, 10), point("c", 1.0, 20, target=0.8))
    assert unmatched(same) == []
    assert unmatched((*same, point("d", 1.0, 12, steps=20))) == [
        "not trained for the same steps: 10, 20",
        "not the same nonzeros at 90%: a 10, b 10, d 12",
    ]

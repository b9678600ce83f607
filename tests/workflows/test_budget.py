"""What 1% and 0.5 mean, for figures that should be small and for those that should be large."""

from __future__ import annotations

import math

import pytest

from rnnprune.errors import UsageError
from rnnprune.tasks.options import Goal
from rnnprune.workflows.budget import parse_budget


@pytest.mark.parametrize(
    ("text", "control", "goal", "limit"),
    [
        ("1%", 200.0, "min", 202.0),
        ("1%", 0.9, "max", 0.891),
        ("0.5", 8.0, "min", 8.5),
        ("0.5", 30.0, "max", 29.5),
        ("0%", 3.0, "min", 3.0),
        ("10%", -2.0, "min", -1.8),
    ],
)
def test_the_limit_lies_on_the_worse_side_of_the_control(text: str, control: float, goal: Goal, limit: float) -> None:
    budget = parse_budget(text)
    worse = 1e-6 if goal == "min" else -1e-6
    assert budget.limit(control, goal) == pytest.approx(limit)
    assert budget.holds(limit - worse, control, goal)
    assert not budget.holds(limit + worse, control, goal)
    assert not budget.holds(math.nan, control, goal)
    assert str(budget) == text


@pytest.mark.parametrize("text", ["", "%", "-1%", "nan", "inf", "one", "1 %%"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--max-loss takes a share"):
        parse_budget(text)

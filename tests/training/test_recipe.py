"""Rates and step counts in literals."""

import pytest

from rnnprune.errors import UsageError
from rnnprune.training.recipe import Decay, Recipe


# 100 steps, rate 1: the warm-up is 2 steps (2 %), 1/2 and 1; then progress p = (step - 2) / 98
#   step 51: p = 1/2; step 100: p = 1.  cosine: (1 + cos(pi p)) / 2; linear: 1 - p; constant: 1
@pytest.mark.parametrize(
    ("decay", "rates"),
    [
        ("cosine", {1: 0.5, 2: 1.0, 51: 0.5, 100: 0.0, 3: 0.999743}),
        ("linear", {1: 0.5, 2: 1.0, 51: 0.5, 100: 0.0, 3: 97 / 98}),
        ("constant", {1: 0.5, 2: 1.0, 51: 1.0, 100: 1.0, 3: 1.0}),
    ],
)
def test_learning_rates_worked_out_by_hand(decay: Decay, rates: dict[int, float]) -> None:
    recipe = Recipe(lr=1.0, decay=decay)
    assert {step: recipe.learning_rate(step, 100) for step in rates} == pytest.approx(rates, abs=1e-6)
    tenth = Recipe(lr=0.1, decay=decay)
    assert tenth.learning_rate(3, 100) == pytest.approx(0.1 * rates[3], abs=1e-7)


def test_a_long_warm_up_rises_evenly() -> None:
    recipe = Recipe(lr=1e-3)
    assert [recipe.learning_rate(step, 1000) for step in (1, 10, 20)] == pytest.approx([5e-5, 5e-4, 1e-3], rel=1e-12)
    assert recipe.learning_rate(21, 1000) < 1e-3


@pytest.mark.parametrize("total", [1, 2, 3])
def test_the_shortest_runs_start_at_the_full_rate(total: int) -> None:
    assert Recipe(lr=0.5).learning_rate(1, total) == 0.5


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"steps": 10, "epochs": 1.0}, "--steps and --epochs both say how long"),
        ({"steps": 0}, "--steps must be above 0 and finite, found 0"),
        ({"steps": -5}, "--steps must be above 0 and finite, found -5"),
        ({"epochs": 0.0}, "--epochs must be above 0 and finite, found 0.0"),
        ({"epochs": float("nan")}, "--epochs must be above 0 and finite, found nan"),
        ({"epochs": float("inf")}, "--epochs must be above 0 and finite, found inf"),
        ({"lr": 0.0}, "--lr must be above 0 and finite, found 0.0"),
        ({"lr": -1e-3}, "--lr must be above 0 and finite, found -0.001"),
        ({"lr": float("nan")}, "--lr must be above 0 and finite, found nan"),
        ({"lr": float("inf")}, "--lr must be above 0 and finite, found inf"),
        ({"clip_norm": -1.0}, "--clip-norm must not be below 0 and must be finite, found -1.0"),
        ({"weight_decay": -0.1}, "--weight-decay must not be below 0 and must be finite, found -0.1"),
        ({"weight_decay": float("inf")}, "--weight-decay must not be below 0 and must be finite, found inf"),
        ({"seed": -1}, r"--seed must be a whole number from 0 to 2\*\*63 - 1, found -1"),
        ({"seed": 2**63}, r"--seed must be a whole number from 0 to 2\*\*63 - 1, found 9223372036854775808"),
    ],
)
def test_a_recipe_that_cannot_work_is_refused(fields: dict[str, float], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        Recipe(**fields)  # type: ignore[arg-type]

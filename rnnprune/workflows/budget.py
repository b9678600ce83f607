"""How much worse than the dense control a sparse model may be: `1%` of the control's figure, or `0.5` of its units."""

from __future__ import annotations

import math
from typing import NamedTuple

from rnnprune.errors import UsageError
from rnnprune.tasks.options import Goal


class Budget(NamedTuple):
    """`amount` is a share of the control's figure where `relative`, else in the units of the metric."""

    amount: float
    relative: bool

    def __str__(self) -> str:
        return f"{100 * self.amount:g}%" if self.relative else f"{self.amount:g}"

    def limit(self, control: float, goal: Goal) -> float:
        """The worst figure that is still within the budget: above the control for goal "min", below it for "max"."""
        allowed = self.amount * abs(control) if self.relative else self.amount
        return control + allowed if goal == "min" else control - allowed

    def holds(self, figure: float, control: float, goal: Goal) -> bool:
        """Whether a figure is within the budget; NaN never is."""
        limit = self.limit(control, goal)
        return figure <= limit if goal == "min" else figure >= limit


def parse_budget(text: str) -> Budget:
    """`1%` -> a hundredth of the control's figure, `0.5` -> half a unit of the metric. UsageError for anything else."""
    number = text.strip().removesuffix("%")
    try:
        amount = float(number)
    except ValueError:
        amount = -1.0
    if not 0 <= amount < math.inf:
        raise UsageError(
            "--max-loss takes a share of the control's figure (1%) or an amount in the metric's units (0.5); "
            f"found {text!r}"
        )
    relative = text.strip().endswith("%")
    return Budget(amount / 100 if relative else amount, relative)

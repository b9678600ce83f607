"""Metric against stored bytes against latency: the points of a sweep, which of them matter, and the one to take.

Whatever is chosen is chosen by the validation split; the test split is shown and decides nothing.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rnnprune.tasks.options import Goal
from rnnprune.workflows.budget import Budget
from rnnprune.workflows.latency import Latency

SAME_BYTES, SAME_LATENCY = 0.01, 0.05  # relative; what lies as near says nothing: headers, the noise of a timing


class Spread(NamedTuple):
    """One figure of every seed."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float | None:
        """The sample's standard deviation; None of one seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 and math.isfinite(self.mean) else None

    def to_json(self) -> dict[str, Any]:
        """One figure of `--json`."""
        return {"mean": self.mean, "deviation": self.deviation, "values": list(self.values)}


@dataclass(frozen=True)
class Point:
    """One setting over its seeds. runs: the folders, in the order of the values.

    nonzeros: of the pruned tensors. bytes: of the exported file. latency: of the first seed's file. steps: of training.
    """

    name: str
    setting: Mapping[str, Any]
    runs: tuple[str, ...]
    validation: Spread
    test: Spread
    sparsity: float
    nonzeros: int
    bytes: int
    steps: int
    latency: Latency | None = None

    def to_json(self) -> dict[str, Any]:
        """One object of `points`."""
        return {
            "name": self.name,
            **self.setting,
            "runs": list(self.runs),
            "validation": self.validation.to_json(),
            "test": self.test.to_json(),
            "sparsity": self.sparsity,
            "nonzeros": self.nonzeros,
            "bytes": self.bytes,
            "steps": self.steps,
            "latency": None if self.latency is None else self.latency.to_json(),
        }


@dataclass(frozen=True)
class Frontier:
    """The points of a sweep beside the dense control.

    front: names of the points that no other one beats. take: the name of the smallest (by latency, where it was
    measured) on the front within the budget, None where there is none; run: its best seed's folder.
    """

    metric: str
    goal: Goal
    budget: Budget
    control: Point
    points: tuple[Point, ...]
    front: frozenset[str] = field(init=False)
    take: str | None = field(init=False)
    run: str | None = field(init=False)

    def __post_init__(self) -> None:
        everyone = (self.control, *self.points)
        beaten = {each.name for each in everyone if any(beats(other, each, self.goal) for other in everyone)}
        within = [
            point
            for point in self.points
            if point.name not in beaten
            and self.budget.holds(point.validation.mean, self.control.validation.mean, self.goal)
        ]
        taken = min(within, key=_cost, default=None)
        object.__setattr__(self, "front", frozenset(each.name for each in everyone) - beaten)
        object.__setattr__(self, "take", None if taken is None else taken.name)
        object.__setattr__(self, "run", None if taken is None else _best_run(taken, self.goal))

    def loss(self, point: Point) -> float:
        """How much worse than the control on the validation split, as a share of its figure; below 0 is better."""
        control = self.control.validation.mean
        worse = point.validation.mean - control if self.goal == "min" else control - point.validation.mean
        return worse / abs(control) if control else math.inf if worse > 0 else 0.0


def beats(one: Point, other: Point, goal: Goal) -> bool:
    """Whether `one` is as good as `other` in metric, bytes and latency, and clearly better in one of them."""
    better, worse = _badness(one, goal), _badness(other, goal)
    sizes: list[tuple[float, float, float]] = [(one.bytes, other.bytes, SAME_BYTES)]
    if one.latency is not None and other.latency is not None:
        sizes.append((one.latency.us, other.latency.us, SAME_LATENCY))
    if better > worse or any(mine > (1 + same) * theirs for mine, theirs, same in sizes):
        return False
    return better < worse or any((1 + same) * mine < theirs for mine, theirs, same in sizes)


def unmatched(points: Sequence[Point]) -> list[str]:
    """Remarks where points of one target do not have the same nonzeros, or any two not the same steps."""
    remarks = []
    if len(steps := {point.steps for point in points}) > 1:
        remarks.append(f"not trained for the same steps: {', '.join(map(str, sorted(steps)))}")
    for target in dict.fromkeys(point.setting["target"] for point in points):
        counts = {point.name: point.nonzeros for point in points if point.setting["target"] == target}
        if len(set(counts.values())) > 1:
            told = ", ".join(f"{name} {count:,}" for name, count in counts.items())
            remarks.append(f"not the same nonzeros at {target:.0%}: {told}")
    return remarks


def _badness(point: Point, goal: Goal) -> float:
    """Smaller is better; a figure that is not finite is worst."""
    mean = point.validation.mean
    return math.inf if not math.isfinite(mean) else mean if goal == "min" else -mean


def _cost(point: Point) -> tuple[float, int]:
    return (math.inf if point.latency is None else point.latency.us), point.bytes


def _best_run(point: Point, goal: Goal) -> str:
    ranked = sorted(zip(point.validation.values, point.runs, strict=True))
    return ranked[0 if goal == "min" else -1][1]

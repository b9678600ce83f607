"""When weights go: a schedule is a frozen value that can be asked what happens at a step.

A step is one OPTIMIZER step, counted from 1. At an update the schedule answers with a cut: a threshold on the saliency
(everything below it goes) or an exact sparsity (the least salient share goes). Whatever the schedule, the cut at
`end_step` is the exact target, and nothing is cut after it.

Letters of the formulas: s sparsity, t step, q the target's quantile of the saliency of the dense model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, NamedTuple

from rnnprune.errors import UsageError
from rnnprune.pruning.options import READ_BY, ScheduleName, Timing, require_one_of


class Cut(NamedTuple):
    """What to drop at an update: a share, exactly, or without one everything below a threshold.

    Beside an exact share the threshold only says where the schedule alone would have cut.
    """

    sparsity: float | None = None
    threshold: float | None = None


@dataclass(frozen=True)
class Gradual:
    """Algorithm 1 and equation 1 of Narang et al., "Exploring Sparsity in Recurrent Neural Networks", ICLR 2017.

    For start < t < end, at every t divisible by `frequency`, with theta the start slope and phi the ramp slope:

        t <  ramp:  eps = theta (t - start + 1) / frequency
        t >= ramp:  eps = (theta (ramp - start + 1) + phi (t - ramp + 1)) / frequency
        theta = 2 q frequency / (2 (ramp - start) + 3 (end - ramp)),   phi = slope_ratio theta

    Two things are added to the paper's: the last cut, at `end_step`, is an exact top-k at the target (its threshold
    alone misses it), and q is read at the first update from the model that is being pruned, where the paper takes it
    from another, fully trained one.

    slope_ratio is 1.5 to 2 in the paper. Its listing masks a weight before it tests it, so a pruned one never
    returns (`revive=False`, literal). Its prose lets a weight return when an optimizer update pushes it over the
    threshold (`revive=True`): pruned weights then keep their gradients until `end_step`, and the updated value is
    tested before it is masked.

    aim: q is read anew at every update, so that the threshold follows weights that grow and ends at the target (slopes
    1 : 1.5); read once, it ended at 77 % instead of 90 (docs/results/studies/E.md) and left the rest to the last cut.
    """

    start_step: int
    ramp_step: int
    end_step: int
    frequency: int = 100
    slope_ratio: float = 1.5
    revive: bool = False
    aim: bool = False

    def __post_init__(self) -> None:
        _require_order(start_step=self.start_step, ramp_step=self.ramp_step, end_step=self.end_step)
        _require_updates(self.start_step, self.end_step, self.frequency)
        if not 1.0 <= self.slope_ratio <= 2.0:
            raise UsageError(f"slope_ratio must lie in 1 to 2 (the paper: 1.5 to 2), found {self.slope_ratio}")

    def slopes(self, q: float) -> tuple[float, float]:
        """(theta, phi): how far the threshold rises per update before and after the ramp step."""
        theta = 2 * q * self.frequency / (2 * (self.ramp_step - self.start_step) + 3 * (self.end_step - self.ramp_step))
        return theta, self.slope_ratio * theta

    def threshold_at(self, step: int, q: float) -> float:
        """eps of Algorithm 1, in the saliency's units; 0 until `start_step`, the last value after `end_step`."""
        if step <= self.start_step:
            return 0.0
        theta, phi = self.slopes(q)
        step = min(step, self.end_step)
        if step < self.ramp_step:
            return theta * (step - self.start_step + 1) / self.frequency
        return (theta * (self.ramp_step - self.start_step + 1) + phi * (step - self.ramp_step + 1)) / self.frequency

    def cut_at(self, step: int, target: float, q: float) -> Cut | None:
        """The cut to make at this step, or None."""
        if step == self.end_step:
            return Cut(sparsity=target, threshold=self.threshold_at(step, q))
        if self.start_step < step < self.end_step and step % self.frequency == 0:
            return Cut(threshold=self.threshold_at(step, q))
        return None


@dataclass(frozen=True)
class Cubic:
    """s_t = s_f (1 - (1 - (t - start) / (end - start))^3), exact at every update: Zhu & Gupta, arXiv 1710.01878."""

    revive: ClassVar[bool] = False
    aim: ClassVar[bool] = False

    start_step: int
    end_step: int
    frequency: int = 100

    def __post_init__(self) -> None:
        _require_order(start_step=self.start_step, end_step=self.end_step)
        _require_updates(self.start_step, self.end_step, self.frequency)

    def sparsity_at(self, step: int, target: float) -> float:
        """s_t; 0 until `start_step`, the target from `end_step` on."""
        progress = (step - self.start_step) / (self.end_step - self.start_step)
        return target * (1.0 - (1.0 - min(max(progress, 0.0), 1.0)) ** 3)

    def cut_at(self, step: int, target: float, q: float) -> Cut | None:  # noqa: ARG002 - one call for all schedules
        """The cut to make at this step, or None."""
        if step == self.end_step:
            return Cut(sparsity=target)
        if self.start_step < step < self.end_step and step % self.frequency == 0:
            return Cut(sparsity=self.sparsity_at(step, target))
        return None


@dataclass(frozen=True)
class Hard:
    """Everything at once, at one step: Yu, Seide, Li, Deng, ICASSP 2012."""

    revive: ClassVar[bool] = False
    aim: ClassVar[bool] = False

    end_step: int

    def __post_init__(self) -> None:
        if self.end_step < 1:
            raise UsageError(f"hard pruning needs a step of at least 1 to cut at, found {self.end_step}")

    @property
    def start_step(self) -> int:
        """The step of the only cut."""
        return self.end_step

    def cut_at(self, step: int, target: float, q: float) -> Cut | None:  # noqa: ARG002 - one call for all schedules
        """The cut to make at this step, or None."""
        return Cut(sparsity=target) if step == self.end_step else None


Schedule = Gradual | Cubic | Hard


def plan_schedule(name: ScheduleName, total_steps: int, timing: Timing | None = None) -> Schedule:
    """The named schedule, its steps derived from the planned total of optimizer steps.

    Raises UsageError when the schedule could not finish within `total_steps`. Hard pruning cuts at `timing.start`.
    """
    require_one_of("schedule", name, ScheduleName)
    timing = timing or Timing()
    shares: dict[str, float] = {
        part: getattr(timing, part) for part in ("start", "ramp", "end") if part in READ_BY[name]
    }
    if not all(0 <= share <= 1 for share in shares.values()) or _out_of_order(list(shares.values())):
        raise UsageError(
            f"a {name} schedule needs 0 <= {' < '.join(shares)} <= 1 as shares of all steps; found {_listed(shares)}"
        )
    steps = {f"{part}_step": round(share * total_steps) for part, share in shares.items()}
    if name == "hard":
        return Hard(max(steps["start_step"], 1))
    start, end = steps["start_step"], steps["end_step"]
    if _out_of_order(list(steps.values())) or end - start < 2:
        raise UsageError(f"{total_steps} steps are too few for this schedule: {_listed(steps)}; train longer")
    frequency = min(100, max(1, (end - start) // 30)) if timing.frequency is None else timing.frequency
    if name == "cubic":
        return Cubic(start, end, frequency)
    return Gradual(start, steps["ramp_step"], end, frequency, timing.slope_ratio, timing.revive, timing.aim)


def _out_of_order(values: Sequence[int | float]) -> bool:
    return any(a >= b for a, b in pairwise(values))


def _listed(values: Mapping[str, int | float]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _require_order(**steps: int) -> None:
    values = list(steps.values())
    if values[0] < 0 or _out_of_order(values):
        raise UsageError(f"a schedule needs 0 <= {' < '.join(steps)}; found {_listed(steps)}")


def _require_updates(start_step: int, end_step: int, frequency: int) -> None:
    if frequency < 1:
        raise UsageError(f"frequency must be at least 1 step between updates, found {frequency}")
    first_update = (start_step // frequency + 1) * frequency
    if first_update >= end_step:
        raise UsageError(
            f"no update falls between start_step {start_step} and end_step {end_step} "
            f"with a frequency of {frequency} steps; lower the frequency"
        )

"""`rnnprune sweep`: many pruning runs of one checkpoint, and what they say together: metric, bytes, latency.

Every cell is a run folder of its own inside the sweep's; a finished one is read, an interrupted one gone on with.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rnnprune.errors import GoalMissed, UsageError
from rnnprune.formats.atomic import write_atomic
from rnnprune.formats.lock import folder_lock
from rnnprune.formats.run_folder import dump_plain
from rnnprune.tasks.protocol import Task
from rnnprune.workflows.budget import Budget
from rnnprune.workflows.finetune_plan import FinetuneRequest, stem_of
from rnnprune.workflows.frontier import Frontier, Point, unmatched
from rnnprune.workflows.machine import describe_machine, set_threads
from rnnprune.workflows.made_run import Manifest, read_run
from rnnprune.workflows.side_by_side import Failures, Tell, make_all
from rnnprune.workflows.subject import find_task, open_subject
from rnnprune.workflows.sweep_grid import Cells, Grid, cells_of
from rnnprune.workflows.sweep_points import Made, Measuring, control_point, pruned_point

TWO_PERCENT = Budget(0.02, relative=True)
SUMMARY = "sweep.json"  # in the sweep's folder, from the first moment: what belongs to it


@dataclass(frozen=True)
class SweepRequest:
    """What a sweep is told.

    base: what all cells share; its `out`, target, schedule and saliency are not looked at. out None: `<stem>-sweep`.
    jobs: cells side by side; None: one per core. base.threads None: the cores shared out among them. rounds: of the
    timing; 0: no latency. budget: of the point to take.
    """

    base: FinetuneRequest
    grid: Grid = field(default_factory=Grid)
    out: Path | None = None
    jobs: int | None = None
    rounds: int = 20
    budget: Budget = TWO_PERCENT

    def within(self, budget: Budget) -> SweepRequest:
        """The same with another budget."""
        return replace(self, budget=budget)


@dataclass(frozen=True)
class Sweep:
    """The frontier. left_out: cells that could not be made, with why. remarks: what makes points hard to compare."""

    out: Path
    frontier: Frontier
    left_out: Mapping[str, str]
    remarks: tuple[str, ...]
    machine: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The contract of `--json`, and the content of sweep.json."""
        frontier = self.frontier

        def told(point: Point) -> dict[str, Any]:
            return {**point.to_json(), "loss": frontier.loss(point), "on_front": point.name in frontier.front}

        return {
            "sweep": str(self.out),
            "metric": {"name": frontier.metric, "goal": frontier.goal},
            "budget": str(frontier.budget),
            "control": told(frontier.control),
            "points": [told(point) for point in frontier.points],
            "take": None if frontier.take is None else {"name": frontier.take, "run": frontier.run},
            "left_out": dict(self.left_out),
            "remarks": list(self.remarks),
            "machine": dict(self.machine),
        }

    def require_take(self) -> None:
        """Raise GoalMissed where no point is within the budget."""
        if self.frontier.take is None:
            nearest = min(self.frontier.points, key=self.frontier.loss)
            raise GoalMissed(
                f"--max-loss {self.frontier.budget}: no point is within it; {nearest.name} is nearest and loses "
                f"{self.frontier.loss(nearest):.1%} of the control's {self.frontier.metric}; "
                "train longer, or add lower --targets"
            )


def ignore(_: str) -> None:
    """No one is told of the progress."""


def sweep(request: SweepRequest, tell: Tell = ignore) -> Sweep:
    """Make every cell that is not there yet, then measure. `tell` hears of every cell.

    Raises StorageError where another sweep is at work in the folder, UsageError where cells there were made with other
    settings; where no cell at all could be made, the reason of the first.
    """
    out = request.out or Path(f"{stem_of(request.base.checkpoint)}-sweep")
    jobs, threads = _jobs(request), set_threads(request.base.threads)
    base = request.base if request.base.threads else replace(request.base, threads=max(1, _cores() // jobs))
    cells = cells_of(request.grid, base, out)
    every = cells.all()
    subject = open_subject(base.checkpoint)
    task = find_task(subject, base.task, "sweep")

    def finished() -> dict[str, Manifest]:
        found = {name: read_run(cell, subject, task) for name, cell in every.items()}
        return {name: manifest for name, manifest in found.items() if manifest is not None}

    with folder_lock(out):
        _claim(out)
        done = finished()
        tell(f"{len(done)} of {len(every)} cells are done already" if done else f"{len(every)} cells")
        failures = make_all({name: cell for name, cell in every.items() if name not in done}, jobs, tell)
        manifests = finished()
        _require_both_kinds(cells, manifests, failures)
        frontier = _frontier(request, task, cells, manifests, threads, tell)
        left_out = {name: str(error) for name, error in failures.items()}
        found = Sweep(out, frontier, left_out, tuple(unmatched(frontier.points)), describe_machine())
        write_atomic(out / SUMMARY, dump_plain({"schema": 1, **found.to_json()}, indent=2).encode() + b"\n")
    return found


def _frontier(
    request: SweepRequest, task: Task, cells: Cells, manifests: Mapping[str, Manifest], threads: int, tell: Tell
) -> Frontier:
    measuring = Measuring(task.metric, request.rounds, threads)
    made = {setting: _finished(group, manifests) for setting, group in cells.pruned.items()}
    found = [pruned_point(setting, runs, measuring, tell) for setting, runs in made.items() if runs]
    points, stored = tuple(point for point, _ in found), [each for _, each in found]
    control = control_point(_finished(cells.controls, manifests), stored, measuring)
    return Frontier(task.metric, task.goal, request.budget, control, points)


def _finished(requests: Mapping[str, FinetuneRequest], manifests: Mapping[str, Manifest]) -> Made:
    found = {request.out: manifests[name] for name, request in requests.items() if name in manifests}
    return {folder: manifest for folder, manifest in found.items() if folder is not None}


def _require_both_kinds(cells: Cells, manifests: Mapping[str, Manifest], failures: Failures) -> None:
    """There is nothing to compare without a control, or without a pruned run: raise the first reason for that."""
    pruned = [name for group in cells.pruned.values() for name in group]
    for kind in (list(cells.controls), pruned):
        if not any(name in manifests for name in kind):
            raise next(failures[name] for name in kind if name in failures)


def _jobs(request: SweepRequest) -> int:
    if request.jobs is not None and request.jobs < 1:
        raise UsageError(f"--jobs must be at least 1, found {request.jobs}")
    return request.jobs or (1 if request.base.device != "cpu" else _cores())


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _claim(out: Path) -> None:
    """Raise UsageError for a folder that holds something else."""
    if (out / SUMMARY).exists():
        return
    if any(out.iterdir()):
        raise UsageError(f"{out} holds other files and no sweep; choose another --out, a new folder")
    write_atomic(out / SUMMARY, b"{}\n")

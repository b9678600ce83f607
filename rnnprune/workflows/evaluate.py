"""`rnnprune evaluate`: the task's metric of a run, a checkpoint or a sparse file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rnnprune.tasks.options import Goal, Split
from rnnprune.training import loop
from rnnprune.workflows.machine import find_device
from rnnprune.workflows.subject import TaskChoice, find_task, load_model, open_subject


@dataclass(frozen=True)
class Evaluation:
    """`value` is the figure named `metric`; `figures` holds all that the task gives; `engine` is what computed them."""

    path: Path
    split: Split
    metric: str
    goal: Goal
    value: float
    figures: dict[str, float]
    engine: str

    def to_json(self) -> dict[str, Any]:
        """The contract of `--json`."""
        return {
            "path": str(self.path),
            "split": self.split,
            "metric": self.metric,
            "goal": self.goal,
            "value": self.value,
            "figures": self.figures,
            "engine": self.engine,
        }


def evaluate(path: Path | None, choice: TaskChoice, split: Split = "test", device: str = "cpu") -> Evaluation:
    """Score one split. A sparse file is made dense in memory: the sparse engines are not wired in here yet."""
    subject = open_subject(path)
    task = find_task(subject, choice, "evaluate")
    model = load_model(task, subject).to(find_device(device))
    figures = loop.evaluate(model, task, split)
    return Evaluation(subject.path, split, task.metric, task.goal, figures[task.metric], figures, "torch-dense-fp32")

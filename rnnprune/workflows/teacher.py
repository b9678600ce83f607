"""`--distill`: whom the pruned model listens to while it learns its task, and how much."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from rnnprune.errors import UsageError
from rnnprune.formats.run_folder import sha256_of
from rnnprune.formats.sparse import is_sparse_file
from rnnprune.tasks.protocol import Task
from rnnprune.tasks.taught import Lesson, Taught
from rnnprune.workflows.subject import DISTILL, Subject, described_spec, fill_model, open_subject


class Distillation(NamedTuple):
    """teacher: a trained checkpoint of the same task, of any size; None: the one that is pruned."""

    teacher: Path | None = None
    lesson: Lesson = Lesson()

    def fingerprint(self, subject: Subject) -> list[Any]:
        """All of it that decides the result."""
        path = subject.checkpoint.path if self.teacher is None else open_subject(self.teacher).checkpoint.path
        return [sha256_of(path), *self.lesson]


def taught(task: Task, model: nn.Module, subject: Subject, distillation: Distillation) -> Task:
    """The task with the teacher's voice in its loss. model: the student, still as the checkpoint has it.

    Raises UsageError where there is no such teacher, or it speaks of other tokens or labels.
    """
    distillation.lesson.require_sense()
    if distillation.teacher is None:
        if subject.is_run or is_sparse_file(subject.checkpoint.path):
            raise UsageError(
                f"--distill: {subject.path} is pruned already: name the dense checkpoint with --teacher FILE"
            )
        return Taught(task, copy.deepcopy(model), distillation.lesson)
    found = open_subject(distillation.teacher)
    if (theirs := _classes(found.task_metadata)) != (ours := _classes(subject.task_metadata)):
        differing = sorted(name for name in theirs.keys() | ours.keys() if theirs.get(name) != ours.get(name))
        raise UsageError(
            f"--teacher {distillation.teacher}: another {', '.join(differing)} than {subject.path}; "
            "train both on the same data"
        )
    spec = described_spec(found.checkpoint.path, found.task_metadata, found.shapes)
    teacher = task.build_model() if spec is None else spec.build()
    fill_model(teacher, found)
    return Taught(task, teacher.to(next(model.parameters()).device), distillation.lesson)


def require_labels(spec: str | None) -> None:
    """Raise UsageError for the task that is nothing but distillation."""
    if spec == DISTILL:
        raise UsageError(
            f"--distill adds a teacher to a task with labels; --task {DISTILL} is one without, drop --distill"
        )


def _classes(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What the outputs of a built-in task's model stand for."""
    model = metadata.get("model", {})
    return {name: value for name, value in model.items() if name in ("vocabulary", "target_vocabulary", "labels")}

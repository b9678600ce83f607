"""`--distill`: whom the pruned model listens to while it learns its task, and how much."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from rnnprune.errors import UsageError
from rnnprune.formats.run_folder import sha256_of
from rnnprune.tasks.copies import copy_of
from rnnprune.tasks.options import DistillLevel
from rnnprune.tasks.protocol import Task
from rnnprune.tasks.taught import Lesson, Retellable, Taught
from rnnprune.workflows.subject import DISTILL, Subject, described_spec, fill_model, open_subject


class Distillation(NamedTuple):
    """teacher: a trained checkpoint of the same task, of any size; None: the one that is pruned.

    level: "word", the teacher's outputs for every word by the loss of `lesson`; "sequence", whole answers of its own.
    """

    teacher: Path | None = None
    lesson: Lesson = Lesson()
    level: DistillLevel = "word"

    def fingerprint(self, subject: Subject) -> list[Any]:
        """All of it that decides the result."""
        path = subject.checkpoint.path if self.teacher is None else open_subject(self.teacher).checkpoint.path
        return [sha256_of(path), *self.lesson, *([] if self.level == "word" else [self.level])]


def taught(task: Task, model: nn.Module, subject: Subject, distillation: Distillation) -> Task:
    """The task with the teacher's voice in its loss. model: the student, still as the checkpoint has it.

    Raises UsageError where there is no such teacher, or it speaks of other tokens or labels.
    """
    distillation.lesson.require_sense()
    if distillation.level == "word":
        return Taught(task, _teacher(task, model, subject, distillation.teacher), distillation.lesson)
    if distillation.lesson != Lesson():
        raise UsageError("--distill-temperature and --distill-weight belong to --distill-level word; drop them")
    if not isinstance(task, Retellable):
        raise UsageError(
            f"--distill-level sequence needs a task whose answers are sequences (seq2seq), or a method "
            f"retold(self, teacher); {type(task).__name__} has none: use --distill-level word"
        )
    return task.retold(_teacher(task, model, subject, distillation.teacher).eval())


def _teacher(task: Task, model: nn.Module, subject: Subject, path: Path | None) -> nn.Module:
    """The dense checkpoint itself, or another model of the same task. Raises as `taught` does."""
    if path is None:
        require_dense(subject)
        return copy_of(model)
    found = open_subject(path)
    require_dense(found)
    if (theirs := _classes(found.task_metadata)) != (ours := _classes(subject.task_metadata)):
        differing = sorted(name for name in theirs.keys() | ours.keys() if theirs.get(name) != ours.get(name))
        raise UsageError(
            f"--teacher {path}: another {', '.join(differing)} than {subject.path}; train both on the same data"
        )
    spec = described_spec(found.checkpoint.path, found.task_metadata, found.shapes)
    teacher = task.build_model() if spec is None else spec.build()
    fill_model(teacher, found)
    return teacher.to(next(model.parameters()).device)


def require_dense(teacher: Subject) -> None:
    """Raise UsageError for a teacher that is pruned."""
    if teacher.is_pruned:
        raise UsageError(f"--distill: {teacher.path} is pruned already: name the dense checkpoint with --teacher FILE")


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

"""What a path on the command line stands for: a run folder, a checkpoint, or a sparse file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from rnnprune.architecture import RecurrentStack, Shape, find_stacks, misfit
from rnnprune.errors import InputRefused, UsageError, printable
from rnnprune.formats.checkpoint import Checkpoint, read_checkpoint
from rnnprune.formats.run_folder import MANIFEST, MODEL, is_run_folder, newest_run
from rnnprune.tasks.loader import builtin_task, described_shapes, load_task
from rnnprune.tasks.protocol import Task

AGAIN = "it was edited or is damaged, train or export it again"
TASK_KEYS = ("task", "model", "data")  # what a built-in task left in the checkpoint's metadata


@dataclass(frozen=True)
class Subject:
    """`path` as given or found; `checkpoint` is the file in it."""

    path: Path
    checkpoint: Checkpoint

    @property
    def is_run(self) -> bool:
        """Whether this is a run folder."""
        return self.path != self.checkpoint.path

    @property
    def shapes(self) -> dict[str, Shape]:
        """Name -> shape of every tensor, tied ones under each of their names."""
        return {name: tuple(tensor.shape) for name, tensor in self.checkpoint.state_dict().items()}

    @property
    def stacks(self) -> list[RecurrentStack]:
        """The recurrent stacks recognised in it."""
        return find_stacks(self.shapes).stacks

    @property
    def task_metadata(self) -> dict[str, Any]:
        """What a built-in task wrote into the checkpoint, {} in anyone else's."""
        return {key: self.checkpoint.metadata[key] for key in TASK_KEYS if key in self.checkpoint.metadata}


def open_subject(path: Path | None) -> Subject:
    """Read a run folder or any file; without a path, the newest run in the current folder."""
    path = newest_run(Path()) if path is None else path
    return Subject(path, read_checkpoint(path / MODEL if is_run_folder(path) else path))


@dataclass(frozen=True)
class TaskChoice:
    """What the command line says about the task; None where it says nothing."""

    spec: str | None = None
    data: Path | None = None
    batch_size: int | None = None
    seq_len: int | None = None


def find_task(subject: Subject, choice: TaskChoice, command: str) -> Task:
    """The user's own task where one is named, else the built-in one that the checkpoint names.

    Raises UsageError with the ways to go on, filled in, when there is neither.
    """
    sizes = {"batch_size": choice.batch_size, "length": choice.seq_len}
    given = {name: size for name, size in sizes.items() if size is not None}
    if choice.spec is not None:
        if given and ":" in choice.spec:
            raise UsageError("--batch-size and --seq-len belong to built-in tasks; set them inside your own task")
        return load_task(choice.spec, choice.data)
    if subject.task_metadata:
        try:
            task = builtin_task(subject.task_metadata, choice.data, **given)
            problems = misfit(described_shapes(subject.task_metadata), subject.shapes)
        except InputRefused as error:
            raise InputRefused(f"{subject.checkpoint.path}: {error}") from error
        if problems:
            raise not_as_described(subject.checkpoint.path, problems)
        return task
    raise UsageError(_ways_on(subject, command))


def not_as_described(path: Path, problems: Sequence[str]) -> InputRefused:
    """A checkpoint whose weights are not those of the model that its own metadata describe."""
    return InputRefused(f"{path}: its weights are not those of the model that it describes: {_told(problems)}; {AGAIN}")


def notes_of(task: Task) -> tuple[str, ...]:
    """What a built-in task has to say about how its data was found."""
    return tuple(getattr(task, "notes", ()))


def load_model(task: Task, subject: Subject) -> nn.Module:
    """The task's model with the checkpoint's weights, strictly. UsageError lists every name and shape that differs."""
    model = task.build_model()
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    problems = misfit(expected, subject.shapes)
    if problems:
        raise UsageError(
            f"{subject.checkpoint.path} does not fit the task's model: {_told(problems)}; "
            "build_model() must give the very model that was saved"
        )
    model.load_state_dict(subject.checkpoint.state_dict(), strict=True)
    return model


def _told(problems: Sequence[str]) -> str:
    more = f" (and {len(problems) - 8} more)" if len(problems) > 8 else ""
    return f"{'; '.join(sorted(problems)[:8])}{more}"


def _ways_on(subject: Subject, command: str) -> str:
    layers = "; ".join(f"{stack.prefix or 'at the top'}: {stack.label}" for stack in subject.stacks)
    lines = [
        f"{subject.checkpoint.path} does not say which task it was trained for, so there is no loss and no metric.",
        f"It holds {layers}." if layers else "No recurrent layer was recognised in it.",
        f"  with a task of your own:  rnnprune {command} {subject.path} --task {_recorded_task(subject)}",
    ]
    if command == "finetune":
        lines.append(f"  without any data:         rnnprune prune {subject.path} --target 0.9")
    return "\n".join(lines)


def _recorded_task(subject: Subject) -> str:
    """The task that a run's manifest names: shown, never run unasked."""
    try:
        recorded = (
            json.loads((subject.path / MANIFEST).read_text(encoding="utf-8")).get("task") if subject.is_run else None
        )
    except (OSError, ValueError, AttributeError):
        recorded = None
    return printable(recorded) if isinstance(recorded, str) else "my_task.py:make"

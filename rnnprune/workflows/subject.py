"""What a path on the command line stands for: a run folder, a checkpoint, or a sparse file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from rnnprune.architecture import RecurrentStack, Shape, find_stacks, misfit
from rnnprune.errors import Diverged, InputRefused, UsageError, printable
from rnnprune.formats.checkpoint import Checkpoint, open_checkpoint, read_checkpoint
from rnnprune.formats.run_folder import MANIFEST, model_of, newest_run
from rnnprune.formats.sparse import is_sparse_file
from rnnprune.runtime.source import tie_problems
from rnnprune.tasks.builtin import builtin_spec, builtin_task
from rnnprune.tasks.copies import copy_of
from rnnprune.tasks.distill.inputs import read_inputs
from rnnprune.tasks.distill.stacks import build_stacks
from rnnprune.tasks.distill.task import BATCH_SIZE, LENGTH, DistillTask, Student, model_student, stacks_student
from rnnprune.tasks.loader import load_model_function, load_task
from rnnprune.tasks.protocol import Task
from rnnprune.tasks.source import DataOptions
from rnnprune.tasks.spec import ModelSpec

DISTILL = "distill"
TASK_KEYS = ("task", "model", "data", "batches")  # what a built-in task left in the checkpoint's metadata


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
    def is_pruned(self) -> bool:
        """Whether a tensor in it was pruned by rnnprune; a run with `--dense` prunes none."""
        recorded = self.checkpoint.metadata.get("choices")
        choices = recorded.values() if isinstance(recorded, dict) else ()
        pruned = any(isinstance(choice, dict) and choice.get("pruned") is True for choice in choices)
        return pruned or is_sparse_file(self.checkpoint.path)

    @property
    def shapes(self) -> dict[str, Shape]:
        """Name -> shape of every tensor, tied ones under each of their names."""
        return self.checkpoint.shapes

    @property
    def stacks(self) -> list[RecurrentStack]:
        """The recurrent stacks recognised in it."""
        return find_stacks(self.shapes).stacks

    @property
    def task_metadata(self) -> dict[str, Any]:
        """What a built-in task wrote into the checkpoint, {} in anyone else's."""
        return {key: self.checkpoint.metadata[key] for key in TASK_KEYS if key in self.checkpoint.metadata}


def open_subject(path: Path | None, *, lazily: bool = False) -> Subject:
    """Read a run folder or any file; without a path, the newest run in the current folder.

    lazily: its tensors stay unread, see `open_checkpoint`.
    """
    path = newest_run(Path()) if path is None else path
    read = open_checkpoint if lazily else read_checkpoint
    return Subject(path, read(model_of(path)))


@dataclass(frozen=True)
class Unlabelled:
    """What `--task distill` is told.

    inputs: the examples. teacher: the dense checkpoint; None: the one at hand. model: FILE.py:FUNCTION that gives the
    module; None: a built-in task's own, else the recurrent stacks alone.
    """

    inputs: Path | None = None
    teacher: Path | None = None
    model: str | None = None


@dataclass(frozen=True)
class TaskChoice:
    """What the command line says about the task: the user's own, or None, and where and how the data is read."""

    spec: str | None = None
    options: DataOptions = field(default_factory=DataOptions)
    unlabelled: Unlabelled = field(default_factory=Unlabelled)


def find_task(subject: Subject, choice: TaskChoice, command: str) -> Task:
    """The user's own task where one is named, else the built-in one that the checkpoint names.

    Raises UsageError with the ways to go on, filled in, when there is neither.
    """
    if choice.spec == DISTILL:
        return _distill_task(subject, choice)
    if choice.unlabelled != Unlabelled():
        raise UsageError(f"--inputs, --teacher and --model belong to --task {DISTILL}, --teacher to --distill as well")
    if choice.spec is not None:
        if ":" in choice.spec and replace(choice.options, data=None) != DataOptions():
            raise UsageError(
                "--batch-size, --seq-len and --skip-bad belong to built-in tasks; set them inside your own task"
            )
        return load_task(choice.spec, choice.options.data)
    if subject.task_metadata:
        described_spec(subject.checkpoint.path, subject.task_metadata, subject.shapes)
        try:
            return builtin_task(subject.task_metadata, choice.options)
        except InputRefused as error:
            raise InputRefused(f"{subject.checkpoint.path}: {error}") from error
    raise UsageError(_ways_on(subject, command))


def _distill_task(subject: Subject, choice: TaskChoice) -> Task:
    """Raises UsageError without inputs, and for a pruned model whose dense teacher is not named."""
    options, unlabelled = choice.options, choice.unlabelled
    if unlabelled.inputs is None:
        raise UsageError(f"--task {DISTILL} needs --inputs FILE: unlabelled inputs as .npy, .npz or .safetensors")
    if unlabelled.teacher is None and subject.is_pruned:
        raise UsageError(f"{subject.path} is pruned: name the dense checkpoint it came from with --teacher FILE")
    arrays = read_inputs(unlabelled.inputs)
    student = _student(subject, unlabelled.model, arrays, options.length)
    teacher = copy_of(student.module)
    dense = subject if unlabelled.teacher is None else open_subject(unlabelled.teacher)
    fill_model(teacher, dense)
    return DistillTask(student, teacher, batch_size=options.batch_size_or(BATCH_SIZE))


def _student(subject: Subject, model: str | None, arrays: dict[str, Tensor], length: int | None) -> Student:
    spec = described_spec(subject.checkpoint.path, subject.task_metadata, subject.shapes) if model is None else None
    is_whole = model is not None or spec is not None
    if length is not None and (is_whole or all(x.ndim != 2 for x in arrays.values())):
        raise UsageError("--seq-len cuts one long recording [T, I] into windows; these inputs are examples: drop it")
    if model is not None:
        return model_student(load_model_function(model), arrays)
    if spec is not None:
        return model_student(spec.build(), arrays)
    stacks = subject.stacks
    if not stacks:
        raise UsageError(f"no recurrent layer was recognised in {subject.path}; pass --model my_model.py:build")
    return stacks_student(
        build_stacks(subject.checkpoint.state_dict(), stacks), stacks, arrays, LENGTH if length is None else length
    )


def notes_of(task: Task) -> tuple[str, ...]:
    """What a built-in task has to say about how its data was found."""
    return tuple(getattr(task, "notes", ()))


def load_model(task: Task, subject: Subject) -> nn.Module:
    """The task's model with the checkpoint's weights, strictly. UsageError lists every name and shape that differs."""
    model = task.build_model()
    fill_model(model, subject)
    return model


def fill_model(model: nn.Module, subject: Subject) -> None:
    """Load the checkpoint's weights into a model, strictly, or raise as `load_model` does."""
    state, found = model.state_dict(keep_vars=True), subject.checkpoint.state_dict()
    problems = misfit({name: tuple(tensor.shape) for name, tensor in state.items()}, subject.shapes)
    if problems := problems or tie_problems(state, found):
        raise UsageError(
            f"{subject.checkpoint.path} does not fit the task's model: {_told(problems)}; "
            "build_model() must give the very model that was saved"
        )
    model.load_state_dict(found, strict=True)


def described_spec(path: Path, metadata: Mapping[str, object], shapes: Mapping[str, Shape]) -> ModelSpec | None:
    """The sizes of the built-in model that a file describes; None where it names no built-in task.

    Raises InputRefused where the file's own weights are not that model's: a few bytes could describe gigabytes.
    """
    try:
        spec = builtin_spec(metadata)
    except InputRefused as error:
        raise InputRefused(f"{path}: {error}") from error
    if spec is not None and (problems := misfit(spec.shapes(), shapes)):
        raise InputRefused(
            f"{path}: its weights are not those of the model that it describes: {_told(problems)}; "
            "it was edited or is damaged, train or export it again"
        )
    return spec


def _told(problems: Sequence[str]) -> str:
    more = f" (and {len(problems) - 8} more)" if len(problems) > 8 else ""
    return f"{'; '.join(sorted(problems)[:8])}{more}"


def require_finite(weights: Iterable[tuple[str, Tensor]], path: Path) -> None:
    """Raise Diverged when a weight is NaN or infinite: nothing can be trained or ranked from there."""
    if bad := [name for name, weight in weights if not weight.isfinite().all()]:
        raise Diverged(f"{path}: {printable(bad[0])} holds NaN or infinity; give a checkpoint from before it diverged")


def _ways_on(subject: Subject, command: str) -> str:
    layers = "; ".join(f"{stack.prefix or 'at the top'}: {stack.label}" for stack in subject.stacks)
    manifest = _manifest_of(subject)
    own = manifest.get("task")
    lines = [
        f"{subject.checkpoint.path} does not say which task it was trained for, so there is no loss and no metric.",
        f"It holds {layers}." if layers else "No recurrent layer was recognised in it.",
        f"  with unlabelled inputs:   rnnprune {command} {subject.path} --task {DISTILL} {_unlabelled_flags(manifest)}",
        f"  with a task of your own:  rnnprune {command} {subject.path} --task "
        f"{printable(own) if isinstance(own, str) and own != DISTILL else 'my_task.py:make'}",
    ]
    if command == "finetune":
        lines.append(f"  without any data:         rnnprune prune {subject.path} --target 0.9")
    return "\n".join(lines)


def _manifest_of(subject: Subject) -> dict[str, Any]:
    """What a run says of itself: shown, never run unasked; {} where it says nothing."""
    try:
        found = json.loads((subject.path / MANIFEST).read_text(encoding="utf-8")) if subject.is_run else {}
    except (OSError, ValueError, RecursionError):
        found = {}
    return found if isinstance(found, dict) else {}


def _unlabelled_flags(manifest: Mapping[str, Any]) -> str:
    """What goes with `--task distill`, filled in where the run was made so."""
    try:
        told = manifest["settings"]["task"]["unlabelled"] | {"teacher": manifest["checkpoint"]["path"]}
        flags = [f"--{name} {printable(told[name])}" for name in ("inputs", "model", "teacher") if told[name]]
    except (KeyError, TypeError):
        flags = []
    return " ".join(flags) if manifest.get("task") == DISTILL and flags else "--inputs FILE.npy"

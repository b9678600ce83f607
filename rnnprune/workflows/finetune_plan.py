"""What a fine-tuning run is told, and all that can be found wrong with it before any work is spent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rnnprune.errors import UsageError
from rnnprune.formats.run_folder import STAGE, STATE, refuse_finished, sha256_of
from rnnprune.formats.state_folder import Snapshot, require_room
from rnnprune.pruning.options import PruningOptions
from rnnprune.pruning.pruner import Pruner
from rnnprune.pruning.schedules import Schedule, plan_schedule
from rnnprune.tasks.protocol import Task
from rnnprune.training.loop import build_optimizer, planned_steps
from rnnprune.training.options import Keeping
from rnnprune.training.recipe import Recipe
from rnnprune.training.workers import Workers
from rnnprune.workflows.machine import find_device, require_precision
from rnnprune.workflows.resume import environment, fingerprint_of_data, plain_json, room_for_training, saved_state
from rnnprune.workflows.subject import (
    DISTILL,
    Subject,
    TaskChoice,
    find_task,
    load_model,
    open_subject,
    require_finite,
)
from rnnprune.workflows.teacher import Distillation, require_labels, taught


@dataclass(frozen=True)
class FinetuneRequest:
    """Everything a fine-tuning run is told.

    control_lr: the dense control's own peak learning rate, where the pruned run's would harm it. out None:
    `<stem>-s<target in percent>` in the current folder. keeping: whether a run that was interrupted there
    is gone on with, and how often it is saved. distill: with a teacher, of this run's own model, never of the control
    beside it. dense: prune nothing, a dense control as a run of its own.
    """

    checkpoint: Path
    task: TaskChoice = field(default_factory=TaskChoice)
    pruning: PruningOptions = field(default_factory=PruningOptions)
    recipe: Recipe = field(default_factory=Recipe)
    distill: Distillation | None = None
    dense: bool = False
    control: bool = False
    control_lr: float | None = None
    out: Path | None = None
    overwrite: bool = False
    keeping: Keeping = field(default_factory=Keeping)
    device: str = "cpu"
    threads: int | None = None


@dataclass(frozen=True)
class Plan:
    """Everything that can be found wrong before any work is spent.

    pruner: None where nothing is pruned. saved: the state to go on from. identity: what is saved with every state, to
    know the run by. learned: what the pruned model learns, the task or the task with a teacher.
    """

    subject: Subject
    task: Task
    learned: Task
    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    pruner: Pruner | None
    total_steps: int
    run: Path
    workers: Workers
    saved: Snapshot | None
    identity: Mapping[str, Any]


def prepare(request: FinetuneRequest, workers: Workers) -> Plan:
    """Read the checkpoint and build all that is trained, from the start or to go on from a saved state."""
    options = request.pruning
    check(request)
    run = request.out or default_run(request.checkpoint, 0.0 if request.dense else options.target)
    if workers.is_first:  # who alone writes
        refuse_finished(run, overwrite=request.overwrite)
    subject = open_subject(request.checkpoint)
    task = find_task(subject, request.task, "finetune")
    device = find_device(request.device)
    model = load_model(task, subject).to(device)
    require_finite(model.named_parameters(), subject.checkpoint.path)
    fingerprint = fingerprint_of(request, subject, task)
    saved = saved_state(run / STAGE / STATE, request.keeping.resume, fingerprint, workers)
    total_steps = planned_steps(task, request.recipe, workers) if saved is None else saved.document["total_steps"]
    # A dense run needs none; hard always fits, however few the steps.
    schedule = plan_schedule("hard" if request.dense else options.schedule, total_steps, options.timing)
    optimizer = build_optimizer(model, request.recipe)
    pruner = None if request.dense else _pruner(options, model, optimizer, schedule, workers)
    if workers.is_first:
        require_room(run, room_for_training(model, run / STAGE / STATE), "this run and the states it saves")
    # A teacher may have a whole training set to answer: last, when nothing else is refused any more.
    learned = task if request.distill is None else taught(task, model, subject, request.distill)
    identity = {
        "fingerprint": fingerprint,
        "environment": environment(request.task.spec, device, workers),
        "total_steps": total_steps,
    }
    return Plan(
        subject,
        task,
        learned,
        model,
        optimizer,
        schedule,
        pruner,
        total_steps,
        run,
        workers,
        saved,
        plain_json(identity),
    )


def _pruner(
    options: PruningOptions,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    workers: Workers,
) -> Pruner:
    return Pruner(
        model,
        optimizer,
        schedule,
        target=options.target,
        saliency=options.saliency,
        selection=options.selection,
        share=workers.share,
    )


def fingerprint_of(request: FinetuneRequest, subject: Subject, task: Task) -> dict[str, Any]:
    """All that decides the result; the paths do not, what they lead to does."""
    unlabelled = request.task.unlabelled
    return {
        "checkpoint": sha256_of(subject.checkpoint.path),
        "data": fingerprint_of_data(task, request.task.options.data),
        "task": [request.task.spec, unlabelled.model, asdict(replace(request.task.options, data=None))],
        "inputs": None if unlabelled.inputs is None else sha256_of(unlabelled.inputs),
        "teacher": None if unlabelled.teacher is None else sha256_of(unlabelled.teacher),
        "pruning": None if request.dense else asdict(request.pruning.settled()),
        "distill": None if request.distill is None else request.distill.fingerprint(subject),
        "recipe": asdict(request.recipe),
        "control": request.control,
        "control_lr": request.control_lr,
    }


def resolved(request: FinetuneRequest, task: Task) -> FinetuneRequest:
    """The request with the scope of its saliency and the sizes of batches that our own task took, where it left them
    open."""
    request = replace(request, pruning=request.pruning.settled())
    if request.task.spec not in (None, DISTILL):
        return request
    options = request.task.options
    sizes = {name: getattr(task, name, getattr(options, name)) for name in ("batch_size", "length")}
    return replace(request, task=replace(request.task, options=replace(options, **sizes)))


def default_run(checkpoint: Path, target: float) -> Path:
    """`<stem>-s<target in percent>` in the current folder; `<stem>-dense` where nothing is pruned."""
    return Path(f"{stem_of(checkpoint)}-s{target * 100:g}" if target else f"{stem_of(checkpoint)}-dense")


def stem_of(checkpoint: Path) -> str:
    """What the folders that come of a checkpoint are named after."""
    found = checkpoint.resolve()
    return found.name if found.is_dir() else found.stem


def check(request: FinetuneRequest) -> None:
    """Raise UsageError for settings that cannot go together."""
    require_precision(request.recipe.precision, request.device)
    if request.dense and request.control:
        raise UsageError("--dense is the control as a run of its own: drop --control")
    if request.distill is not None:
        require_labels(request.task.spec)
    if request.control_lr is not None and not (request.control and 0 < request.control_lr < math.inf):
        raise UsageError("--control-lr goes with --control, and must be above 0")

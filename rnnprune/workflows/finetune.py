"""`rnnprune finetune`: gradual pruning of a trained dense checkpoint, into a run folder."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from rnnprune.errors import UsageError
from rnnprune.formats.lock import folder_lock
from rnnprune.formats.run_folder import METRICS, STAGE, STATE, Unfinished, open_stage, sha256_of
from rnnprune.formats.state_folder import Snapshot, StateFolder, require_room
from rnnprune.pruning.options import PruningOptions
from rnnprune.pruning.pruner import Pruner
from rnnprune.pruning.schedules import Schedule, plan_schedule
from rnnprune.tasks.options import Goal, Split
from rnnprune.tasks.protocol import Task
from rnnprune.training.keeper import Keeper, RunParts
from rnnprune.training.loop import StepRecord, build_optimizer, evaluate, planned_steps
from rnnprune.training.options import SAVE_EVERY, Resume, SaveEvery
from rnnprune.training.recipe import Recipe
from rnnprune.training.workers import Workers, joined_workers
from rnnprune.workflows.curve import Curve, NoCurve
from rnnprune.workflows.machine import find_device, set_threads
from rnnprune.workflows.resume import (
    environment,
    fingerprint_of_data,
    notes_of_resuming,
    plain_json,
    room_for_training,
    saved_state,
)
from rnnprune.workflows.run_output import Story, write_run
from rnnprune.workflows.subject import (
    Subject,
    TaskChoice,
    find_task,
    load_model,
    notes_of,
    open_subject,
    require_finite,
)

Phase = Literal["control", "pruning"]
Figures = dict[str, float]


@dataclass(frozen=True)
class FinetuneRequest:
    """Everything a fine-tuning run is told.

    control_lr: the dense control's own peak learning rate, where the pruned run's would harm it. out None:
    `<stem>-s<target in percent>` in the current folder. resume: "auto" goes on with a run that was interrupted there.
    """

    checkpoint: Path
    task: TaskChoice = field(default_factory=TaskChoice)
    pruning: PruningOptions = field(default_factory=PruningOptions)
    recipe: Recipe = field(default_factory=Recipe)
    control: bool = False
    control_lr: float | None = None
    out: Path | None = None
    overwrite: bool = False
    resume: Resume = "auto"
    save_every: SaveEvery = SAVE_EVERY
    device: str = "cpu"
    threads: int | None = None


@dataclass(frozen=True)
class Metric:
    """One figure before and after; `dense_control` is the dense model fine-tuned for the same steps."""

    name: str
    goal: Goal
    dense: float
    dense_control: float | None
    sparse: float


@dataclass(frozen=True)
class FinetuneResult:
    """What a fine-tuning run left behind."""

    run: Path
    target: float
    achieved: float
    per_tensor: dict[str, float]
    metric: Metric
    steps: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """The contract of `--json`."""
        return {
            "run": str(self.run),
            "sparsity": {
                "target": self.target,
                "achieved": self.achieved,
                "per_tensor": self.per_tensor,
            },
            "metric": asdict(self.metric),
            "steps": self.steps,
            "seconds": self.seconds,
        }


class Observer:
    """What a caller may watch while the run goes on; override what is of interest."""

    def step(self, phase: Phase, record: StepRecord) -> None:
        """After every optimizer step."""

    def note(self, text: str) -> None:
        """Something about the data that a person should know."""

    def figures(self, label: str, figures: Figures) -> None:
        """After scoring "dense", "dense_control" or "sparse" on the test split."""


@dataclass(frozen=True)
class _Plan:
    """Everything that can be found wrong before any work is spent.

    saved: the state to go on from. identity: what is saved with every state, to know the run by.
    """

    subject: Subject
    task: Task
    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    pruner: Pruner
    total_steps: int
    run: Path
    workers: Workers
    saved: Snapshot | None
    identity: Mapping[str, Any]


def finetune(request: FinetuneRequest, observer: Observer | None = None) -> FinetuneResult | None:
    """Prune while training, score the dense model before and the sparse one after, and write the run folder.

    A run that was interrupted there is gone on with. None in every process but the first, which alone writes and tells.
    """
    set_threads(request.threads)
    _check(request)
    with joined_workers(request.device) as workers:
        if workers.is_first:
            return _finetune(request, observer or Observer(), workers)
        _train(_prepare(request, workers), request, Observer(), time.perf_counter())
        return None


def _finetune(request: FinetuneRequest, observer: Observer, workers: Workers) -> FinetuneResult:
    began = time.perf_counter()
    plan = _prepare(request, workers)
    with folder_lock(plan.run):
        unfinished: Unfinished = "keep" if request.resume == "auto" else "drop"
        stage = open_stage(plan.run, overwrite=request.overwrite, unfinished=unfinished)
        for text in notes_of(plan.task):
            observer.note(text)
        figures = _train(plan, request, observer, began)
        metric, seconds = _metric(plan.task, figures), _seconds(began, plan.saved)
        pruning = {**asdict(request.pruning), "schedule": {"name": request.pruning.schedule, **asdict(plan.schedule)}}
        story = Story(
            subject=plan.subject,
            task=request.task.spec or plan.subject.task_metadata["task"],
            pruning=pruning,
            settings=asdict(request),
            metric=asdict(metric),
            figures=figures,
            seconds=seconds,
        )
        written = write_run(plan.run, stage, plan.model, plan.pruner.choices, story)
    target = request.pruning.target
    return FinetuneResult(plan.run, target, written.achieved, written.per_tensor, metric, plan.total_steps, seconds)


def _prepare(request: FinetuneRequest, workers: Workers) -> _Plan:
    options = request.pruning
    subject = open_subject(request.checkpoint)
    task = find_task(subject, request.task, "finetune")
    device = find_device(request.device)
    model = load_model(task, subject).to(device)
    require_finite(model, subject.checkpoint.path)
    run = request.out or default_run(request.checkpoint, options.target)
    fingerprint = _fingerprint(request, subject, task)
    saved = saved_state(run / STAGE / STATE, request.resume, fingerprint, workers)
    total_steps = planned_steps(task, request.recipe, workers) if saved is None else saved.document["total_steps"]
    schedule = plan_schedule(options.schedule, total_steps, options.timing)
    optimizer = build_optimizer(model, request.recipe)
    pruner = Pruner(
        model,
        optimizer,
        schedule,
        target=options.target,
        saliency=options.saliency,
        selection=options.selection,
        share=workers.share,
    )
    require_room(run, room_for_training(model), "this run and the states it saves")
    identity = {
        "fingerprint": fingerprint,
        "environment": environment(request.task.spec, device, workers),
        "total_steps": total_steps,
    }
    return _Plan(
        subject, task, model, optimizer, schedule, pruner, total_steps, run, workers, saved, plain_json(identity)
    )


def _fingerprint(request: FinetuneRequest, subject: Subject, task: Task) -> dict[str, Any]:
    """All that decides the result; the paths do not, what they lead to does."""
    return {
        "checkpoint": sha256_of(subject.checkpoint.path),
        "data": fingerprint_of_data(task, request.task.data),
        "task": {**asdict(request.task), "data": None},
        "pruning": asdict(request.pruning),
        "recipe": asdict(request.recipe),
        "control": request.control,
        "control_lr": request.control_lr,
    }


def _train(
    plan: _Plan, request: FinetuneRequest, observer: Observer, began: float
) -> dict[str, dict[Split, Figures]]:
    """Train the control, then the pruned model; the figures of both and of the model as it came."""
    model, task, saved, total_steps = plan.model, plan.task, plan.saved, plan.total_steps
    figures: dict[str, dict[Split, Figures]] = {} if saved is None else dict(saved.document["figures"])
    curve = Curve(plan.run / STAGE / METRICS, saved) if plan.workers.is_first else NoCurve()
    folder = StateFolder(plan.run / STAGE / STATE)

    def score(model: nn.Module, label: str) -> None:
        if label not in figures:
            figures[label] = _score(model, task, observer, label) if plan.workers.is_first else {}

    def about() -> dict[str, Any]:
        told = {"figures": figures, "seconds": _seconds(began, saved), "metrics_bytes": curve.sync()}
        return {**plan.identity, **told}

    def watch(phase: Phase, record: StepRecord) -> None:
        observer.step(phase, record)
        curve.write(phase, record)

    keeper = Keeper(folder, request.save_every, saved, about, plan.workers)
    for text in notes_of_resuming(saved, plan.identity, folder.path):
        observer.note(text)
    with closing(curve), keeper.telling_what_is_saved():
        score(model, "dense")
        if request.control and "dense_control" not in figures:
            control = copy.deepcopy(model)
            recipe = replace(request.recipe, lr=request.recipe.lr if request.control_lr is None else request.control_lr)
            dense = RunParts(control, task, recipe, build_optimizer(control, recipe), total_steps)
            keeper.train("control", dense, partial(watch, "control"))
            score(control, "dense_control")
        pruned = RunParts(model, task, request.recipe, plan.optimizer, total_steps, plan.pruner)
        keeper.train("pruning", pruned, partial(watch, "pruning"))
        plan.pruner.close()
        score(model, "sparse")
    return figures


def _seconds(began: float, saved: Snapshot | None) -> float:
    """Of the whole run, the starts that were interrupted included."""
    return time.perf_counter() - began + (0.0 if saved is None else saved.document["seconds"])


def default_run(checkpoint: Path, target: float) -> Path:
    """`<stem>-s<target in percent>` in the current folder."""
    found = checkpoint.resolve()
    return Path(f"{found.name if found.is_dir() else found.stem}-s{target * 100:g}")


def _check(request: FinetuneRequest) -> None:
    if request.control_lr is not None and not (request.control and 0 < request.control_lr < math.inf):
        raise UsageError("--control-lr goes with --control, and must be above 0")
    if request.pruning.saliency == "fisher" and request.recipe.optimizer == "sgd":
        raise UsageError(
            "--saliency fisher reads Adam's second moments and --optimizer sgd keeps none; "
            "use --saliency magnitude, or --optimizer adam"
        )


def _score(model: nn.Module, task: Task, observer: Observer, label: str) -> dict[Split, Figures]:
    splits: tuple[Split, ...] = ("validation", "test")
    figures = {split: evaluate(model, task, split) for split in splits}
    observer.figures(label, figures["test"])
    return figures


def _metric(task: Task, figures: dict[str, dict[Split, Figures]]) -> Metric:
    test = {label: splits["test"][task.metric] for label, splits in figures.items()}
    return Metric(task.metric, task.goal, test["dense"], test.get("dense_control"), test["sparse"])



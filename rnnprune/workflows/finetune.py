"""`rnnprune finetune`: gradual pruning of a trained dense checkpoint, into a run folder."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TextIO

import torch
from torch import nn

from rnnprune.errors import StorageError, UsageError
from rnnprune.formats.run_folder import METRICS, dump_plain, open_stage
from rnnprune.pruning.options import PruningOptions
from rnnprune.pruning.pruner import Pruner
from rnnprune.pruning.schedules import Schedule, plan_schedule
from rnnprune.tasks.options import Goal, Split
from rnnprune.tasks.protocol import Task
from rnnprune.training.loop import StepRecord, build_optimizer, evaluate, planned_steps, train
from rnnprune.training.recipe import Recipe
from rnnprune.workflows.machine import find_device, set_threads
from rnnprune.workflows.run_output import Story, write_run
from rnnprune.workflows.subject import Subject, TaskChoice, find_task, load_model, notes_of, open_subject

Phase = Literal["control", "pruning"]
Figures = dict[str, float]
CURVE_POINTS = 200  # training lines in metrics.jsonl, beside one for every mask update


@dataclass(frozen=True)
class FinetuneRequest:
    """Everything a fine-tuning run is told.

    control_lr: the dense control's own peak learning rate, where the pruned run's would harm it. out None:
    `<stem>-s<target in percent>` in the current folder.
    """

    checkpoint: Path
    task: TaskChoice = field(default_factory=TaskChoice)
    pruning: PruningOptions = field(default_factory=PruningOptions)
    recipe: Recipe = field(default_factory=Recipe)
    control: bool = False
    control_lr: float | None = None
    out: Path | None = None
    overwrite: bool = False
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
    """Everything that can be found wrong before any work is spent."""

    subject: Subject
    task: Task
    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    pruner: Pruner
    total_steps: int
    run: Path


def finetune(request: FinetuneRequest, observer: Observer | None = None) -> FinetuneResult:
    """Prune while training, score the dense model before and the sparse one after, and write the run folder."""
    began = time.perf_counter()
    plan = _prepare(request)
    stage = open_stage(plan.run, overwrite=request.overwrite)
    observer = observer or Observer()
    for text in notes_of(plan.task):
        observer.note(text)
    figures = _train(plan, request, observer, stage / METRICS)
    metric = _metric(plan.task, figures)
    seconds = time.perf_counter() - began
    story = Story(
        subject=plan.subject,
        task=request.task.spec or plan.subject.task_metadata["task"],
        pruning={**asdict(request.pruning), "schedule": {"name": request.pruning.schedule, **asdict(plan.schedule)}},
        settings=asdict(request),
        metric=asdict(metric),
        figures=figures,
        seconds=seconds,
    )
    written = write_run(plan.run, stage, plan.model, plan.pruner.choices, story)
    return FinetuneResult(
        plan.run, request.pruning.target, written.achieved, written.per_tensor, metric, plan.total_steps, seconds
    )


def _prepare(request: FinetuneRequest) -> _Plan:
    options = request.pruning
    set_threads(request.threads)
    _check(request)
    subject = open_subject(request.checkpoint)
    task = find_task(subject, request.task, "finetune")
    model = load_model(task, subject).to(find_device(request.device))
    total_steps = planned_steps(task, request.recipe)
    schedule = plan_schedule(options.schedule, total_steps, options.timing)
    optimizer = build_optimizer(model, request.recipe)
    pruner = Pruner(
        model, optimizer, schedule, target=options.target, saliency=options.saliency, selection=options.selection
    )
    run = request.out or default_run(request.checkpoint, options.target)
    return _Plan(subject, task, model, optimizer, schedule, pruner, total_steps, run)


def _train(plan: _Plan, request: FinetuneRequest, observer: Observer, metrics: Path) -> dict[str, dict[Split, Figures]]:
    """Train the control, then the pruned model; the figures of both and of the model as it came."""
    model, task = plan.model, plan.task
    control = copy.deepcopy(model) if request.control else None
    figures = {"dense": _score(model, task, observer, "dense")}
    with _open_metrics(metrics) as curve:
        if control is not None:
            recipe = replace(request.recipe, lr=request.recipe.lr if request.control_lr is None else request.control_lr)
            for record in train(control, task, recipe, build_optimizer(control, recipe), plan.total_steps):
                _observe("control", record, curve, observer)
            figures["dense_control"] = _score(control, task, observer, "dense_control")
        for record in train(model, task, request.recipe, plan.optimizer, plan.total_steps, plan.pruner):
            _observe("pruning", record, curve, observer)
    plan.pruner.close()
    figures["sparse"] = _score(model, task, observer, "sparse")
    return figures


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


def _open_metrics(path: Path) -> TextIO:
    with _writing(path):
        return path.open("w", encoding="utf-8")


@contextmanager
def _writing(path: str | Path) -> Iterator[None]:
    """Around the writing alone: an OSError of the task's own code is not a full disk."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}; free some space") from error


def _observe(phase: Phase, record: StepRecord, curve: TextIO, observer: Observer) -> None:
    """Tell the observer, and write the curve: every mask update, and about CURVE_POINTS steps besides."""
    observer.step(phase, record)
    if record.update is None and record.step % max(1, record.total_steps // CURVE_POINTS):
        return
    line: dict[str, Any] = {
        "phase": phase,
        "step": record.step,
        "loss": record.loss,
        "lr": record.learning_rate,
        "sparsity": record.sparsity,
    }
    if record.update is not None:
        line["groups"] = {name: group._asdict() for name, group in record.update.groups.items()}
    with _writing(curve.name):
        curve.write(dump_plain(line) + "\n")
        curve.flush()

"""`rnnprune finetune`: gradual pruning of a trained dense checkpoint, into a run folder."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from torch import nn

from rnnprune.formats.lock import folder_lock
from rnnprune.formats.run_folder import METRICS, STAGE, STATE, Unfinished, open_stage
from rnnprune.formats.state_folder import StateFolder
from rnnprune.tasks.copies import copy_of
from rnnprune.tasks.options import Goal, Split
from rnnprune.tasks.protocol import Task
from rnnprune.training.keeper import Keeper, RunParts
from rnnprune.training.loop import StepRecord, build_optimizer, evaluate
from rnnprune.training.random_state import seed_all
from rnnprune.training.workers import Workers, joined_workers
from rnnprune.workflows.curve import Curve, NoCurve
from rnnprune.workflows.finetune_plan import FinetuneRequest as FinetuneRequest
from rnnprune.workflows.finetune_plan import Plan, prepare, resolved
from rnnprune.workflows.machine import set_threads
from rnnprune.workflows.resume import notes_of_resuming, seconds_of_run
from rnnprune.workflows.run_output import Story, write_run
from rnnprune.workflows.subject import notes_of

Phase = Literal["control", "pruning"]
Figures = dict[str, float]

UNPRUNED: Mapping[str, Any] = {"target": 0.0, "schedule": {"name": "none"}, "saliency": "none"}


@dataclass(frozen=True)
class Metric:
    """One figure before and after; `dense_control` is the dense model fine-tuned for the same steps.

    sparse: of the model that the run holds, the control itself where nothing was pruned.
    """

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


def finetune(request: FinetuneRequest, observer: Observer | None = None) -> FinetuneResult | None:
    """Prune while training, score the dense model before and the sparse one after, and write the run folder.

    A run that was interrupted there is gone on with. None in every process but the first, which alone writes and tells.
    """
    set_threads(request.threads)
    with joined_workers(request.device) as workers:
        if workers.is_first:
            return _finetune(request, observer or Observer(), workers)
        _train(prepare(request, workers), request, Observer(), time.perf_counter())
        return None


def _finetune(request: FinetuneRequest, observer: Observer, workers: Workers) -> FinetuneResult:
    began = time.perf_counter()
    plan = prepare(request, workers)
    with folder_lock(plan.run):
        unfinished: Unfinished = "keep" if request.keeping.resume == "auto" else "drop"
        if plan.saved is None and unfinished == "keep" and (plan.run / STAGE).is_dir():
            observer.note(f"{plan.run} was begun before and nothing was saved of it (--save-every); starting anew")
        stage = open_stage(plan.run, overwrite=request.overwrite, unfinished=unfinished)
        for text in notes_of(plan.task):
            observer.note(text)
        figures = _train(plan, request, observer, began)
        metric, seconds = _metric(plan.task, figures), seconds_of_run(began, plan.saved)
        settled = resolved(request, plan.task)
        schedule = {"name": request.pruning.schedule, **asdict(plan.schedule)}
        pruning = UNPRUNED if request.dense else {**asdict(settled.pruning), "schedule": schedule}
        story = Story(
            subject=plan.subject,
            task=request.task.spec or plan.subject.task_metadata["task"],
            pruning=pruning,
            settings=asdict(settled),
            metric=asdict(metric),
            figures=figures,
            seconds=seconds,
            steps=plan.total_steps,
            fingerprint=plan.identity["fingerprint"],
        )
        choices = () if plan.pruner is None else plan.pruner.choices
        written = write_run(plan.run, stage, plan.model, choices, story)
    target = 0.0 if request.dense else request.pruning.target
    return FinetuneResult(plan.run, target, written.achieved, written.per_tensor, metric, plan.total_steps, seconds)


def _train(plan: Plan, request: FinetuneRequest, observer: Observer, began: float) -> dict[str, dict[Split, Figures]]:
    """Train the control, then the pruned model; the figures of both and of the model as it came."""
    model, task, saved, total_steps = plan.model, plan.task, plan.saved, plan.total_steps
    figures: dict[str, dict[Split, Figures]] = {} if saved is None else dict(saved.document["figures"])
    curve = Curve(plan.run / STAGE / METRICS, saved) if plan.workers.is_first else NoCurve()
    folder = StateFolder(plan.run / STAGE / STATE)

    def score(model: nn.Module, label: str) -> None:
        if label not in figures:
            figures[label] = _score(model, task, observer, label) if plan.workers.is_first else {}

    def about() -> dict[str, Any]:
        told = {"figures": figures, "seconds": seconds_of_run(began, saved), "metrics_bytes": curve.sync()}
        return {**plan.identity, **told}

    def watch(phase: Phase, record: StepRecord) -> None:
        observer.step(phase, record)
        curve.write(phase, record)

    keeper = Keeper(folder, request.keeping.save_every, saved, about, plan.workers)
    for text in notes_of_resuming(saved, plan.identity, folder.path):
        observer.note(text)
    seed_all(request.recipe.seed)
    with closing(curve), keeper.telling_what_is_saved():
        score(model, "dense")
        if request.control and "dense_control" not in figures:
            control = copy_of(model)
            recipe = replace(request.recipe, lr=request.recipe.lr if request.control_lr is None else request.control_lr)
            dense = RunParts(control, task, recipe, build_optimizer(control, recipe), total_steps)
            keeper.train("control", dense, partial(watch, "control"))
            score(control, "dense_control")
        pruned = RunParts(model, plan.learned, request.recipe, plan.optimizer, total_steps, plan.pruner)
        phase: Phase = "control" if plan.pruner is None else "pruning"
        keeper.train(phase, pruned, partial(watch, phase))
        if plan.pruner is not None:
            plan.pruner.close()
        score(model, "dense_control" if plan.pruner is None else "sparse")
    return figures


def _score(model: nn.Module, task: Task, observer: Observer, label: str) -> dict[Split, Figures]:
    splits: tuple[Split, ...] = ("validation", "test")
    figures = {split: evaluate(model, task, split) for split in splits}
    observer.figures(label, figures["test"])
    return figures


def _metric(task: Task, figures: dict[str, dict[Split, Figures]]) -> Metric:
    test = {label: splits["test"][task.metric] for label, splits in figures.items()}
    last = test["sparse"] if "sparse" in test else test["dense_control"]
    return Metric(task.metric, task.goal, test["dense"], test.get("dense_control"), last)

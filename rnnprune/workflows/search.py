"""`finetune --max-loss 1%`: the highest sparsity at which the model is still that near to its dense control.

The sparsity is raised in stages, each one a run that goes on from the last model that was good enough; a stage that is
not leaves that model as the one to fall back to, and the gap between the two is halved. Beside every stage the dense
control is trained on for as many steps, and the best control so far is what the model is held against: by the
validation split. The test split is scored beside it and decides nothing.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from rnnprune.errors import GoalMissed, UsageError
from rnnprune.formats.lock import folder_lock
from rnnprune.formats.run_folder import METRICS, Unfinished, open_stage
from rnnprune.pruning.selection import Choice
from rnnprune.tasks.options import Split
from rnnprune.workflows.budget import Budget
from rnnprune.workflows.finetune import FinetuneResult, Metric, Observer
from rnnprune.workflows.finetune_plan import FinetuneRequest, check, resolved, stem_of
from rnnprune.workflows.made_run import Manifest, make_run, read_run
from rnnprune.workflows.run_output import Story, write_tensors
from rnnprune.workflows.subject import DISTILL, find_task, open_subject
from rnnprune.workflows.teacher import require_dense

LADDER = (0.75, 0.875, 0.9375, 0.96875, 0.984375)  # a half of the weights goes from one to the next
LOWEST = 0.5  # below, a sparse file is larger than a dense one
HALVINGS = 2  # of the gap between what was good enough and what was not: to a fifth of the nonzeros
TRIES = "tries"
ANEW = "pass --resume never, or choose another --out"


class Try(NamedTuple):
    """One stage. validation: the figure reached, NaN where a matrix would be left with nothing; limit: what it was held
    against; steps: since the checkpoint.
    """

    sparsity: float
    validation: float
    limit: float
    steps: int
    passed: bool


@dataclass(frozen=True)
class Found:
    """The run that was taken, every try on the way to it, and after how many steps the control was that it is held
    against: fewer than the run's where later tries were sparser and no worse."""

    result: FinetuneResult
    budget: Budget
    tries: tuple[Try, ...]
    control_steps: int

    def to_json(self) -> dict[str, Any]:
        """The contract of `finetune --json`, and the search."""
        return {**self.result.to_json(), "search": told(self.budget, self.tries, self.control_steps)}


def search(request: FinetuneRequest, budget: Budget, observer: Observer) -> Found:
    """Find and write the run. What the request says of target and control is not looked at.

    An interrupted search goes on where it was. Raises GoalMissed, with what was tried, where not even LOWEST is within
    the budget.
    """
    check(replace(request, control=True))
    if request.task.spec == DISTILL:
        raise UsageError(
            f"--max-loss compares with a dense control, and --task {DISTILL} has none but the teacher itself"
        )
    if request.distill is not None:
        teacher = request.distill.teacher or request.checkpoint
        require_dense(open_subject(teacher, lazily=True))
        request = replace(request, distill=request.distill._replace(teacher=teacher))
    out = request.out or Path(f"{stem_of(request.checkpoint)}-max-loss-{str(budget).replace('%', 'pct')}")
    with folder_lock(out):
        unfinished: Unfinished = "keep" if request.keeping.resume == "auto" else "drop"
        stage = open_stage(out, overwrite=request.overwrite, unfinished=unfinished)
        staircase = _Staircase(request, budget, stage / TRIES, observer)
        good = staircase.climb()
        if good is None:
            raise GoalMissed(_missed(budget, staircase, stage / TRIES))
        return _publish(out, stage, staircase, good)


class _Stage(NamedTuple):
    """A model within the budget, the control trained for as long, and the best control up to here with its steps."""

    sparsity: float
    number: int
    run: Path
    made: Manifest
    control: Path
    best: Manifest
    best_steps: int


class _Staircase:
    """The stages of one search; each of them is a run folder of its own under `folder`."""

    def __init__(self, request: FinetuneRequest, budget: Budget, folder: Path, observer: Observer) -> None:
        self.request, self.budget, self.folder, self.observer = request, budget, folder, observer
        self.task = find_task(open_subject(request.checkpoint), request.task, "finetune")
        self.tries: list[Try] = []
        self.dense: Mapping[str, Any] = {}  # the checkpoint's own figures
        self.seconds: dict[str, float] = {}  # of every run, whenever it was made

    def climb(self) -> _Stage | None:
        """The last stage that was good enough."""
        good, failed = None, None
        for sparsity in LADDER:
            tried = self._try(sparsity, good)
            if tried is None:
                failed = sparsity
                break
            good = tried
        good = good or self._try(LOWEST, None)
        for _ in range(HALVINGS):
            if good is None or failed is None:
                break
            between = round(1.0 - math.sqrt((1.0 - good.sparsity) * (1.0 - failed)), 4)
            tried = self._try(between, good)
            good, failed = (good, between) if tried is None else (tried, failed)
        return good

    def fewer_zeros_helped(self) -> bool:
        """Whether the last try, of LOWEST, came nearer to the control than the first."""
        return not self._as_good(self.tries[0].validation, self.tries[-1].validation)

    def _try(self, sparsity: float, before: _Stage | None) -> _Stage | None:
        number = 1 if before is None else before.number + 1
        control_run, run = self.folder / f"{number}-control", self.folder / f"{number}-s{100 * sparsity:g}"
        control = self._made(self._control_request(control_run, before))
        if before is None:
            self.dense = control["figures"]["dense"]
        best, best_steps, bar = control, number * control["steps"], self.figure(control, "dense_control")
        if before is not None and not self._as_good(bar, before_bar := self.figure(before.best, "dense_control")):
            best, best_steps, bar = before.best, before.best_steps, before_bar
        limit = self.budget.limit(bar, self.task.goal)
        try:
            made = self._made(self._pruned_request(run, sparsity, before))
        except UsageError as error:
            if before is None:
                raise
            self.observer.note(f"{sparsity:.2%} zeros: {error}")  # such as a small matrix with nothing left
            self.tries.append(Try(sparsity, math.nan, limit, number * control["steps"], passed=False))
            return None
        figure = self.figure(made, "sparse")
        passed = self.budget.holds(figure, bar, self.task.goal)
        if not passed and before is not None and self._as_good(figure, self.figure(before.made, "sparse")):
            # Sparser and no worse than what was kept: the control ran ahead of both.
            passed, best, best_steps = True, before.best, before.best_steps
            bar = self.figure(best, "dense_control")
            limit = self.budget.limit(bar, self.task.goal)
        self.tries.append(Try(sparsity, figure, limit, number * made["steps"], passed))
        self.observer.note(
            f"{sparsity:.2%} zeros: {self.task.metric} {figure:.4g} on the validation split, "
            f"{'within' if passed else 'beyond'} {limit:.4g} ({self.budget} from the control's {bar:.4g})"
        )
        return _Stage(sparsity, number, run, made, control_run, best, best_steps) if passed else None

    def _as_good(self, figure: float, other: float) -> bool:
        return figure <= other if self.task.goal == "min" else figure >= other

    def _control_request(self, run: Path, before: _Stage | None) -> FinetuneRequest:
        request = self.request
        lr = request.recipe.lr if request.control_lr is None else request.control_lr
        checkpoint = request.checkpoint if before is None else before.control
        recipe = replace(request.recipe, lr=lr)
        return replace(request, checkpoint=checkpoint, recipe=recipe, out=run, dense=True, distill=None)

    def _pruned_request(self, run: Path, sparsity: float, before: _Stage | None) -> FinetuneRequest:
        checkpoint = self.request.checkpoint if before is None else before.run
        pruning = replace(self.request.pruning, target=sparsity)
        return replace(self.request, checkpoint=checkpoint, pruning=pruning, out=run)

    def _made(self, request: FinetuneRequest) -> Manifest:
        request = replace(request, control=False, control_lr=None, overwrite=False)
        subject = open_subject(request.checkpoint)
        manifest = read_run(request, subject, self.task, ANEW)
        if manifest is None:
            make_run(request, self.observer)
            manifest = read_run(request, subject, self.task, ANEW)
        assert manifest is not None
        self.seconds[str(request.out)] = manifest["seconds"]
        return manifest

    def figure(self, manifest: Manifest, label: str, split: Split = "validation") -> float:
        """The metric; NaN where it was not finite."""
        found = manifest["figures"][label][split][self.task.metric]
        return math.nan if found is None else float(found)


def told(budget: Budget, tries: Sequence[Try], control_steps: int) -> dict[str, Any]:
    """The search as plain data."""
    return {"budget": str(budget), "control_steps": control_steps, "tries": [each._asdict() for each in tries]}


def _missed(budget: Budget, staircase: _Staircase, folder: Path) -> str:
    tried = "; ".join(f"{each.sparsity:.2%} zeros {each.validation:.4g}" for each in staircase.tries)
    limit = staircase.tries[-1].limit
    remedy = "train longer (--steps) or try --distill"
    if not staircase.fewer_zeros_helped():
        remedy = "fewer zeros did not help, so it is the training itself: try a lower --lr"
    return (
        f"--max-loss {budget}: {staircase.task.metric} on the validation split may be {limit:.4g}, and was {tried}; "
        f"{remedy}, with --resume never or another --out; or allow more. "
        f"What was tried is in {folder}"
    )


def _publish(out: Path, stage: Path, staircase: _Staircase, good: _Stage) -> Found:
    """The last good stage as the run, told from the checkpoint on."""
    request, task, tries = staircase.request, staircase.task, tuple(staircase.tries)
    last = open_subject(good.run).checkpoint
    choices = [Choice(name, "unknown", **choice) for name, choice in last.metadata["choices"].items()]
    figures = {
        "dense": staircase.dense,
        "dense_control": good.best["figures"]["dense_control"],
        "sparse": good.made["figures"]["sparse"],
    }
    test = {label: splits["test"][task.metric] for label, splits in figures.items()}
    metric = Metric(task.metric, task.goal, test["dense"], test["dense_control"], test["sparse"])
    steps, seconds = good.number * good.made["steps"], sum(staircase.seconds.values())
    story = Story(
        subject=open_subject(request.checkpoint),
        task=good.made["task"],
        pruning={**good.made["pruning"], "search": told(staircase.budget, tries, good.best_steps)},
        settings={**asdict(resolved(request, task)), "max_loss": str(staircase.budget)},
        metric=asdict(metric),
        figures=figures,
        seconds=seconds,
        steps=steps,
    )
    shutil.copy(good.run / METRICS, stage / METRICS)
    written = write_tensors(out, stage, last.tensors, last.aliases, choices, story)
    result = FinetuneResult(out, good.sparsity, written.achieved, written.per_tensor, metric, steps, seconds)
    return Found(result, staircase.budget, tries, good.best_steps)

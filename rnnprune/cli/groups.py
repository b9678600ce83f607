"""Flags that go together: one dataclass to a command, a flag for each of its fields to the shell."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from rnnprune.cli import options as o
from rnnprune.errors import UsageError
from rnnprune.pruning.options import (
    Block,
    BlockNorm,
    ScheduleName,
    Scope,
    Selection,
    Timing,
    parse_n_of_m,
    parse_target_of,
    require_read,
)
from rnnprune.tasks.options import DistillLevel
from rnnprune.training.options import Keeping, parse_save_every
from rnnprune.training.recipe import Decay, Precision, Recipe

if TYPE_CHECKING:
    from rnnprune.workflows.subject import TaskChoice
    from rnnprune.workflows.teacher import Distillation

_SIZE = "Of a built-in task."
_RECIPE, _TIMING = Recipe(), Timing()
Command = Callable[..., None]


def spread(command: Command) -> Command:
    """Give the shell, in the place of each parameter that is a dataclass, a flag for each of its fields.

    The parameter's default, an instance, holds the defaults of its flags; without one they have the class's own.
    """
    parameters = inspect.signature(command, eval_str=True).parameters.values()
    flags = {parameter.name: _flags(parameter) for parameter in parameters}
    groups: dict[str, Any] = {each.name: each.annotation for each in parameters if is_dataclass(each.annotation)}

    @functools.wraps(command)
    def called(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{flag.name: given.pop(flag.name) for flag in flags[name]})
        command(**given)

    called.__signature__ = inspect.Signature([flag for each in flags.values() for flag in each])  # type: ignore[attr-defined]
    return called


def _flags(parameter: inspect.Parameter) -> list[inspect.Parameter]:
    group = parameter.annotation
    if not is_dataclass(group):
        return [parameter]
    defaults = group if parameter.default is parameter.empty else parameter.default
    return [
        inspect.Parameter(name, parameter.KEYWORD_ONLY, default=getattr(defaults, name), annotation=annotation)
        for name, annotation in get_type_hints(group, include_extras=True).items()
    ]


@dataclass(frozen=True)
class TaskFlags:
    """Which task, on which data."""

    task: Annotated[str | None, o.model("--task", "Your own task, my_task.py:make; or distill.")] = None
    data: o.Data = None
    inputs: Annotated[Path | None, o.model("--inputs", "distill: .npy, .npz or .safetensors.")] = None
    teacher: Annotated[Path | None, o.model("--teacher", "distill: dense checkpoint, if not CHECKPOINT.")] = None
    model: Annotated[str | None, o.model("--model", "distill: my_model.py:build.")] = None
    batch_size: Annotated[int | None, o.training("--batch-size", _SIZE, show_default="as in training")] = None
    seq_len: Annotated[
        int | None, o.training("--seq-len", "Steps per window, of lm and distill.", show_default="likewise")
    ] = None
    skip_bad: o.SkipBad = False

    def choice(self, *, distill: bool = False) -> TaskChoice:
        """distill: --distill was given, so the teacher is not that of `--task distill`."""
        from rnnprune.tasks.source import DataOptions
        from rnnprune.workflows.subject import TaskChoice, Unlabelled

        options = DataOptions(self.data, self.batch_size, self.seq_len, self.skip_bad)
        return TaskChoice(self.task, options, Unlabelled(self.inputs, None if distill else self.teacher, self.model))


def distillation(
    teacher: Path | None, temperature: float, weight: float, level: DistillLevel = "word", *, asked: bool
) -> Distillation | None:
    """What `--distill` (asked) and the flags beside it say. Raises UsageError for these alone."""
    from rnnprune.tasks.taught import Lesson
    from rnnprune.workflows.teacher import Distillation

    told = Distillation(teacher, Lesson(temperature, weight), level)
    if asked:
        return told
    if told._replace(teacher=None) != Distillation():
        raise UsageError("flags that begin with --distill- go with --distill; add it, or drop them")
    return None


@dataclass(frozen=True)
class TimingFlags:
    """When a schedule cuts."""

    start: Annotated[float, o.pruning("--start", "First cut, as a share of all steps.")] = _TIMING.start
    ramp: Annotated[float, o.pruning("--ramp", "Second slope of gradual, likewise.")] = _TIMING.ramp
    end: Annotated[float, o.pruning("--end", "Last cut, likewise.")] = _TIMING.end
    frequency: Annotated[int | None, o.pruning("--frequency", "Steps between cuts.", show_default="at most 100")] = None
    slope_ratio: Annotated[float, o.pruning("--slope-ratio", "Of gradual's two slopes.")] = _TIMING.slope_ratio
    revive: Annotated[bool, o.pruning("--revive", "gradual: let weights come back.")] = False
    aim: Annotated[bool, o.pruning("--aim", "gradual: aim the threshold at the target anew at every cut.")] = False

    def build(self, *schedules: ScheduleName) -> Timing:
        """Raises UsageError for a flag that none of these schedules reads."""
        timing = Timing(**vars(self))
        require_read(timing, schedules)
        return timing


@dataclass(frozen=True)
class SelectionFlags:
    """What is pruned, beside the blocks."""

    block_norm: Annotated[BlockNorm, o.pruning("--block-norm", "Score of a block.")] = "max"
    scope: Annotated[
        Scope | None,
        o.pruning("--scope", "What reaches the target together.", show_default="tensor; under fisher: model"),
    ] = None
    n_of_m: Annotated[str | None, o.pruning("--n-of-m", "Columns that a row keeps at most, such as 8:64.")] = None
    keep_diagonal: Annotated[bool, o.pruning("--keep-diagonal", "Never drop what feeds a unit back to itself.")] = False
    include: Annotated[list[str] | None, o.pruning("--include", "Also prune these: 'decoder.*'.")] = None
    exclude: Annotated[list[str] | None, o.pruning("--exclude", "Never prune these.")] = None
    target_of: Annotated[
        list[str] | None, o.pruning("--target-of", "A target of their own for these: 'output.*=0.8'.")
    ] = None

    def build(self, block: Block) -> Selection:
        include, exclude = tuple(self.include or ()), tuple(self.exclude or ())
        targets = parse_target_of(self.target_of or ())
        n_of_m = None if self.n_of_m is None else parse_n_of_m(self.n_of_m)
        return Selection(block, self.block_norm, self.scope, include, exclude, self.keep_diagonal, targets, n_of_m)


@dataclass(frozen=True)
class TuningFlags:
    """How a model that is there already is trained on."""

    steps: o.Steps = None
    epochs: o.Epochs = None
    optimizer: o.Optimizer = "adam"
    lr: o.LearningRate = _RECIPE.lr
    decay: Annotated[Decay, o.training("--decay", "Of the learning rate, after a 2 % warm-up.")] = "cosine"
    weight_decay: Annotated[float, o.training("--weight-decay", "Of the optimizer.")] = 0.0
    clip_norm: Annotated[float, o.training("--clip-norm", "Largest gradient norm; 0: any.")] = _RECIPE.clip_norm

    def recipe(self, seed: int, precision: Precision) -> Recipe:
        return Recipe(**vars(self), seed=seed, precision=precision)


@dataclass(frozen=True)
class LearningFlags:
    """How a new model is trained."""

    steps: o.Steps = None
    epochs: o.Epochs = None
    optimizer: o.Optimizer = "adam"
    lr: o.LearningRate = 2e-3
    precision: o.PrecisionOf = "fp32"
    seed: o.Seed = 0

    def recipe(self) -> Recipe:
        return Recipe(**vars(self))


@dataclass(frozen=True)
class RunFlags:
    """Where a training runs, how it is kept and how it is told."""

    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the checkpoint.")] = False
    resume: o.ResumeOf = "auto"
    save_every: o.SaveEveryOf = "10m"
    device: o.Device = "cpu"
    threads: o.Threads = None
    json: o.Json = False
    config: o.Config = None

    def keeping(self) -> Keeping:
        return Keeping(self.resume, parse_save_every(self.save_every))

"""The flags, each written once: those that mean the same on every command share one definition here."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from rnnprune.errors import UsageError
from rnnprune.pruning.options import require_one_of
from rnnprune.training.options import Resume
from rnnprune.training.recipe import OptimizerName, Precision

SETTINGS = {"auto_envvar_prefix": "RNNPRUNE"}  # RNNPRUNE_TARGET=0.9 stands for --target 0.9 on every command

Number = TypeVar("Number", int, float)


def load_config(ctx: Any, path: Path | None) -> Path | None:  # ctx: the base class of typer.Context
    """Make the keys of a TOML file the command's defaults. UsageError for an unknown key, with a suggestion."""
    if path is None:
        return None
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--config {path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {path}: not valid TOML: {error}") from error
    known = {parameter.name for parameter in ctx.command.params if parameter.name} - {"config"}
    settings = {key.replace("-", "_"): value for key, value in settings.items()}
    if problems := [_unknown_key(key, known) for key in settings if key not in known]:
        raise UsageError(f"--config {path}: unknown for `{ctx.info_name}`: {'; '.join(problems)}")
    for parameter in ctx.command.params:  # `target-of = "output.*=0.5"` is a list of one
        if getattr(parameter, "multiple", False) and isinstance(settings.get(parameter.name), str):
            settings[parameter.name] = [settings[parameter.name]]
    ctx.default_map = {**settings, **(ctx.default_map or {})}
    return path


def _unknown_key(key: str, known: set[str]) -> str:
    close = difflib.get_close_matches(key, sorted(known), n=1)
    return f"{key!r}, " + (f"did you mean {close[0]!r}?" if close else f"known are {', '.join(sorted(known))}")


def option(panel: str, name: str, help: str, **more: Any) -> Any:
    """A flag in one panel of the help."""
    return typer.Option(name, help=help, rich_help_panel=panel, show_envvar=False, **more)


model, training = partial(option, "Model and task"), partial(option, "Training")
pruning, output = partial(option, "Pruning"), partial(option, "Output")


def _numbers(kind: Callable[[str], Number], such_as: str, flag: str, text: str) -> tuple[Number, ...]:
    """`1,16` -> (1, 16). Raises UsageError for anything else."""
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"{flag} takes {such_as}; found {text!r}") from error


integers = partial(_numbers, int, "whole numbers such as 1,16")
shares = partial(_numbers, float, "shares such as 0.9,0.95")


def names(flag: str, text: str, known: Any) -> tuple[Any, ...]:
    """`cubic,hard` -> ("cubic", "hard"), each of a Literal's names. Raises UsageError for anything else."""
    found = tuple(part.strip() for part in text.split(","))
    for name in found:
        require_one_of(flag, name, known)
    return found


Config = Annotated[Path | None, output("--config", "TOML file with defaults.", is_eager=True, callback=load_config)]
Json = Annotated[bool, output("--json", "Print one JSON object on stdout.")]
Out = Annotated[Path | None, output("--out", "Where to write.")]
Overwrite = Annotated[bool, output("--overwrite", "Replace a finished run.")]
Device = Annotated[str, model("--device", "cpu or cuda.")]
Threads = Annotated[int | None, model("--threads", "CPU threads; torch's choice if not given.")]
Data = Annotated[Path | None, model("--data", "Data of the task, where it is not where it was.")]
BatchSize = Annotated[int | None, training("--batch-size", "Of a built-in task.", show_default="the task's own")]
SeqLen = Annotated[int | None, training("--seq-len", "Steps per window, of lm and distill.", show_default="100")]
SkipBad = Annotated[bool, training("--skip-bad", "Leave bad items of a built-in task out, and list them.")]

Steps = Annotated[int | None, training("--steps", "Optimizer steps.", show_default="1000")]
Epochs = Annotated[float | None, training("--epochs", "Instead of --steps.")]
LearningRate = Annotated[float, training("--lr", "Peak learning rate.")]
Optimizer = Annotated[OptimizerName, training("--optimizer", "adam, adamw, sgd (Nesterov, 0.9).")]
Seed = Annotated[int, training("--seed", "Of weights, data order and dropout.")]
Temperature = Annotated[float, training("--distill-temperature", "Of the teacher's outputs.")]
LessonWeight = Annotated[float, training("--distill-weight", "Of the teacher in the loss.")]
PrecisionOf = Annotated[Precision, training("--precision", "Of the layers' arithmetic.")]
ResumeOf = Annotated[Resume, output("--resume", "auto goes on with an interrupted run.")]
SaveEveryOf = Annotated[str, output("--save-every", "Steps (500) or minutes (10m).")]
BlockOf = Annotated[str, pruning("--block", "Prune rows x columns together: 16x1, 8x4.")]

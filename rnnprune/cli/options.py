"""The flags, each written once: those that mean the same on every command share one definition here."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from rnnprune.errors import UsageError
from rnnprune.pruning.options import require_one_of
from rnnprune.training.options import Resume
from rnnprune.training.recipe import OptimizerName, Precision

SETTINGS = {"auto_envvar_prefix": "RNNPRUNE"}  # RNNPRUNE_TARGET=0.9 stands for --target 0.9 on every command

MODEL, TRAINING, PRUNING, OUTPUT = "Model and task", "Training", "Pruning", "Output"


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
    ctx.default_map = {**settings, **(ctx.default_map or {})}
    return path


def _unknown_key(key: str, known: set[str]) -> str:
    close = difflib.get_close_matches(key, sorted(known), n=1)
    return f"{key!r}, " + (f"did you mean {close[0]!r}?" if close else f"known are {', '.join(sorted(known))}")


def _option(*names: str, help: str, panel: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, show_envvar=False, **more)


Config = Annotated[
    Path | None,
    _option("--config", help="TOML file with defaults.", panel=OUTPUT, is_eager=True, callback=load_config),
]


def pruning(name: str, help: str, **more: Any) -> Any:
    """An option of the pruning panel."""
    return _option(name, help=help, panel=PRUNING, **more)


def training(name: str, help: str, **more: Any) -> Any:
    """An option of the training panel."""
    return _option(name, help=help, panel=TRAINING, **more)


def integers(flag: str, text: str) -> tuple[int, ...]:
    """`1,16` -> (1, 16). Raises UsageError for anything else."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"{flag} takes whole numbers such as 1,16; found {text!r}") from error


def shares(flag: str, text: str) -> tuple[float, ...]:
    """`0.9,0.95` -> (0.9, 0.95). Raises UsageError for anything else."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"{flag} takes shares such as 0.9,0.95; found {text!r}") from error


def names(flag: str, text: str, known: Any) -> tuple[Any, ...]:
    """`cubic,hard` -> ("cubic", "hard"), each of a Literal's names. Raises UsageError for anything else."""
    found = tuple(part.strip() for part in text.split(","))
    for name in found:
        require_one_of(flag, name, known)
    return found


Json = Annotated[bool, _option("--json", help="Print one JSON object on stdout.", panel=OUTPUT)]
Out = Annotated[Path | None, _option("--out", help="Where to write.", panel=OUTPUT)]
Overwrite = Annotated[bool, _option("--overwrite", help="Replace a finished run.", panel=OUTPUT)]
Device = Annotated[str, _option("--device", help="cpu or cuda.", panel=MODEL)]
Threads = Annotated[int | None, _option("--threads", help="CPU threads; torch's choice if not given.", panel=MODEL)]
TaskSpec = Annotated[str | None, _option("--task", help="Your own task, my_task.py:make; or distill.", panel=MODEL)]
Data = Annotated[Path | None, _option("--data", help="Data of the task, where it is not where it was.", panel=MODEL)]
Inputs = Annotated[Path | None, _option("--inputs", help="distill: .npy, .npz or .safetensors.", panel=MODEL)]
Teacher = Annotated[
    Path | None, _option("--teacher", help="distill: dense checkpoint, if not CHECKPOINT.", panel=MODEL)
]
Temperature = Annotated[float, _option("--distill-temperature", help="Of the teacher's outputs.", panel=TRAINING)]
LessonWeight = Annotated[float, _option("--distill-weight", help="Of the teacher in the loss.", panel=TRAINING)]
ModelFunction = Annotated[str | None, _option("--model", help="distill: my_model.py:build.", panel=MODEL)]
BatchSize = Annotated[
    int | None, _option("--batch-size", help="Of a built-in task.", panel=TRAINING, show_default="the task's own")
]
SeqLen = Annotated[
    int | None, _option("--seq-len", help="Tokens per window, of lm.", panel=TRAINING, show_default="100")
]
SkipBad = Annotated[
    bool, _option("--skip-bad", help="Leave bad items of a built-in task out, and list them.", panel=TRAINING)
]

Steps = Annotated[int | None, _option("--steps", help="Optimizer steps.", panel=TRAINING, show_default="1000")]
Epochs = Annotated[float | None, _option("--epochs", help="Instead of --steps.", panel=TRAINING)]
LearningRate = Annotated[float, _option("--lr", help="Peak learning rate.", panel=TRAINING)]
Optimizer = Annotated[OptimizerName, _option("--optimizer", help="adam, adamw, sgd (Nesterov, 0.9).", panel=TRAINING)]
Seed = Annotated[int, _option("--seed", help="Of weights, data order and dropout.", panel=TRAINING)]

PrecisionOf = Annotated[Precision, _option("--precision", help="Of the layers' arithmetic.", panel=TRAINING)]
ResumeOf = Annotated[Resume, _option("--resume", help="auto goes on with an interrupted run.", panel=OUTPUT)]
SaveEveryOf = Annotated[str, _option("--save-every", help="Steps (500) or minutes (10m).", panel=OUTPUT)]
Processes = Annotated[int | None, _option("--nproc", help="Processes that train together here.", panel=MODEL)]

Target = Annotated[float, _option("--target", help="Share of zeros in every pruned matrix.", panel=PRUNING)]
TargetOrNone = Annotated[
    float | None, _option("--target", help="Share of zeros in every pruned matrix.", panel=PRUNING, show_default="0.9")
]
Block = Annotated[str, _option("--block", help="Prune rows x columns together: 16x1, 8x4.", panel=PRUNING)]
KeepDiagonal = Annotated[
    bool, _option("--keep-diagonal", help="Never drop what feeds a unit back to itself.", panel=PRUNING)
]
Include = Annotated[list[str] | None, _option("--include", help="Also prune these: 'decoder.*'.", panel=PRUNING)]
Exclude = Annotated[list[str] | None, _option("--exclude", help="Never prune these.", panel=PRUNING)]

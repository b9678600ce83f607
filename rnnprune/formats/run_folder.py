"""The run folder: what a pruning run leaves behind, and how the newest one is found.

model.safetensors   the pruned model in dense layout, dropped weights exactly zero; describes itself
rnnprune.json       how it came about: task, architecture, schedule, sparsity, metrics, versions, sha256
metrics.jsonl       the training curve, one JSON object a line
README.md           a model card
.unfinished/        only while a run is being made: what is to become the above, and `state/`, to go on from
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from rnnprune.errors import StorageError, UsageError
from rnnprune.formats.atomic import remove_strays, write_atomic
from rnnprune.formats.options import ExportFormat

MODEL = "model.safetensors"
MANIFEST = "rnnprune.json"
METRICS = "metrics.jsonl"
STAGE = ".unfinished"
STATE = "state"  # in the stage
CARD = "README.md"

Unfinished = Literal["keep", "drop", "refuse"]

_EXPORTED = re.compile(rf"model\.({'|'.join(get_args(ExportFormat))})(\.\w+)?\.safetensors")


def is_run_folder(path: Path) -> bool:
    """Whether a finished run lies there."""
    try:
        return (path / MANIFEST).is_file()
    except OSError:  # a folder that may not be looked into, a name too long
        return False


def model_of(path: Path) -> Path:
    """The file with the model: of a finished run its own, else what stands there."""
    return path / MODEL if is_run_folder(path) else path


def newest_run(folder: Path) -> Path:
    """The run folder in `folder` that was finished last, `folder` itself included. UsageError when there is none."""
    runs = [path for path in (folder, *folder.iterdir()) if path.is_dir() and is_run_folder(path)]
    if not runs:
        raise UsageError(
            f"no run folder in {folder.resolve()}; name a run folder or a file, "
            "or make a run with `rnnprune finetune CKPT --target 0.9`"
        )
    return max(runs, key=lambda run: (run / MANIFEST).stat().st_mtime_ns)


def refuse_finished(run: Path, *, overwrite: bool) -> None:
    """Raise UsageError for a finished run that is not to be replaced."""
    if is_run_folder(run) and not overwrite:
        raise UsageError(f"{run} already holds a finished run; choose another --out, or pass --overwrite")


def open_stage(run: Path, *, overwrite: bool, unfinished: Unfinished = "refuse") -> Path:
    """The folder inside `run` in which a new run is put together; `publish` makes it the run.

    Called before any work is spent. What stands in `run` stays as it is until then: a finished run is refused unless
    `overwrite`, anything else that is not ours always. unfinished: what becomes of a run that was interrupted there.
    """
    refuse_finished(run, overwrite=overwrite)
    stage = run / STAGE
    try:
        run.mkdir(parents=True, exist_ok=True)
        if not is_run_folder(run) and not stage.is_dir() and any(run.iterdir()):
            raise UsageError(f"{run} holds other files and no run; choose another --out, a new folder")
        if unfinished == "refuse" and (stage / STATE).is_dir():
            raise UsageError(f"{run} holds a run that `finetune` can go on with; choose another --out")
        if unfinished != "keep":
            shutil.rmtree(stage, ignore_errors=True)
        stage.mkdir(exist_ok=True)
        _take_back_metrics(run)
    except OSError as error:
        raise StorageError(f"{run}: cannot make the run folder ({error.strerror}); choose another --out") from error
    remove_strays(stage)
    return stage


def _take_back_metrics(run: Path) -> None:
    """From a publication that was cut off: a run that is gone on with goes on with its curve, too."""
    if not is_run_folder(run) and (run / METRICS).is_file() and not (run / STAGE / METRICS).exists():
        (run / METRICS).replace(run / STAGE / METRICS)


def publish(run: Path) -> None:
    """Move what was staged into the run folder, in place of an older run and of what was exported from it.

    The old manifest goes first and the new one comes last, so that no mixture of two runs looks finished. The state
    goes after that: a run that is cut off in here goes on from it, and publishes again.
    """
    stage = run / STAGE
    try:
        for name in (MANIFEST, METRICS):
            (run / name).unlink(missing_ok=True)
        for path in run.iterdir():
            if _EXPORTED.fullmatch(path.name):
                path.unlink()
        for path in sorted(stage.iterdir(), key=lambda path: path.name == MANIFEST):
            if path.is_file():
                path.replace(run / path.name)
        if (stage / STATE).is_dir():
            (stage / STATE).rename(stage / "done")  # half a state must not be found, should the next line be cut off
        shutil.rmtree(stage)
    except OSError as error:
        raise StorageError(f"{run} cannot be written: {error.strerror}; the new run is whole in {stage}") from error


def write_manifest(run: Path, manifest: Mapping[str, Any]) -> None:
    """Write rnnprune.json: a folder without one is no finished run."""
    write_atomic(run / MANIFEST, dump_plain(manifest, indent=2).encode() + b"\n")


def dump_plain(value: object, indent: int | None = None) -> str:
    """Strict JSON: a figure that is not finite becomes null, because NaN is not JSON and a finished run is not lost."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""The run folder: what a pruning run leaves behind, and how the newest one is found.

model.safetensors   the pruned model in dense layout, dropped weights exactly zero; describes itself
rnnprune.json       how it came about: task, architecture, schedule, sparsity, metrics, versions, sha256
metrics.jsonl       the training curve, one JSON object a line
README.md           a model card
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rnnprune.errors import InputRefused, StorageError, UsageError
from rnnprune.formats.atomic import write_atomic

MODEL = "model.safetensors"
MANIFEST = "rnnprune.json"
METRICS = "metrics.jsonl"
UNFINISHED_METRICS = "metrics.unfinished.jsonl"
CARD = "README.md"


def is_run_folder(path: Path) -> bool:
    """Whether a finished run lies there."""
    return (path / MANIFEST).is_file()


def newest_run(folder: Path) -> Path:
    """The run folder in `folder` that was finished last, `folder` itself included. UsageError when there is none."""
    runs = [path for path in (folder, *folder.iterdir()) if path.is_dir() and is_run_folder(path)]
    if not runs:
        raise UsageError(
            f"no run folder in {folder.resolve()}; name a run folder or a file, "
            "or make a run with `rnnprune finetune CKPT --target 0.9`"
        )
    return max(runs, key=lambda run: (run / MANIFEST).stat().st_mtime_ns)


def create_run_folder(path: Path, *, overwrite: bool) -> None:
    """Make the folder before any work is spent. A finished run in it is refused unless `overwrite`, and even then it
    stays as it is until the new one has finished.
    """
    if is_run_folder(path) and not overwrite:
        raise UsageError(f"{path} already holds a finished run; choose another --out, or pass --overwrite")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{path}: cannot make the run folder ({error.strerror}); choose another --out") from error


def open_for_rewriting(run: Path, *, keep_metrics: bool) -> None:
    """Take away what belongs to an older model here: its manifest first, so that no mixture looks finished."""
    (run / MANIFEST).unlink(missing_ok=True)
    stem, suffix = MODEL.split(".")
    for exported in run.glob(f"{stem}.*.{suffix}"):
        exported.unlink()
    if not keep_metrics:
        (run / METRICS).unlink(missing_ok=True)


def write_manifest(run: Path, manifest: Mapping[str, Any]) -> None:
    """Write rnnprune.json, last of all: a folder without one is no finished run."""
    write_atomic(run / MANIFEST, dump_plain(manifest, indent=2).encode() + b"\n")


def read_manifest(run: Path) -> dict[str, Any]:
    """rnnprune.json as plain data. InputRefused when it is damaged."""
    try:
        manifest = json.loads((run / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputRefused(
            f"{run / MANIFEST}: not readable as JSON ({error}); run `rnnprune finetune` again"
        ) from error
    if not isinstance(manifest, dict):
        raise InputRefused(f"{run / MANIFEST}: JSON, but not an object; run `rnnprune finetune` again")
    return manifest


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

"""Whether a saved state belongs to the run that was asked for: same configuration, same data, else the difference."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rnnprune.errors import StorageError, UsageError
from rnnprune.formats.run_folder import dump_plain, sha256_of
from rnnprune.formats.state_folder import SPARE_BYTES, Snapshot, StateFolder
from rnnprune.tasks.protocol import Task
from rnnprune.training.options import Resume
from rnnprune.training.workers import Workers
from rnnprune.workflows.machine import versions

SHOWN = 8


def fingerprint_of_data(task: Task, data: Path | None) -> str | None:
    """SHA-256 of the data: a built-in task's own, else of the file or the names and sizes in the folder `--data` names.

    None where a user's task finds its data by itself: nothing can be told about it then.
    """
    stored = getattr(task, "metadata", None)
    if isinstance(stored, Mapping) and isinstance(stored.get("data"), Mapping):
        described = {key: value for key, value in stored["data"].items() if key != "path"}
        return hashlib.sha256(dump_plain(described).encode()).hexdigest()
    if data is None or not data.exists():
        return None
    if data.is_file():
        return sha256_of(data)
    listed = sorted((str(path.relative_to(data)), path.stat().st_size) for path in data.rglob("*") if path.is_file())
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def environment(task: str | None, device: torch.device, workers: Workers) -> dict[str, Any]:
    """What may change between two starts, though the result is then not the same to the bit."""
    file = Path((task or "").rpartition(":")[0])
    return {
        **versions(),
        "device": str(device),
        "threads": torch.get_num_threads(),
        "processes": workers.world_size,
        "task's file": sha256_of(file) if file.is_file() else None,
    }


def room_for_training(model: nn.Module, states: Path) -> int:
    """Bytes on disk: the model, and three states (two are kept while the next is written) of it and two moments; less
    what an interrupted run holds there already."""
    weights = sum(tensor.nbytes for tensor in model.parameters())
    held = sum(path.stat().st_size for path in states.glob("*.safetensors"))
    return max(0, (1 + 3 * 3) * weights - held) + SPARE_BYTES


def saved_state(folder: Path, resume: Resume, fingerprint: Mapping[str, Any], workers: Workers) -> Snapshot | None:
    """The state to go on from, or None to start anew.

    Raises UsageError with every setting that is not what it was, InputRefused when the state is damaged, StorageError
    when the processes do not find the same one.
    """
    saved = StateFolder(folder).load() if resume == "auto" else None
    place = None if saved is None else [saved.document["phase"], saved.document["positions"][0]["step"]]
    places = workers.gather(place)
    if any(each != place for each in places):
        raise StorageError(f"{folder}: the processes find different states ({places}); put --out on shared storage")
    if saved is not None and (changed := differences(saved.document["fingerprint"], plain_json(fingerprint))):
        raise UsageError(
            f"{folder} holds a run that was interrupted, with other settings: {first_of(changed)}. "
            "Give the old settings to go on with it, --resume never to start anew, or another --out"
        )
    return saved


def notes_of_resuming(saved: Snapshot | None, now: Mapping[str, Any], folder: Path) -> list[str]:
    """What a person should know about going on."""
    if saved is None:
        return []
    document = saved.document
    notes = [f"going on after step {document['positions'][0]['step']} ({document['phase']}), from {folder}"]
    if changed := differences(document["environment"], now["environment"]):
        notes.append(f"not to the bit what an uninterrupted run would give: {'; '.join(changed)}")
    return notes


def seconds_of_run(began: float, saved: Snapshot | None) -> float:
    """Since `began` on the performance counter, and of the starts before that were interrupted."""
    return time.perf_counter() - began + (0.0 if saved is None else saved.document["seconds"])


def plain_json(value: Any) -> Any:
    """As it reads back from a file: tuples are lists, paths are text."""
    return json.loads(dump_plain(value))


def differences(old: Any, new: Any, name: str = "") -> list[str]:
    """`recipe.lr was 0.001, is 0.01` for every leaf of two nested mappings that differs.

    A flag that the version of `old` did not know yet was off.
    """
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = [*old, *(key for key in new if key not in old and new[key] is not False)]
        return [each for key in keys for each in differences(old.get(key), new.get(key), f"{name}.{key}".lstrip("."))]
    return [] if old == new else [f"{name} was {_shown(old)}, is {_shown(new)}"]


def first_of(changed: Sequence[str]) -> str:
    """Some of the differences, and how many more there are."""
    more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
    return f"{'; '.join(changed[:SHOWN])}{more}"


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 24 else f"{text[:20]}..."

"""Where a built-in task's data lies: recorded in the checkpoint by path and sha256, found again, or given anew."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from rnnprune.errors import InputRefused, UsageError
from rnnprune.tasks.spec import checked

_METADATA_TYPES = {"task": str, "model": dict, "data": dict, "batches": dict}
_DATA_TYPES = {"path": str, "sha256": str, "skip_bad": bool}
_FLAGS = {"batch_size": "--batch-size", "length": "--seq-len"}  # the sizes of batches, as a person gives them
MAX_SIZE = 2**31 - 1


@dataclass(frozen=True)
class DataOptions:
    """What the command line says about a built-in task's data; None: as in training, else the task's own default.

    data: the file, where it is not the recorded one. batch_size: items per training batch. length: tokens per window.
    skip_bad: leave out what cannot be used, count it and list it, in place of refusing the whole.
    """

    data: Path | None = None
    batch_size: int | None = None
    length: int | None = None
    skip_bad: bool = False

    def refuse_length(self, task: str) -> None:
        """For tasks whose items have a length of their own."""
        if self.length is not None:
            raise UsageError(f"--seq-len belongs to the task lm; in {task} every item has its own length")

    def batch_size_or(self, default: int) -> int:
        """Raises UsageError for a size below 1."""
        size = default if self.batch_size is None else self.batch_size
        if size < 1:
            raise UsageError(f"batch size {size}: expected at least 1")
        return size

    def length_or(self, default: int) -> int:
        """Tokens per window."""
        return default if self.length is None else self.length


class Entry(NamedTuple):
    """The `rnnprune` entry of a checkpoint, its outer keys checked.

    skip_bad: the training left bad items out. batches: its `batch_size` and `length`, as far as they are recorded.
    """

    model: Any
    path: str
    sha256: str
    skip_bad: bool
    batches: Mapping[str, int]


class Found(NamedTuple):
    """The file to read, how it is read, and what a person should know about both."""

    path: Path
    options: DataOptions
    notes: tuple[str, ...]


def read_entry(metadata: Mapping[str, object]) -> Entry:
    """Raises InputRefused for keys that are missing, unknown or of another type."""
    entry = checked({"batches": {}, **metadata}, "rnnprune", _METADATA_TYPES)
    data = checked({"skip_bad": False, **entry["data"]}, "rnnprune.data", _DATA_TYPES)
    if re.fullmatch("[0-9a-f]{64}", data["sha256"]) is None:
        raise InputRefused("rnnprune.data.sha256: expected 64 hexadecimal digits; the checkpoint was edited")
    batches = checked(entry["batches"], "rnnprune.batches", {name: int for name in _FLAGS if name in entry["batches"]})
    for name, size in batches.items():
        if not 1 <= size <= MAX_SIZE:
            raise InputRefused(f"rnnprune.batches.{name}: expected 1 to {MAX_SIZE:,}; the checkpoint was edited")
    return Entry(entry["model"], data["path"], data["sha256"], data["skip_bad"], batches)


def entry(
    task: str,
    model: dict[str, Any],
    path: str,
    sha256: str,
    batches: Mapping[str, int],
    *,
    left_out: bool = False,
) -> dict[str, Any]:
    """What `read_entry` reads: the whole of what a built-in task leaves in a checkpoint.

    batches: its `batch_size`, and its `length` where it has one. left_out: bad items were, so they will be in every
    later use of the same file, with no flag.
    """
    data = {"path": path, "sha256": sha256, **({"skip_bad": True} if left_out else {})}
    return {"task": task, "model": model, "data": data, "batches": dict(batches)}


def sha256_of(path: Path) -> str:
    """The fingerprint of a file's bytes. Raises UsageError when it is not a readable regular file."""
    if not path.is_file():
        found = "is not a regular file" if path.exists() else "does not exist"
        raise UsageError(f"{path}: {found}; pass one file as --data")
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); pass a readable file as --data") from error


def find_data(stored: Entry, options: DataOptions, unit: str, **sizes: int) -> Found:
    """The file to use: the recorded one, whose bad items are left out if the training did so, or the one that is given.

    unit: what the file is called in the notes (`text`, `manifest`). sizes: the task's own `batch_size` and `length`,
    where neither the options nor the training says. Raises UsageError when the recorded file is gone or has changed and
    no other was named.
    """
    left_open: dict[str, Any] = {
        name: stored.batches.get(name, size) for name, size in sizes.items() if getattr(options, name) is None
    }
    trained = [f"{_FLAGS[name]} {size}" for name, size in left_open.items() if size != sizes[name]]
    notes = (f"{' '.join(trained)}, as in training",) if trained else ()
    found = _find_file(stored, replace(options, **left_open), unit)
    return found._replace(notes=(*notes, *found.notes))


def _find_file(stored: Entry, options: DataOptions, unit: str) -> Found:
    data = options.data
    if data is None and not Path(stored.path).is_file():
        raise UsageError(f"the model was trained on {stored.path}, which is not here; pass --data FILE")
    path = data or Path(stored.path)
    sha256 = sha256_of(path)
    if sha256 == stored.sha256:
        note = f"{path}: what cannot be used is left out, as it was in training (--skip-bad)"
        remembered = stored.skip_bad and not options.skip_bad
        return Found(
            path, replace(options, skip_bad=options.skip_bad or stored.skip_bad), (note,) if remembered else ()
        )
    if data is None:
        raise UsageError(
            f"{path} is not the file that the model was trained on: sha256 {sha256}, expected {stored.sha256}; "
            f"pass --data {path} to use it as it is, or --data with the original file"
        )
    note = f"{data} is not the {unit} that the model was trained on (sha256 {sha256}, not {stored.sha256})"
    return Found(path, options, (f"{note}: its figures cannot be compared with earlier ones",))

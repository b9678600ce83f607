"""metrics.jsonl: the training curve, one JSON object a line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rnnprune.errors import StorageError
from rnnprune.formats.run_folder import dump_plain
from rnnprune.formats.state_folder import Snapshot
from rnnprune.training.loop import StepRecord

CURVE_POINTS = 200  # training lines in metrics.jsonl, beside one for every mask update


class Curve:
    """The file, open to be written on."""

    def __init__(self, path: Path, saved: Snapshot | None = None) -> None:
        """Begin, or go on where `saved` was taken: lines behind that were written by steps that are taken again."""
        self.path = path
        length = 0 if saved is None else saved.document["metrics_bytes"]
        with _writing(path):
            self._file = path.open("r+b" if length and path.exists() else "wb")
            self._file.truncate(min(length, os.fstat(self._file.fileno()).st_size))
            self._file.seek(0, os.SEEK_END)

    def write(self, phase: str, record: StepRecord) -> None:
        """Every mask update, and about CURVE_POINTS steps besides."""
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
        with _writing(self.path):
            self._file.write(dump_plain(line).encode() + b"\n")
            self._file.flush()

    def sync(self) -> int:
        """Make what was written durable, and say how many bytes it is."""
        with _writing(self.path):
            self._file.flush()
            os.fsync(self._file.fileno())
            return self._file.tell()

    def close(self) -> None:
        """No more lines."""
        with _writing(self.path):
            self._file.close()


class NoCurve:
    """For a process that does not write."""

    def write(self, phase: str, record: StepRecord) -> None:
        """Nothing."""

    def sync(self) -> int:
        """Nothing was written."""
        return 0

    def close(self) -> None:
        """Nothing."""


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Around the writing alone: an OSError of the task's own code is not a full disk."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}; free some space") from error

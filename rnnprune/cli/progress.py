"""Progress on stderr: a live bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from rnnprune.training.loop import StepRecord
from rnnprune.workflows.finetune import Figures, Observer, Phase

SECONDS_BETWEEN_LINES = 10.0
LABELS = {"dense": "the checkpoint, before", "dense_control": "dense, trained on", "sparse": "sparse"}


class Progress(Observer):
    """Steps per second, loss, sparsity and time left."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, markup=False)
        self._live = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} {task.fields[told]}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._bars: dict[str, _Bar] = {}

    def __enter__(self) -> Progress:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def step(self, phase: Phase, record: StepRecord) -> None:
        self._advance("training on" if phase == "control" else phase, record)

    def training(self, record: StepRecord) -> None:
        """A step of plain dense training."""
        self._advance("training", record)

    def note(self, text: str) -> None:
        self._console.print(text, highlight=False)

    def figures(self, label: str, figures: Figures) -> None:
        told = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
        self._console.print(f"{LABELS[label]}: {told} (test split)", highlight=False)

    def _advance(self, label: str, record: StepRecord) -> None:
        if label not in self._bars or record.step == 1:  # a search trains in several stages
            self._bars[label] = _Bar(self._live.add_task(label, total=record.total_steps, told=""))
        bar = self._bars[label]
        told = bar.tell(record)
        self._live.update(bar.task, completed=record.step, told=told)
        if self._live.disable and (bar.is_due() or record.step == record.total_steps):
            print(f"{label} {record.step}/{record.total_steps} {told}", file=sys.stderr, flush=True)


class _Bar:
    """One phase: when it began, and a loss smoothed over about 50 steps."""

    def __init__(self, task: TaskID) -> None:
        self.task = task
        self._began = self._told = time.monotonic()
        self._loss: float | None = None
        self._first: int | None = None

    def tell(self, record: StepRecord) -> str:
        """The figures of this step in one line."""
        self._loss = record.loss if self._loss is None else 0.98 * self._loss + 0.02 * record.loss
        self._first = record.step - 1 if self._first is None else self._first  # a run that is gone on with begins later
        rate = (record.step - self._first) / max(time.monotonic() - self._began, 1e-9)
        left = (record.total_steps - record.step) / rate
        sparsity = f", sparsity {record.sparsity:.3f}" if record.sparsity else ""
        return f"{rate:.1f} steps/s, loss {self._loss:.3f}{sparsity}, {left:.0f} s left"

    def is_due(self) -> bool:
        """Whether a plain line should be printed now."""
        now = time.monotonic()
        if now - self._told < SECONDS_BETWEEN_LINES:
            return False
        self._told = now
        return True

"""Training that is never lost: gone on with from the saved state, saved when due, at a stop, and at the end."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn

from rnnprune.errors import Diverged, Interrupted
from rnnprune.formats.state_folder import Snapshot, StateFolder
from rnnprune.pruning.pruner import Pruner
from rnnprune.tasks.protocol import Task
from rnnprune.training.loop import StepRecord, train
from rnnprune.training.options import SaveEvery
from rnnprune.training.position import Position
from rnnprune.training.recipe import Recipe
from rnnprune.training.run_state import RunState
from rnnprune.training.stopping import Stop, stopping_after_the_step
from rnnprune.training.workers import ALONE, Workers


class RunParts(NamedTuple):
    """What is trained, on what and how: the arguments of `training.loop.train`."""

    model: nn.Module
    task: Task
    recipe: Recipe
    optimizer: torch.optim.Optimizer
    total_steps: int
    pruner: Pruner | None = None


class Keeper:
    """Saves the state of a run that trains in one or more phases.

    saved: the snapshot to go on from, if any. about: what the caller wants to find in the document next time; called at
    every save, in the first process alone.
    """

    def __init__(
        self,
        folder: StateFolder,
        every: SaveEvery,
        saved: Snapshot | None,
        about: Callable[[], Mapping[str, Any]],
        workers: Workers = ALONE,
    ) -> None:
        self._folder, self._workers = folder, workers
        self._every, self._saved, self._about = every, saved, about
        self._last_save = time.monotonic()
        if workers.is_first:
            folder.clean()

    def train(self, phase: str, parts: RunParts, observe: Callable[[StepRecord], None]) -> None:
        """Train to the end of the phase, `observe` every step.

        Raises Interrupted after a signal, Diverged and StorageError, always with a state to go on from.
        """
        model, task, recipe, optimizer, _, pruner = parts
        position = Position(task, recipe, next(model.parameters()).device, self._workers)
        state = RunState(model, optimizer, position, pruner, self._workers)
        if self._saved is not None and self._saved.document["phase"] == phase:
            state.put_back(self._saved)
        with stopping_after_the_step() as stop:
            try:
                for record in train(*parts, position=position, workers=self._workers):
                    observe(record)
                    self._after_step(phase, state, stop)
            except Diverged as error:
                self._save(phase, state)
                raise Diverged(f"{error}; what was good is saved in {self._folder.path}") from error
            self._save(phase, state)

    @contextmanager
    def telling_what_is_saved(self) -> Iterator[None]:
        """A signal outside of the steps, while the model is scored say, finds the last state saved."""
        try:
            yield
        except Interrupted as error:
            if not str(error) and self._folder.path.is_dir():
                raise Interrupted(error.signal, f"the same command goes on from {self._folder.path}") from error
            raise

    def _after_step(self, phase: str, state: RunState, stop: Stop) -> None:
        interrupted, terminated, due = self._workers.any(
            stop.signal == signal.SIGINT, stop.signal == signal.SIGTERM, self._is_due(state.position.step)
        )
        if interrupted or terminated or due:
            self._save(phase, state)
        if interrupted or terminated:
            raise Interrupted(
                signal.SIGINT if interrupted else signal.SIGTERM,
                f"stopped after step {state.position.step}; the same command goes on from {self._folder.path}",
            )

    def _is_due(self, step: int) -> bool:
        if self._every.steps is not None:
            return step % self._every.steps == 0
        return self._every.seconds is not None and time.monotonic() - self._last_save >= self._every.seconds

    def _save(self, phase: str, state: RunState) -> None:
        snapshot = state.take()
        if self._workers.is_first:
            self._folder.save(snapshot._replace(document={**self._about(), "phase": phase, **snapshot.document}))
        self._last_save = time.monotonic()

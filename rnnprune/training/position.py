"""Where a training run stands: all that changes from step to step beside weights, moments and masks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch

from rnnprune.errors import Diverged, UsageError
from rnnprune.tasks.lm import Carried
from rnnprune.tasks.protocol import Task
from rnnprune.training.random_state import random_state, seed_all, set_random_state
from rnnprune.training.recipe import Recipe
from rnnprune.training.workers import ALONE, Workers

MOST_SKIPPED = 10
_END = object()


class Position:
    """The step, the next batch, the loss scale and the random numbers of one run; begins at the start.

    step: optimizer steps taken. sparsity: after the last mask update. skipped: batches in a row without a step because
    something in them was not finite. epoch, index: of the next batch.
    """

    def __init__(self, task: Task, recipe: Recipe, device: torch.device, workers: Workers = ALONE) -> None:
        seed_all(recipe.seed + workers.rank)  # dropout is each process's own, the order of the data is not
        self.step, self.sparsity, self.skipped = 0, 0.0, 0
        self.epoch, self.index = 0, 0
        self.scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16")
        self._task, self._recipe, self._device, self._workers = task, recipe, device, workers
        self._begin_epoch()

    def next_batch(self) -> Any:
        """The next batch of this process's share of the data. UsageError when an epoch has none."""
        batch = next(self._batches, _END)
        if batch is _END:
            if self.index == 0:
                raise UsageError(f"epoch {self.epoch} of the training data has no batch; is the data empty?")
            self.epoch, self.index = self.epoch + 1, 0
            self._begin_epoch()
            return self.next_batch()
        self.index += 1
        return batch

    def advance(self, sparsity: float | None) -> None:
        """A step was taken; the sparsity after it, where the masks changed."""
        self.step, self.skipped = self.step + 1, 0
        self.sparsity = self.sparsity if sparsity is None else sparsity

    def skip(self, found: str) -> None:
        """A batch that makes no step. Raises Diverged at the tenth in a row."""
        self.skipped += 1
        if self._carried is not None:
            self._task.carried = None  # type: ignore[attr-defined]  # what a bad batch left would spoil the next one
        if self.skipped >= MOST_SKIPPED:
            raise Diverged(
                f"{found} at step {self.step + 1}, in {MOST_SKIPPED} batches in a row; "
                "try a lower --lr or a smaller --clip-norm"
            )

    def to_plain(self) -> dict[str, Any]:
        """What `go_on_from` needs; plain data."""
        return {
            "step": self.step,
            "sparsity": self.sparsity,
            "skipped": self.skipped,
            "world_size": self._workers.world_size,
            "epoch": self.epoch,
            "index": self.index,
            "scaler": self.scaler.state_dict(),
            "epoch_random": self._epoch_random,
            "random": random_state(self._task, self._device),
            "carried": carried_to_plain(self._carried),
        }

    def go_on_from(self, plain: dict[str, Any]) -> None:
        """Stand where `to_plain` was called: exactly there, or among another number of processes in about that place of
        the data and with new random numbers."""
        exactly = plain["world_size"] == self._workers.world_size
        self.step, self.sparsity, self.skipped = plain["step"], plain["sparsity"], plain["skipped"]
        self.epoch, self.index = plain["epoch"], plain["index"] * plain["world_size"] // self._workers.world_size
        self.scaler.load_state_dict(plain["scaler"])
        if exactly:
            set_random_state(plain["epoch_random"], self._task, self._device)
        else:
            seed_all(self._recipe.seed + self._workers.rank + self.step)
        self._begin_epoch()
        for _ in itertools.islice(self._batches, self.index):
            pass
        if exactly:
            set_random_state(plain["random"], self._task, self._device)
            if plain["carried"] is not None:
                self._task.carried = carried_from_plain(plain["carried"], self._device)  # type: ignore[attr-defined]

    @property
    def _carried(self) -> Carried | None:
        """A language model's; what a user's own task means by that name is its own."""
        carried = getattr(self._task, "carried", None)
        return carried if isinstance(carried, Carried) else None

    def _begin_epoch(self) -> None:
        # A loader that shuffles draws here, from the global generator: kept, so that a resumed epoch is the same one.
        self._epoch_random = random_state(self._task, self._device)
        workers = self._workers
        batches = self._task.train_batches(
            epoch=self.epoch, seed=self._recipe.seed, rank=workers.rank, world_size=workers.world_size
        )
        self._batches: Iterator[Any] = iter(batches)


def carried_to_plain(carried: Carried | None) -> dict[str, Any] | None:
    """The state that a language model carries from batch to batch, as numbers, which JSON holds exactly."""
    if carried is None:
        return None
    return {
        "place": carried.place,
        "state": [[str(part.dtype).removeprefix("torch."), part.tolist()] for part in carried.state],
    }


def carried_from_plain(plain: dict[str, Any], device: torch.device) -> Carried:
    """The inverse of `carried_to_plain`."""
    state = (torch.tensor(values, dtype=getattr(torch, dtype), device=device) for dtype, values in plain["state"])
    return Carried(plain["place"], tuple(state))

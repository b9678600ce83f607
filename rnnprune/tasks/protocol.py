"""What rnnprune must be told to train a model: the Task protocol.

A user's own task is a Python file with a function that returns an object with these members; nothing has to be
imported or inherited. `rnnprune finetune CKPT --task my_task.py:make` finds it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from rnnprune.tasks.options import Goal, Split


@runtime_checkable
class Task(Protocol):
    """A model, its training data, its loss and its metric.

    metric: the name of the figure that decides, a key of what `evaluate` returns (`perplexity`, `PER`).
    goal: "min" when a smaller metric is better, "max" when a larger one is.

    One more method is asked for by `--distill` alone: see `tasks.taught.Distillable`.
    """

    metric: str
    goal: Goal

    def build_model(self) -> nn.Module:
        """The untrained model, of plain torch.nn modules; the checkpoint is loaded into it strictly."""

    def train_batches(self, *, epoch: int, seed: int, rank: int, world_size: int) -> Iterable[Any]:
        """One epoch's batches for one process: a pure function of its arguments.

        Give the iterable a `__len__` (a list, or a class of your own) and `--epochs` works beside `--steps`.
        """

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """The training loss of one batch, a scalar."""

    def evaluate(self, model: nn.Module, split: Split) -> Mapping[str, float]:
        """Every figure of the split, the one named `metric` among them; called in eval mode, without gradients."""

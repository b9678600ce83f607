"""The training loop, written once: dense training, the dense control and the pruned run differ by their pruner."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sized
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rnnprune.errors import Diverged, UsageError
from rnnprune.pruning.pruner import Pruner, PruningUpdate
from rnnprune.tasks.options import Split
from rnnprune.tasks.protocol import Task
from rnnprune.training.recipe import DEFAULT_STEPS, Recipe


@dataclass(frozen=True)
class StepRecord:
    """One optimizer step: its number (from 1), the loss before it, the rate used, the sparsity after it."""

    step: int
    total_steps: int
    loss: float
    learning_rate: float
    sparsity: float
    update: PruningUpdate | None


def build_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer over every parameter that wants a gradient."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(parameters, recipe.lr, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay)
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return kind(parameters, recipe.lr, weight_decay=recipe.weight_decay)


def planned_steps(task: Task, recipe: Recipe) -> int:
    """Optimizer steps of the whole run. Raises UsageError for `--epochs` when the batches do not tell their number."""
    if recipe.epochs is None:
        return recipe.steps or DEFAULT_STEPS
    batches = task.train_batches(epoch=0, seed=recipe.seed, rank=0, world_size=1)
    if not isinstance(batches, Sized):
        raise UsageError(
            "--epochs needs to know how many batches an epoch has: let train_batches return something "
            "with a __len__, or give --steps"
        )
    return max(1, round(recipe.epochs * len(batches)))


def train(
    model: nn.Module,
    task: Task,
    recipe: Recipe,
    optimizer: torch.optim.Optimizer,
    total_steps: int,
    pruner: Pruner | None = None,
) -> Iterator[StepRecord]:
    """Train in place, one record per optimizer step. Gradients are masked as they are accumulated, then clipped.

    Raises Diverged at the first loss that is not finite, before the step.
    """
    torch.manual_seed(recipe.seed)
    device, sparsity = next(model.parameters()).device, 0.0
    model.train()
    for step, batch in enumerate(itertools.islice(_batches(task, recipe.seed), total_steps), start=1):
        learning_rate = recipe.learning_rate(step, total_steps)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        optimizer.zero_grad(set_to_none=True)
        loss = task.loss(model, to_device(batch, device))
        if not math.isfinite(loss.item()):
            raise Diverged(f"the loss is {loss.item()} at step {step}; try a lower --lr or a smaller --clip-norm")
        loss.backward()  # type: ignore[no-untyped-call]
        if recipe.clip_norm:
            nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        optimizer.step()
        update = pruner.step() if pruner is not None else None
        sparsity = sparsity if update is None else update.sparsity
        yield StepRecord(step, total_steps, loss.item(), learning_rate, sparsity, update)


def evaluate(model: nn.Module, task: Task, split: Split) -> dict[str, float]:
    """The task's figures on a split, in eval mode and without gradients; the model's mode is put back.

    Raises UsageError when the figure that the task calls its metric is missing.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():  # not inference_mode: what a model caches in its forward must serve training too
            figures = {name: float(value) for name, value in task.evaluate(model, split).items()}
    finally:
        for module, mode in modes:
            module.training = mode
    if task.metric not in figures:
        raise UsageError(
            f"the task's metric is {task.metric!r}, but its evaluate() returned only {', '.join(figures) or 'nothing'}"
        )
    return figures


def to_device(batch: Any, device: torch.device) -> Any:
    """The batch with every tensor in it on the device; containers of tensors may nest."""
    if hasattr(batch, "to"):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple | list):
        moved = [to_device(value, device) for value in batch]
        return type(batch)(*moved) if hasattr(batch, "_fields") else type(batch)(moved)
    return batch


def _batches(task: Task, seed: int) -> Iterator[Any]:
    for epoch in itertools.count():
        empty = True
        for batch in task.train_batches(epoch=epoch, seed=seed, rank=0, world_size=1):
            empty = False
            yield batch
        if empty:
            raise UsageError(f"epoch {epoch} of the training data has no batch; is the data empty?")

"""The training loop, written once: dense training, the dense control and the pruned run differ by their pruner."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sized
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rnnprune.errors import UsageError
from rnnprune.pruning.pruner import Pruner, PruningUpdate
from rnnprune.tasks.options import Split
from rnnprune.tasks.protocol import Task
from rnnprune.training.position import Position
from rnnprune.training.recipe import DEFAULT_STEPS, Precision, Recipe
from rnnprune.training.workers import ALONE, Workers

DTYPES: Mapping[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


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


def planned_steps(task: Task, recipe: Recipe, workers: Workers = ALONE) -> int:
    """Optimizer steps of the whole run. Raises UsageError for `--epochs` when the batches do not tell their number."""
    if recipe.epochs is None:
        return recipe.steps or DEFAULT_STEPS
    batches = task.train_batches(epoch=0, seed=recipe.seed, rank=workers.rank, world_size=workers.world_size)
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
    *,
    position: Position | None = None,
    workers: Workers = ALONE,
) -> Iterator[StepRecord]:
    """Train in place, one record per optimizer step. Gradients are masked as they are accumulated, then clipped.

    position: where to go on from, and kept up to date; the start if None. A batch that is not finite, or whose loss or
    gradients are not, makes no step and no mask update; Diverged is raised at the tenth in a row.
    """
    position = position or Position(task, recipe, next(model.parameters()).device, workers)
    loss_of, scaler = workers.loss_of(model, task), position.scaler
    model.train()
    while position.step < total_steps:
        batch = position.next_batch()
        learning_rate = recipe.learning_rate(position.step + 1, total_steps)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        optimizer.zero_grad(set_to_none=True)
        if workers.any(not is_finite(batch))[0]:
            position.skip("the batch holds NaN or infinity")
            continue
        buffers = [buffer.clone() for buffer in model.buffers()]
        loss = workers.mean(_backward(loss_of, batch, model, recipe.precision, scaler))
        scaler.unscale_(optimizer)
        norm = float(clip(model, recipe.clip_norm))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            _take_back(model, buffers)
            if not math.isfinite(loss) or not _scale_was_too_high(scaler):
                position.skip(f"the loss is {loss:g} and the norm of the gradients {norm:g}")
            scaler.update()
            continue
        scaler.step(optimizer)
        scaler.update()
        update = pruner.step() if pruner is not None else None
        position.advance(None if update is None else update.sparsity)
        yield StepRecord(position.step, total_steps, loss, learning_rate, position.sparsity, update)


def _backward(
    loss_of: Callable[[Any], Tensor],
    batch: Any,
    model: nn.Module,
    precision: Precision,
    scaler: torch.amp.GradScaler,
) -> float:
    """The loss of a batch; its gradients, times the scale, are left in the model."""
    device = next(model.parameters()).device
    with torch.autocast(device.type, DTYPES[precision], enabled=precision != "fp32"):
        loss = loss_of(to_device(batch, device))
    scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    return loss.item()


def clip(model: nn.Module, norm: float) -> Tensor:
    """Bound the norm of all gradients together (0 leaves them alone) and give what it was."""
    if norm:
        return nn.utils.clip_grad_norm_(model.parameters(), norm)
    return nn.utils.get_total_norm([each.grad for each in model.parameters() if each.grad is not None])


def _scale_was_too_high(scaler: torch.amp.GradScaler) -> bool:
    """float16 overflows until its scale has come down: to 1, where an overflow is the model's own."""
    return scaler.is_enabled() and scaler.get_scale() > 1.0


@torch.no_grad()
def _take_back(model: nn.Module, buffers: list[Tensor]) -> None:
    """Running means that a bad batch went into."""
    for buffer, before in zip(model.buffers(), buffers, strict=True):
        buffer.copy_(before)


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


def is_finite(batch: Any) -> bool:
    """Whether no number in the batch is NaN or infinite; containers of tensors may nest."""
    if isinstance(batch, Tensor):
        return not batch.is_floating_point() or bool(batch.isfinite().all())
    if isinstance(batch, Mapping):
        return all(map(is_finite, batch.values()))
    return not isinstance(batch, tuple | list) or all(map(is_finite, batch))


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

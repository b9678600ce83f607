"""`rnnprune task check`: whether a user's own task will carry a fine-tuning run, found out on two batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rnnprune.errors import UsageError
from rnnprune.pruning.selection import choose, roles_of_module
from rnnprune.tasks.loader import load_task, user_code
from rnnprune.tasks.options import Split
from rnnprune.tasks.protocol import Task
from rnnprune.training.loop import evaluate
from rnnprune.workflows.subject import load_model, open_subject

BATCHES = 2  # looked at of every epoch


@dataclass(frozen=True)
class Check:
    """One thing that a run relies on; detail tells what was found, or what to mend."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class Checked:
    """Every check up to the first that makes the following ones senseless."""

    spec: str
    checks: tuple[Check, ...]

    @property
    def failed(self) -> list[Check]:
        return [check for check in self.checks if not check.passed]

    def to_json(self) -> dict[str, Any]:
        """The contract of `--json`."""
        return {"task": self.spec, "passed": not self.failed, "checks": [asdict(check) for check in self.checks]}


def check_task(spec: str, checkpoint: Path, data: Path | None = None) -> Checked:
    """Try a task on a checkpoint. What the user's code raises becomes a failed check that names its line."""
    return Checked(spec, tuple(_checks(spec, checkpoint, data)))


def _checks(spec: str, checkpoint: Path, data: Path | None) -> Iterator[Check]:
    try:
        task = load_task(spec, data)
        yield Check("the file gives a task", True, f"metric {task.metric}, goal {task.goal}")
        with user_code(spec, "build_model() failed"):
            model = load_model(task, open_subject(checkpoint))
        yield Check("the checkpoint fits build_model()", True, f"{len(model.state_dict())} tensors, strictly")
    except UsageError as error:
        yield Check("the task and the checkpoint can be loaded", False, str(error))
        return
    yield _tried("the same seed gives the same batches", lambda: _same_batches(spec, task))
    yield _tried("two processes get different batches", lambda: _disjoint_shards(spec, task))
    yield _tried("the loss is finite, and every tensor to prune gets a gradient", lambda: _gradients(spec, task, model))
    yield _tried("evaluate() gives the metric", lambda: _figures(spec, task, model))


def _tried(name: str, attempt: Callable[[], str]) -> Check:
    try:
        return Check(name, True, attempt())
    except UsageError as error:
        return Check(name, False, str(error))


def _first_batches(spec: str, task: Task, rank: int = 0, world_size: int = 1) -> list[Any]:
    with user_code(spec, "train_batches() failed"):
        return list(islice(task.train_batches(epoch=0, seed=0, rank=rank, world_size=world_size), BATCHES))


def _same_batches(spec: str, task: Task) -> str:
    batches = _first_batches(spec, task)
    if not batches:
        raise UsageError("train_batches() gave no batch; is the data empty?")
    if not _same(batches, _first_batches(spec, task)):
        raise UsageError(
            "train_batches(epoch=0, seed=0) gave other batches the second time; draw from a generator that is seeded "
            "with epoch and seed, or an interrupted run cannot go on as it was"
        )
    return f"{len(batches)} batches compared"


def _disjoint_shards(spec: str, task: Task) -> str:
    first, second = (_first_batches(spec, task, rank, 2) for rank in range(2))
    if not first or not second:
        raise UsageError("with world_size=2 a process got no batch; the data may be too short to share out")
    if any(_same(mine, theirs) for mine in first for theirs in second):
        raise UsageError(
            "rank 0 and rank 1 of world_size=2 got the same batch; give each its own, as in batches[rank::world_size]"
        )
    return "rank 0 and 1 of 2"


def _gradients(spec: str, task: Task, model: nn.Module) -> str:
    model.train()
    losses = []
    for batch in _first_batches(spec, task):
        with user_code(spec, "loss() failed"):
            loss = task.loss(model, batch)
        if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
            raise UsageError("loss() must return a scalar tensor that depends on the model's weights")
        if not math.isfinite(loss.item()):
            raise UsageError(f"the loss is {loss.item()}; look for a division by zero or a logarithm of it")
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.item())
    parameters = dict(model.named_parameters())
    shapes = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    roles = {name: role for name, role in roles_of_module(model).items() if name in parameters}
    pruned = [choice.name for choice in choose(roles, shapes) if choice.pruned]
    if dead := [name for name in pruned if not _has_gradient(parameters[name])]:
        raise UsageError(
            f"no gradient reaches {', '.join(dead[:5])}{' ...' if len(dead) > 5 else ''}: the loss does not depend on "
            "them; use all of the model in loss(), or leave them out with --exclude"
        )
    return f"loss {', '.join(f'{loss:.4g}' for loss in losses)}; {len(pruned)} tensors to prune"


def _has_gradient(parameter: nn.Parameter) -> bool:
    return parameter.grad is not None and bool(torch.count_nonzero(parameter.grad))


def _figures(spec: str, task: Task, model: nn.Module) -> str:
    splits: tuple[Split, ...] = ("validation", "test")
    found = []
    for split in splits:
        with user_code(spec, f"evaluate(model, {split!r}) failed"):
            figures = evaluate(model, task, split)
            again = evaluate(model, task, split)
        if figures != again and all(map(math.isfinite, figures.values())):
            raise UsageError(f"evaluate(model, {split!r}) gave {figures}, then {again}: it must not depend on chance")
        found.append(f"{split} {task.metric} {figures[task.metric]:.4g}")
    return ", ".join(found)


def _same(a: Any, b: Any) -> bool:
    """Whether two batches hold the same values, however their containers nest."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and torch.equal(a, b)
    if isinstance(a, Mapping):
        return isinstance(b, Mapping) and a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, Sequence) and not isinstance(a, str | bytes):
        return isinstance(b, Sequence) and len(a) == len(b) and all(map(_same, a, b))
    if hasattr(a, "__dict__"):
        return type(a) is type(b) and _same(vars(a), vars(b))
    return bool(torch.equal(torch.as_tensor(a), torch.as_tensor(b))) if hasattr(a, "__array__") else bool(a == b)

"""A task whose loss also listens to a teacher: knowledge distillation on the model's own outputs.

    loss = (1 - w) task loss + w T^2 KL(softmax(t / T) || softmax(s / T))

s and t: logits of student and teacher, one row for every position that counts (a frame, a token, a sequence); the mean
over rows is taken. T^2 keeps the two gradients of one size: Hinton, Vinyals, Dean, "Distilling the Knowledge in a
Neural Network", 2015 (arXiv 1503.02531). For sequences this is word-level distillation, given the true words before:
Kim, Rush, "Sequence-Level Knowledge Distillation", EMNLP 2016. Their sequence level needs no mixed loss: the student
learns the task itself, with the teacher's answers in place of the true ones (`Retellable`).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rnnprune.errors import UsageError
from rnnprune.tasks.lm import Carried, LmTask
from rnnprune.tasks.options import Goal, Split
from rnnprune.tasks.protocol import Task


@runtime_checkable
class Distillable(Protocol):
    """What a task has besides the Task protocol where a teacher may be listened to."""

    def loss_and_logits(self, model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        """What `loss` gives, and the logits [positions, classes] of the same forward pass, padding left out."""


@runtime_checkable
class Retellable(Protocol):
    """What a task has besides the Task protocol where the answers themselves are sequences that a teacher can give."""

    def retold(self, teacher: nn.Module) -> Task:
        """The same task with the teacher's answers in place of the training set's; all else as it was."""


class Lesson(NamedTuple):
    """temperature: T > 0, the larger the more is said about unlikely classes. weight: w, 0 < w <= 1."""

    temperature: float = 2.0
    weight: float = 0.5

    def require_sense(self) -> None:
        """Raise UsageError for values outside of their ranges."""
        if not 0 < self.temperature < math.inf:
            raise UsageError(f"--distill-temperature must be above 0 and finite, found {self.temperature}")
        if not 0 < self.weight <= 1:
            raise UsageError(f"--distill-weight is a share of the loss, above 0 and at most 1; found {self.weight}")


class Taught:
    """The task of a student, after the Task protocol; all but the loss is the task's own."""

    metric: str
    goal: Goal

    def __init__(self, task: Task, teacher: nn.Module, lesson: Lesson) -> None:
        """teacher: trained, on the device of the student. UsageError where the task does not give its logits."""
        if not isinstance(task, Distillable):
            raise UsageError(
                f"--distill needs the logits of the task, and {type(task).__name__} does not give them: add a method "
                "loss_and_logits(self, model, batch) that returns its loss and the logits [positions, classes] of the "
                "same forward pass, padding left out"
            )
        # A run saves the random generators that it finds among its task's attributes.
        vars(self).update({name: value for name, value in vars(task).items() if name != "carried"})
        self.metric, self.goal = task.metric, task.goal
        self._task, self._lesson = task, lesson
        self._teachers_task = copy.copy(task)  # what a task carries from batch to batch is each model's own
        self._teacher = teacher.eval().requires_grad_(False)

    def build_model(self) -> nn.Module:
        """The task's."""
        return self._task.build_model()

    def train_batches(self, *, epoch: int, seed: int, rank: int, world_size: int) -> Iterable[Any]:
        """The task's."""
        return self._task.train_batches(epoch=epoch, seed=seed, rank=rank, world_size=world_size)

    def evaluate(self, model: nn.Module, split: Split) -> Mapping[str, float]:
        """The task's."""
        return self._task.evaluate(model, split)

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """The mixed loss. Raises UsageError where the teacher tells other classes apart."""
        loss, logits = cast(Distillable, self._task).loss_and_logits(model, batch)
        with torch.no_grad():
            _, targets = cast(Distillable, self._teachers_task).loss_and_logits(self._teacher, batch)
        if targets.shape != logits.shape:
            raise UsageError(
                f"--distill: the teacher gives logits {list(targets.shape)} where the student gives "
                f"{list(logits.shape)}; take a teacher with the same vocabulary or labels"
            )
        temperature, weight = self._lesson
        return (1 - weight) * loss + weight * temperature**2 * divergence(logits / temperature, targets / temperature)

    @property
    def carried(self) -> Carried | None:
        """What a language model carries from batch to batch: the student's state, then the teacher's; else None."""
        mine, theirs = (getattr(task, "carried", None) for task in (self._task, self._teachers_task))
        return None if mine is None or theirs is None else Carried(mine.place, (*mine.state, *theirs.state))

    @carried.setter
    def carried(self, carried: Carried | None) -> None:
        if not isinstance(self._task, LmTask) or not isinstance(self._teachers_task, LmTask):
            return
        if carried is None:
            self._task.carried = self._teachers_task.carried = None
            return
        theirs = 2 if any(isinstance(module, nn.LSTM) for module in self._teacher.modules()) else 1
        self._task.carried = Carried(carried.place, carried.state[:-theirs])
        self._teachers_task.carried = Carried(carried.place, carried.state[-theirs:])


def divergence(
    student: Float[Tensor, "positions classes"], teacher: Float[Tensor, "positions classes"]
) -> Float[Tensor, ""]:
    """KL(softmax(teacher) || softmax(student)) in nats, the mean over positions, in float32 at least."""
    wide = torch.promote_types(student.dtype, torch.float32)
    of_student, of_teacher = (each.to(wide).log_softmax(-1) for each in (student, teacher))
    return F.kl_div(of_student, of_teacher, reduction="batchmean", log_target=True)

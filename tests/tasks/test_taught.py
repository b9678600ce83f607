"""The loss with a teacher, against the formula written out; every built-in task gives its logits without padding."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnnprune.errors import UsageError
from rnnprune.tasks.ctc.task import CtcTask, Utterances
from rnnprune.tasks.lm import Carried, LmModelSpec, LmTask
from rnnprune.tasks.seq2seq.task import PairBatch, Seq2SeqTask
from rnnprune.tasks.tag.task import Batch, ClassifyTask, TagTask
from rnnprune.tasks.taught import Lesson, Taught, divergence
from rnnprune.tasks.text import StreamBatch


class Rows:
    """Rows of numbers in three classes."""

    metric, goal = "error", "min"

    def build_model(self) -> nn.Module:
        return nn.Linear(4, 3)

    def train_batches(self, *, epoch: int, seed: int, rank: int, world_size: int) -> list[Tensor]:  # noqa: ARG002
        return [torch.ones(2, 4)]

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        return self.loss_and_logits(model, batch)[0]

    def loss_and_logits(self, model: nn.Module, batch: Tensor) -> tuple[Tensor, Tensor]:
        logits = model(batch)
        return F.cross_entropy(logits, torch.zeros(len(batch), dtype=torch.long)), logits

    def evaluate(self, model: nn.Module, split: str) -> Mapping[str, float]:  # noqa: ARG002
        return {"error": 1.0}


class Silent(Rows):
    """Does not give its logits."""

    loss_and_logits = None  # type: ignore[assignment]


def test_the_loss_is_the_formula_written_out() -> None:
    task, student, teacher, batch = Rows(), nn.Linear(4, 3), nn.Linear(4, 3), torch.randn(5, 4)
    found = Taught(task, teacher, Lesson(temperature=3.0, weight=0.25)).loss(student, batch)
    s, t = student(batch).double() / 3, teacher(batch).double() / 3
    p, log_q = t.exp() / t.exp().sum(1, keepdim=True), s - s.exp().sum(1, keepdim=True).log()
    kl = (p * (p.log() - log_q)).sum(1).mean()
    expected = 0.75 * task.loss(student, batch).double() + 0.25 * 9 * kl
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    found.backward()
    assert student.weight.grad is not None
    assert teacher.weight.grad is None


def test_a_student_like_its_teacher_has_nothing_to_learn_from_it() -> None:
    logits = torch.randn(6, 5)
    assert divergence(logits, logits + 7.0).item() == pytest.approx(0.0, abs=1e-6)


def test_a_task_without_logits_and_a_teacher_of_other_classes_are_refused() -> None:
    task = Rows()
    with pytest.raises(UsageError, match=r"add a method loss_and_logits\(self, model, batch\) that returns its loss"):
        Taught(Silent(), nn.Linear(4, 3), Lesson())
    with pytest.raises(UsageError, match=r"the teacher gives logits \[5, 2\] where the student gives \[5, 3\]"):
        Taught(task, nn.Linear(4, 2), Lesson()).loss(nn.Linear(4, 3), torch.randn(5, 4))


@pytest.mark.parametrize(
    ("lesson", "text"),
    [
        (Lesson(temperature=0.0), "--distill-temperature must be above 0"),
        (Lesson(temperature=math.inf), "and finite, found inf"),
        (Lesson(weight=0.0), "--distill-weight is a share of the loss"),
        (Lesson(weight=1.5), "at most 1; found 1.5"),
    ],
)
def test_a_lesson_without_sense_is_refused(lesson: Lesson, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        lesson.require_sense()


def fixed(*outputs: Any) -> nn.Module:
    """A model that gives these outputs, whatever it is given."""
    model = nn.Linear(1, 1)
    model.forward = lambda *_: outputs[0] if len(outputs) == 1 else outputs  # type: ignore[method-assign]
    return model


LOGITS = torch.arange(2 * 3 * 4, dtype=torch.float32).view(2, 3, 4)
LENGTHS = torch.tensor([3, 1])
KEPT = torch.stack([LOGITS[0, 0], LOGITS[0, 1], LOGITS[0, 2], LOGITS[1, 0]])
CASES: dict[str, tuple[Any, nn.Module, Any, Tensor]] = {
    "lm": (LmTask, fixed(LOGITS, None), torch.ones(2, 4, dtype=torch.long), LOGITS.view(6, 4)),
    "seq2seq": (Seq2SeqTask, fixed(LOGITS), PairBatch(LENGTHS[:, None], torch.tensor([[2, 2, 3], [3, 0, 0]])), KEPT),
    "ctc": (
        CtcTask,
        fixed(LOGITS, LENGTHS),
        Utterances(torch.zeros(2, 3, 1), LENGTHS, torch.tensor([1, 2]), torch.tensor([1, 1])),
        KEPT,
    ),
    "tag": (
        TagTask,
        fixed(LOGITS),
        Batch(torch.zeros(2, 3), LENGTHS, torch.tensor([[1, 1, 1], [1, -100, -100]])),
        KEPT,
    ),
    "classify": (ClassifyTask, fixed(LOGITS[0]), Batch(torch.zeros(3, 1), LENGTHS, torch.tensor([0, 1, 2])), LOGITS[0]),
}


@pytest.mark.parametrize(("kind", "model", "batch", "expected"), CASES.values(), ids=CASES.keys())
def test_every_built_in_task_gives_the_logits_that_count(
    kind: Any, model: nn.Module, batch: Any, expected: Tensor
) -> None:
    task = kind.__new__(kind)  # without its data, of which a loss needs nothing
    loss, logits = task.loss_and_logits(model, batch)
    assert torch.equal(logits, expected)
    assert torch.equal(loss, task.loss(model, batch))


@pytest.mark.parametrize("kinds", [("lstm", "lstm"), ("lstm", "gru"), ("gru", "lstm")])
def test_student_and_teacher_each_carry_a_state_of_their_own(kinds: tuple[Any, Any]) -> None:
    vocabulary = ("<unk>", "a", "b")
    student, teacher = (
        LmModelSpec(cell=kind, hidden=size, embedding=2, carry=True, vocabulary=vocabulary).build()
        for kind, size in zip(kinds, (3, 5), strict=True)
    )
    task = LmTask.__new__(LmTask)
    task.carried = None
    task.metric, task.goal = "bpc", "min"
    taught = Taught(task, teacher, Lesson())
    first, second = (StreamBatch(place, torch.randint(0, 3, (2, 6))) for place in (0, 1))
    taught.loss(student, first)
    kept = copy.deepcopy(taught.carried)
    assert isinstance(kept, Carried)
    assert [part.shape[-1] for part in kept.state] == [3] * (1 + (kinds[0] == "lstm")) + [5] * (
        1 + (kinds[1] == "lstm")
    )
    expected = taught.loss(student, second)
    taught.carried = None
    assert taught.loss(student, second) != expected
    taught.carried = kept
    assert torch.equal(taught.loss(student, second), expected)

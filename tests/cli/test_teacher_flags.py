"""`finetune --distill`: whom the model listens to, seen in the training curve; and teachers that will not do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SIZES = ("--seq-len", "20", "--batch-size", "8")
SHORT = ("--steps", "20", "--target", "0.5", *SIZES)
Program = Callable[..., Any]


@pytest.mark.usefixtures("finished")
def test_a_model_that_listens_to_itself_alone_begins_without_a_loss(rnnprune: Program) -> None:
    told = rnnprune("finetune", "ckpt.pt", "--distill", "--distill-weight", "1", "--out", "new", *SHORT)
    assert told.code == 0, told.err
    losses = [json.loads(line)["loss"] for line in Path("new/metrics.jsonl").read_text().splitlines()]
    assert losses[0] == pytest.approx(0.0, abs=1e-6)
    assert losses[-1] > 1e-5
    manifest = json.loads(Path("new/rnnprune.json").read_text())
    assert manifest["settings"]["distill"] == [None, [2.0, 1.0], "word"]


@pytest.mark.usefixtures("finished")
def test_the_teacher_may_be_larger_but_must_speak_of_the_same_tokens(rnnprune: Program) -> None:
    sizes = ("--hidden", "24", "--embedding", "4", "--cell", "gru", "--steps", "5", *SIZES)
    assert rnnprune("train", "lm", "--data", "letters.txt", "--out", "large.pt", *sizes).code == 0
    told = rnnprune("finetune", "ckpt.pt", "--distill", "--teacher", "large.pt", "--out", "new", *SHORT)
    assert told.code == 0, told.err
    Path("other.txt").write_text("xyz " * 500)
    assert rnnprune("train", "lm", "--data", "other.txt", "--out", "other.pt", *sizes).code == 0
    told = rnnprune("finetune", "ckpt.pt", "--distill", "--teacher", "other.pt", "--out", "third", *SHORT)
    assert told.code == 2
    assert "--teacher other.pt: another vocabulary than ckpt.pt; train both on the same data" in told.err


@pytest.mark.usefixtures("finished")
def test_a_pruned_model_names_its_teacher(rnnprune: Program) -> None:
    told = rnnprune("finetune", "ckpt-s90", "--target", "0.95", "--distill", "--steps", "20", *SIZES, "--out", "new")
    assert told.code == 2
    assert "--distill: ckpt-s90 is pruned already: name the dense checkpoint with --teacher FILE" in told.err
    told = rnnprune(
        "finetune", "ckpt.pt", "--distill", "--teacher", "ckpt-s90", "--steps", "20", *SIZES, "--out", "new"
    )
    assert told.code == 2
    assert "--distill: ckpt-s90 is pruned already: name the dense checkpoint" in told.err


@pytest.mark.usefixtures("finished")
def test_a_dense_run_may_teach(rnnprune: Program) -> None:
    dense = ("--dense", "--steps", "5", *SIZES, "--out", "dense")
    assert rnnprune("finetune", "ckpt.pt", *dense).code == 0
    told = rnnprune("finetune", "ckpt.pt", "--distill", "--teacher", "dense", "--out", "new", *SHORT)
    assert told.code == 0, told.err


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("flags", [("--distill-weight", "0.9"), ("--distill-temperature", "7")])
@pytest.mark.parametrize("command", ["finetune", "sweep"])
def test_nobody_listens_to_a_lesson_without_distill(rnnprune: Program, command: str, flags: tuple[str, ...]) -> None:
    told = rnnprune(command, "bare.pt", *flags)
    assert told.code == 2
    assert "flags that begin with --distill- go with --distill; add it, or drop them" in told.err


@pytest.mark.usefixtures("bare")
def test_nobody_hears_whole_answers_without_distill(rnnprune: Program) -> None:
    told = rnnprune("finetune", "bare.pt", "--distill-level", "sequence")
    assert (told.code, "go with --distill; add it" in told.err) == (2, True)

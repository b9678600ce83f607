"""`train`: an interrupted training goes on, and its state stands beside the checkpoint only until that is written."""

from __future__ import annotations

import signal
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from rnnprune.errors import Interrupted, UsageError
from rnnprune.tasks.lm import LmModelSpec, LmTask
from rnnprune.training.loop import StepRecord
from rnnprune.training.options import Keeping
from rnnprune.training.recipe import Recipe
from rnnprune.workflows.train import Trained, train_task

RECIPE = Recipe(20, lr=0.01)


@pytest.fixture
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = Path("text.txt")
    path.write_text("".join(np.random.default_rng(0).choice(list("abcd "), 2000)))
    return path


def train(text: Path, out: str, stop: int | None = None, recipe: Recipe = RECIPE, **more: Any) -> list[str]:
    return run(text, out, stop, recipe, **more)[1]


def run(
    text: Path, out: str, stop: int | None = None, recipe: Recipe = RECIPE, **more: Any
) -> tuple[Trained, list[str]]:
    spec = LmModelSpec(hidden=6, embedding=4, dropout=0.2, carry=True)
    task = LmTask.from_text(text, spec, batch_size=8, length=20)
    notes: list[str] = []

    def on_step(record: StepRecord) -> None:
        if record.step == stop:
            signal.raise_signal(signal.SIGTERM)

    return train_task(task, recipe, Path(out), "cpu", on_step, notes.append, **more), notes


def test_an_interrupted_training_ends_in_the_same_bits(text: Path) -> None:
    train(text, "whole.pt")
    whole = torch.load("whole.pt", weights_only=True)["state_dict"]
    going_on: list[str] = []
    for stop in (1, 11, 14, 20):  # the state of the text is carried over 11 batches of an epoch
        with pytest.raises(Interrupted, match=rf"after step {stop}; .* from parts\.pt\.state") as told:
            train(text, "parts.pt", stop)
        assert told.value.exit_code == 143
        assert not Path("parts.pt").exists()
        going_on = [f"going on after step {stop} (training), from parts.pt.state"]
    assert train(text, "parts.pt") == going_on
    parts = torch.load("parts.pt", weights_only=True)["state_dict"]
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert sorted(path.name for path in Path().iterdir()) == ["parts.pt", "text.txt", "whole.pt"]


def test_the_seconds_are_those_of_all_starts(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for tick, stop in ((1000, 3), (1, None)):
        clock = SimpleNamespace(perf_counter=partial(next, count(0.0, tick)))
        for module in ("train", "resume"):
            monkeypatch.setattr(f"rnnprune.workflows.{module}.time", clock)
        if stop:
            with pytest.raises(Interrupted):
                run(text, "out.pt", stop)
        else:
            assert 1000 < run(text, "out.pt")[0].seconds < 100_000


def test_changed_settings_are_refused_and_resume_never_starts_anew(text: Path) -> None:
    with pytest.raises(Interrupted):
        train(text, "out.pt", 3)
    changed = replace(RECIPE, lr=0.02)
    with pytest.raises(UsageError, match=r"out\.pt\.state holds .* other settings: recipe\.lr was 0\.01, is 0\.02\."):
        train(text, "out.pt", recipe=changed)
    assert train(text, "out.pt", recipe=changed, keeping=Keeping("never")) == []
    assert sorted(path.name for path in Path().iterdir()) == ["out.pt", "text.txt"]

"""A run that is interrupted, wherever and however often, ends in the very bits of one that is not."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from resume_cases import CASES, STEPS, StopsAt, Where, request_of, write_task
from torch import Tensor

from rnnprune.errors import Interrupted
from rnnprune.formats.state_folder import Snapshot, StateFolder
from rnnprune.training.loop import StepRecord
from rnnprune.training.options import Keeping, SaveEvery
from rnnprune.workflows.finetune import FinetuneRequest, FinetuneResult, Observer, finetune


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_task()
    return tmp_path


@dataclass
class Saved:
    """The last state of a run, copied out of it."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    document: dict[str, Any] = field(default_factory=dict)


@pytest.fixture
def last(monkeypatch: pytest.MonkeyPatch) -> Saved:
    kept, save = Saved(), StateFolder.save

    def spy(self: StateFolder, snapshot: Snapshot) -> None:
        kept.tensors = {name: tensor.clone() for name, tensor in snapshot.tensors.items()}
        kept.document = json.loads(json.dumps({**snapshot.document, "seconds": None}))
        for drawn in ("random", "epoch_random"):
            del kept.document["positions"][0][drawn]["python"]
        save(self, snapshot)

    monkeypatch.setattr(StateFolder, "save", spy)
    return kept


def seeded(request: FinetuneRequest, observer: Observer) -> FinetuneResult | None:
    """Every start is a new process, whose generators stand anywhere."""
    torch.seed()
    return finetune(request, observer)


def run_through(case: str, run: str, stops: list[Where]) -> FinetuneResult:
    observer = StopsAt(stops)
    going_on: list[str] = []
    for phase, step in stops:
        observer.notes.clear()
        with pytest.raises(
            Interrupted, match=rf"stopped after step {step}; the same command goes on from {run}"
        ) as told:
            seeded(request_of(case, run), observer)
        assert told.value.exit_code == 130
        assert observer.notes == going_on
        assert not Path(run, "rnnprune.json").exists()
        going_on = [f"going on after step {step} ({phase}), from {run}/.unfinished/state"]
    result = seeded(request_of(case, run), observer)
    assert observer.stops == []
    assert result is not None
    return result


# Updates fall on 5, 10, 15 and 20; an epoch has 7 steps.
STOPS: list[list[Where]] = [
    [("control", 1)],
    [("control", 7)],
    [("control", 40)],
    [("pruning", 1)],
    [("pruning", 4)],
    [("pruning", 5)],
    [("pruning", 6)],
    [("pruning", 7)],
    [("pruning", 19)],
    [("pruning", 20)],
    [("pruning", 21)],
    [("pruning", 28)],
    [("pruning", 39)],
    [("pruning", 40)],
    [("control", 13), ("pruning", 5), ("pruning", 7), ("pruning", 20), ("pruning", 40)],
]


FEW = [STOPS[3], STOPS[5], STOPS[-1]]


@pytest.mark.parametrize(
    ("case", "all_stops"),
    [
        ("cubic fisher adam", FEW),
        ("cubic fisher sgd", FEW),
        *(pytest.param(case, STOPS, marks=pytest.mark.torture) for case in CASES),
    ],
    ids=["adam, a few", "sgd, a few", *CASES],
)
def test_an_interrupted_run_ends_in_the_bits_of_an_uninterrupted_one(
    folder: Path, last: Saved, case: str, all_stops: list[list[Where]]
) -> None:
    whole = run_through(case, "whole", [])
    expected, losses = Saved(dict(last.tensors), last.document), (folder / "whole/metrics.jsonl").read_bytes()
    model = (folder / "whole/model.safetensors").read_bytes()
    kinds = {name.partition("/")[0] for name in expected.tensors}
    assert kinds == {"model", "optimizer", "mask", *(["moment"] if case == "cubic fisher sgd" else [])}
    assert len(losses.splitlines()) >= 2 * STEPS
    for number, stops in enumerate(all_stops):
        result = run_through(case, f"run{number}", stops)
        assert last.tensors.keys() == expected.tensors.keys()
        wrong = [name for name, tensor in expected.tensors.items() if not torch.equal(tensor, last.tensors[name])]
        assert wrong == [], stops
        assert last.document == expected.document, stops
        assert (folder / f"run{number}/metrics.jsonl").read_bytes() == losses, stops
        assert (folder / f"run{number}/model.safetensors").read_bytes() == model, stops
        assert replace(result, run=whole.run, seconds=whole.seconds) == whole, stops
        assert sorted(path.name for path in (folder / f"run{number}").iterdir()) == [
            "README.md",
            "metrics.jsonl",
            "model.safetensors",
            "rnnprune.json",
        ]
    print(f"\n{case}: {len(all_stops)} runs, stopped {sum(map(len, all_stops))} times: all bits as uninterrupted")


class Killed(BaseException):
    """Stands for a process that is gone: nothing is saved on the way out."""


class DiesAt(StopsAt):
    def step(self, phase: str, record: StepRecord) -> None:
        if self.stops and self.stops[0] == (phase, record.step):
            self.stops.pop(0)
            raise Killed


@pytest.mark.usefixtures("folder")
def test_a_run_that_dies_between_two_saves_goes_on_from_the_last(last: Saved) -> None:
    case = "cubic fisher adam"
    run_through(case, "whole", [])
    expected, losses = Saved(dict(last.tensors), last.document), Path("whole/metrics.jsonl").read_bytes()
    keeping = Keeping(save_every=SaveEvery(steps=6))
    observer = DiesAt([("control", 3), ("control", 9), ("pruning", 4), ("pruning", 35)])
    for started_from in (None, None, "6 (control)", "40 (control)"):
        observer.notes.clear()
        with pytest.raises(Killed):
            seeded(request_of(case, "run", keeping=keeping), observer)
        assert [f"going on after step {started_from}, from run/.unfinished/state"] == observer.notes or not started_from
    seeded(request_of(case, "run", keeping=keeping), observer)
    wrong = [name for name, tensor in expected.tensors.items() if not torch.equal(tensor, last.tensors[name])]
    assert wrong == []
    assert Path("run/metrics.jsonl").read_bytes() == losses


@pytest.mark.usefixtures("folder")
def test_a_state_is_saved_after_so_many_steps_and_the_last_two_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[tuple[str, int, int]] = []
    save = StateFolder.save

    def spy(self: StateFolder, snapshot: Snapshot) -> None:
        save(self, snapshot)
        states = len(list(self.path.glob("*.safetensors")))
        saved.append((snapshot.document["phase"], snapshot.document["positions"][0]["step"], states))

    monkeypatch.setattr(StateFolder, "save", spy)
    request = replace(request_of("cubic fisher adam", "run"), control=False, keeping=Keeping("auto", SaveEvery(16)))
    finetune(request)
    assert saved == [("pruning", 16, 1), ("pruning", 32, 2), ("pruning", 40, 2)]
    saved.clear()
    finetune(replace(request, out=Path("clock"), keeping=Keeping("auto", SaveEvery(seconds=0.0))))
    assert [step for _, step, _ in saved] == [*range(1, 41), 40]


# What is refused, and what is told

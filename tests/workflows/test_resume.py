"""A run that is interrupted, wherever and however often, ends in the very bits of one that is not."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rnnprune.errors import Interrupted, StorageError, UsageError
from rnnprune.formats.lock import folder_lock
from rnnprune.formats.state_folder import Snapshot, StateFolder
from rnnprune.pruning.options import PruningOptions, Timing
from rnnprune.tasks.source import DataOptions
from rnnprune.training.loop import StepRecord
from rnnprune.training.options import Keeping, SaveEvery
from rnnprune.training.recipe import Recipe
from rnnprune.workflows.finetune import FinetuneRequest, FinetuneResult, Observer, finetune
from rnnprune.workflows.subject import TaskChoice

TASK = '''
import random
import numpy as np, torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.norm = nn.LSTM(6, 8, batch_first=True), nn.BatchNorm1d(8)
        self.drop, self.out = nn.Dropout(0.3), nn.Linear(8, 2)

    def forward(self, x):
        return self.out(self.drop(self.norm(self.rnn(x)[0][:, -1])))

class Noisy:
    """Draws from all generators but Python's global one, from which beartype draws, who watches these tests; seven
    batches an epoch, shuffled by torch's own loader."""
    metric, goal = "mse", "min"

    def __init__(self, data):
        self.x = torch.tensor(np.loadtxt(data), dtype=torch.float32).view(28, 5, 6)
        self.torch_random, self.numpy_random = torch.Generator().manual_seed(1), np.random.default_rng(2)
        self.python_random = random.Random(3)

    def build_model(self):
        return Net()

    def train_batches(self, *, epoch, seed, rank, world_size):
        return torch.utils.data.DataLoader(self.x, batch_size=4, shuffle=True)

    def loss(self, model, batch):
        noise = np.random.rand() + self.numpy_random.random() + self.python_random.random()
        drawn = torch.randn(len(batch), 2, generator=self.torch_random)
        return (model(batch) - batch.sum((1, 2))[:, None] - 0.1 * noise - 0.1 * drawn).square().mean()

    def evaluate(self, model, split):
        return {"mse": (model(self.x) - self.x.sum((1, 2))[:, None]).square().mean().item() + 0.001 * np.random.rand()}

def make(data):
    return Noisy(data)
'''
STEPS = 40
Where = tuple[str, int]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("noisy.py").write_text(TASK)
    Path("numbers.txt").write_text("\n".join(f"{value:.6f}" for value in torch.randn(28 * 5 * 6).tolist()))
    namespace: dict[str, Any] = {}
    exec(TASK, namespace)
    torch.manual_seed(0)
    torch.save(namespace["Net"]().state_dict(), "dense.pt")
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


class StopsAt(Observer):
    """Sends this process a signal at the next of these steps."""

    def __init__(self, stops: list[Where], number: int = signal.SIGINT) -> None:
        self.stops, self.number, self.notes = list(stops), number, list[str]()

    def step(self, phase: str, record: StepRecord) -> None:
        if self.stops and self.stops[0] == (phase, record.step):
            self.stops.pop(0)
            signal.raise_signal(self.number)

    def note(self, text: str) -> None:
        self.notes.append(text)


CASES = {
    "cubic fisher adam": (PruningOptions(0.8, timing=Timing(frequency=5)), Recipe(STEPS, lr=0.01)),
    "revive magnitude sgd": (
        PruningOptions(0.8, "gradual", "magnitude", Timing(frequency=5, revive=True)),
        Recipe(STEPS, optimizer="sgd", lr=0.01),
    ),
}


def request_of(case: str, run: str, **more: Any) -> FinetuneRequest:
    pruning, recipe = CASES[case]
    task = TaskChoice("noisy.py:make", DataOptions(Path("numbers.txt")))
    return FinetuneRequest(Path("dense.pt"), task, pruning, recipe, control=True, out=Path(run), **more)


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
    [("cubic fisher adam", FEW), *(pytest.param(case, STOPS, marks=pytest.mark.torture) for case in CASES)],
    ids=["a few", *CASES],
)
def test_an_interrupted_run_ends_in_the_bits_of_an_uninterrupted_one(
    folder: Path, last: Saved, case: str, all_stops: list[list[Where]]
) -> None:
    whole = run_through(case, "whole", [])
    expected, losses = Saved(dict(last.tensors), last.document), (folder / "whole/metrics.jsonl").read_bytes()
    model = (folder / "whole/model.safetensors").read_bytes()
    kinds = {name.partition("/")[0] for name in expected.tensors}
    assert kinds == {"model", "optimizer", "mask"}
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

CHANGES: dict[str, tuple[Callable[[FinetuneRequest], FinetuneRequest], str]] = {
    "rate": (lambda r: replace(r, recipe=replace(r.recipe, lr=0.02)), "recipe.lr was 0.01, is 0.02"),
    "steps": (lambda r: replace(r, recipe=replace(r.recipe, steps=50)), "recipe.steps was 40, is 50"),
    "target": (lambda r: replace(r, pruning=replace(r.pruning, target=0.7)), "pruning.target was 0.8, is 0.7"),
    "control": (lambda r: replace(r, control=False), "control was true, is false"),
}


def interrupt(run: str = "run") -> FinetuneRequest:
    request = request_of("cubic fisher adam", run)
    with pytest.raises(Interrupted):
        finetune(request, StopsAt([("pruning", 8)]))
    return request


@pytest.mark.usefixtures("folder")
def test_changed_settings_are_refused_with_the_difference() -> None:
    request = interrupt()
    before = {path.name: path.read_bytes() for path in Path("run/.unfinished/state").iterdir()}
    for change, text in CHANGES.values():
        with pytest.raises(UsageError, match=rf"with other settings: {text}\. Give the old settings .*--resume never"):
            finetune(change(request))
    with Path("numbers.txt").open("a") as file:
        file.write("\n")
    with pytest.raises(UsageError, match=r"data was \"[0-9a-f]{19}\.\.\., is \"[0-9a-f]{19}\.\.\."):
        finetune(request)
    assert {path.name: path.read_bytes() for path in Path("run/.unfinished/state").iterdir()} == before


@pytest.mark.usefixtures("folder")
def test_resume_never_starts_anew() -> None:
    request = interrupt()
    observer = StopsAt([("control", 1)])
    with pytest.raises(Interrupted):
        finetune(replace(request, keeping=Keeping("never"), recipe=replace(request.recipe, lr=0.02)), observer)
    assert observer.notes == []


@pytest.mark.usefixtures("folder")
def test_what_does_not_decide_the_result_may_change_and_is_told() -> None:
    request = interrupt()
    with Path("noisy.py").open("a") as file:
        file.write("\n# a comment\n")
    observer = StopsAt([])
    finetune(replace(request, threads=2), observer)
    assert observer.notes[0] == "going on after step 8 (pruning), from run/.unfinished/state"
    assert observer.notes[1].startswith(
        "not to the bit what an uninterrupted run would give: threads was 1, is 2; task's"
    )


@pytest.mark.usefixtures("folder")
def test_a_damaged_state_gives_way_to_the_one_before() -> None:
    request = replace(request_of("cubic fisher adam", "run"), keeping=Keeping("auto", SaveEvery(steps=5)))
    with pytest.raises(Interrupted):
        finetune(request, StopsAt([("pruning", 13)]))
    newest = max(Path("run/.unfinished/state").glob("*.safetensors"))
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content)
    observer = StopsAt([])
    finetune(request, observer)
    assert observer.notes == ["going on after step 10 (pruning), from run/.unfinished/state"]


@pytest.mark.usefixtures("folder")
def test_two_processes_do_not_work_in_one_folder() -> None:
    with folder_lock(Path("run")), pytest.raises(StorageError, match="run: another process is at work there"):
        finetune(request_of("cubic fisher adam", "run"))


@pytest.mark.usefixtures("folder")
def test_an_interrupted_run_is_not_swept_away_by_prune_or_over_a_finished_one() -> None:
    from rnnprune.pruning.options import Selection
    from rnnprune.workflows.prune import prune

    request = interrupt()
    with pytest.raises(UsageError, match=r"run holds a run that `finetune` can go on with; choose another --out"):
        prune(Path("dense.pt"), 0.8, Selection(), Path("run"))
    finetune(request)
    finished = Path("run/rnnprune.json").read_bytes()
    with pytest.raises(UsageError, match="run already holds a finished run"):
        finetune(request)
    with pytest.raises(Interrupted):
        finetune(replace(request, overwrite=True), StopsAt([("pruning", 8)]))
    assert Path("run/rnnprune.json").read_bytes() == finished
    observer = StopsAt([])
    finetune(replace(request, overwrite=True), observer)
    assert observer.notes == ["going on after step 8 (pruning), from run/.unfinished/state"]

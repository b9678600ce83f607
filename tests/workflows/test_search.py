"""`finetune --max-loss`: which sparsities are tried, what they are held against, and what is written in the end."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rnnprune.errors import GoalMissed, UsageError
from rnnprune.formats.run_folder import dump_plain
from rnnprune.pruning.options import PruningOptions, Selection, Timing
from rnnprune.training.options import Keeping
from rnnprune.training.recipe import Recipe
from rnnprune.workflows import made_run
from rnnprune.workflows import search as workflow
from rnnprune.workflows.budget import parse_budget
from rnnprune.workflows.finetune import Observer
from rnnprune.workflows.finetune_plan import FinetuneRequest
from rnnprune.workflows.prune import prune
from rnnprune.workflows.search import search
from rnnprune.workflows.subject import TaskChoice
from rnnprune.workflows.teacher import Distillation

TASK = '''
import torch
from torch import nn

class Sums:
    """How well the mean of the inputs is told."""
    metric, goal = "mse", "min"

    def build_model(self):
        return nn.ModuleDict({"rnn": nn.GRU(3, 16, batch_first=True), "out": nn.Linear(16, 1)})

    def train_batches(self, *, epoch, seed, rank, world_size):
        draw = torch.Generator().manual_seed(1000 * seed + epoch)
        return [torch.randn(16, 4, 3, generator=draw) for _ in range(5)]

    def loss(self, model, batch):
        return (model["out"](model["rnn"](batch)[0][:, -1])[:, 0] - batch.mean((1, 2))).square().mean()

    def evaluate(self, model, split):
        draw = torch.Generator().manual_seed(1 if split == "test" else 2)
        return {"mse": self.loss(model, torch.randn(64, 4, 3, generator=draw)).item()}

def make():
    return Sums()
'''


@pytest.fixture
def request_(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FinetuneRequest:
    monkeypatch.chdir(tmp_path)
    Path("sums.py").write_text(TASK)
    model = nn.ModuleDict({"rnn": nn.GRU(3, 16, batch_first=True), "out": nn.Linear(16, 1)})
    torch.save(model.state_dict(), "dense.pt")
    pruning = PruningOptions(saliency="magnitude", timing=Timing(frequency=2))
    return FinetuneRequest(Path("dense.pt"), TaskChoice("sums.py:make"), pruning, Recipe(10, lr=0.01), threads=1)


@dataclass
class World:
    """Runs that are not made: a figure for every sparsity, and for every control by its number."""

    highest: float
    controls: tuple[float, ...] = (10.0,) * 9
    asked: list[tuple[str, str]] = field(default_factory=list)  # the run, and what it goes on from

    def read(self, request: FinetuneRequest, *_: Any) -> dict[str, Any]:
        assert request.out is not None
        self.asked.append((request.out.name, request.checkpoint.name))
        label, figure = "sparse", 10.05 if request.pruning.target <= self.highest else 11.0
        if request.dense:
            label, figure = "dense_control", self.controls[int(request.out.name.split("-")[0]) - 1]
        figures = {"validation": {"mse": figure}, "test": {"mse": 20.0}}
        return {"steps": 10, "seconds": 1.0, "figures": {label: figures, "dense": figures}}


def staircase_in(request: FinetuneRequest, world: World, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(workflow, "read_run", world.read)
    monkeypatch.setattr(workflow, "open_subject", lambda _: None)
    monkeypatch.setattr(workflow, "find_task", lambda *_: type("Task", (), {"metric": "mse", "goal": "min"}))
    return workflow._Staircase(request, parse_budget("1%"), Path("tries"), Observer())


def climb(request: FinetuneRequest, world: World, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, list[Any]]:
    staircase = staircase_in(request, world, monkeypatch)
    return staircase.climb(), staircase.tries


@pytest.mark.parametrize(
    ("highest", "tried", "taken"),
    [
        (0.90, [0.75, 0.875, 0.9375, 0.9116, 0.8949], 0.8949),
        (0.92, [0.75, 0.875, 0.9375, 0.9116, 0.9257], 0.9116),
        (0.999, [0.75, 0.875, 0.9375, 0.96875, 0.984375], 0.984375),
        (0.6, [0.75, 0.5, 0.6464, 0.5795], 0.5795),
        (0.5, [0.75, 0.5, 0.6464, 0.5795], 0.5),
        (0.4, [0.75, 0.5], None),
    ],
)
def test_the_sparsity_is_raised_and_the_gap_halved(
    request_: FinetuneRequest, monkeypatch: pytest.MonkeyPatch, highest: float, tried: list[float], taken: float | None
) -> None:
    found, tries = climb(request_, World(highest), monkeypatch)
    assert [each.sparsity for each in tries] == tried
    assert (None if found is None else found.sparsity) == taken
    assert [each.passed for each in tries] == [sparsity <= highest for sparsity in tried]


def test_every_stage_goes_on_from_the_last_good_one_and_so_does_its_control(
    request_: FinetuneRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(0.9)
    _, tries = climb(request_, world, monkeypatch)
    assert world.asked == [
        ("1-control", "dense.pt"),
        ("1-s75", "dense.pt"),
        ("2-control", "1-control"),
        ("2-s87.5", "1-s75"),
        ("3-control", "2-control"),
        ("3-s93.75", "2-s87.5"),
        ("3-control", "2-control"),
        ("3-s91.16", "2-s87.5"),
        ("3-control", "2-control"),
        ("3-s89.49", "2-s87.5"),
    ]
    assert [each.steps for each in tries] == [10, 20, 30, 30, 30]


def test_the_best_control_so_far_is_the_bar(request_: FinetuneRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    _, tries = climb(request_, World(0.999, (10.0, 9.96, 12.0, 12.0, 12.0)), monkeypatch)
    assert [each.limit for each in tries] == pytest.approx([10.1] + [9.96 * 1.01] * 4)


@pytest.mark.slow
def test_a_search_ends_in_one_run_that_tells_what_was_tried(
    request_: FinetuneRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: dict[Path | None, float] = {}

    def read_run(request: FinetuneRequest, *more: Any) -> Any:
        manifest = made_run.read_run(request, *more)
        made[request.out] = 0.0 if manifest is None else manifest["seconds"]
        return manifest

    monkeypatch.setattr(workflow, "read_run", read_run)
    found = search(request_, parse_budget("10000%"), Observer())
    assert found.result.run == Path("dense-max-loss-10000pct")
    manifest = json.loads((found.result.run / "rnnprune.json").read_text())
    assert manifest["checkpoint"]["path"] == "dense.pt"
    assert manifest["pruning"]["search"] == json.loads(dump_plain(found.to_json()["search"]))
    # Of the 16 weights of the linear layer one is left at 93.75 %, and none at 96.88 %.
    assert [each.passed for each in found.tries] == [True, True, True, False, True, True]
    assert found.result.target == 0.9628
    assert found.result.achieved == pytest.approx(0.9628, abs=0.002)
    assert found.result.metric.sparse == manifest["figures"]["sparse"]["test"]["mse"]
    assert len(made) == 4 + 6 + 1, "controls, tries that were made, one that was not"
    assert manifest["seconds"] == found.result.seconds == pytest.approx(sum(made.values()))
    assert sorted(path.name for path in found.result.run.iterdir()) == [
        "README.md",
        "metrics.jsonl",
        "model.safetensors",
        "rnnprune.json",
    ]


def test_what_is_sparser_and_better_than_what_was_kept_is_kept_whatever_the_control_has_learnt(
    request_: FinetuneRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Learning(World):
        def read(self, request: FinetuneRequest, *more: Any) -> dict[str, Any]:
            manifest = super().read(request, *more)
            if request.pruning.target == 0.875 and not request.dense:
                manifest["figures"]["sparse"]["validation"]["mse"] = 10.01
            return manifest

    found, tries = climb(request_, Learning(0.875, (10.0, 9.5, *(9.0,) * 7)), monkeypatch)
    assert found.sparsity == 0.875
    assert (found.number, found.best_steps) == (2, 10), "20 steps, held against the control of the first 10"
    assert [(each.passed, each.limit) for each in tries[:3]] == [(True, 10.1), (True, 10.1), (False, 9.0 * 1.01)]


def test_a_training_that_does_harm_by_itself_is_told(
    request_: FinetuneRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    staircase = staircase_in(request_, World(0.4), monkeypatch)
    assert staircase.climb() is None
    told = workflow._missed(parse_budget("1%"), staircase, Path("tries"))
    assert "75.00% zeros 11; 50.00% zeros 11; fewer zeros did not help, so it is the training itself: try a" in told


@pytest.mark.slow
def test_where_nothing_is_near_enough_the_goal_is_missed_and_what_was_tried_is_kept(request_: FinetuneRequest) -> None:
    for _ in range(2):  # the second time nothing is trained again
        with pytest.raises(GoalMissed, match=r"--max-loss 0%: mse on the validation split may be .*75.00% zeros"):
            search(request_, parse_budget("0%"), Observer())
    with pytest.raises(
        GoalMissed, match=r"train longer \(--steps\) or try --distill, with --resume never or another --out"
    ):
        search(replace(request_, recipe=Recipe(12, lr=0.01), keeping=Keeping("never")), parse_budget("0%"), Observer())
    tried = Path("dense-max-loss-0pct/.unfinished/tries")
    assert {path.name for path in tried.iterdir()} == {"1-control", "1-s75", "1-s50"}
    assert not Path("dense-max-loss-0pct/rnnprune.json").exists()


def test_other_settings_are_refused_with_the_ways_to_go_on(request_: FinetuneRequest) -> None:
    run = Path("dense-max-loss-1pct/.unfinished/tries/1-control")
    run.mkdir(parents=True)
    (run / "rnnprune.json").write_text('{"fingerprint": {}}')
    with pytest.raises(
        UsageError,
        match=r"1-control was made with other settings: .*pass --resume never, or choose another --out",
    ):
        search(request_, parse_budget("1%"), Observer())


def test_a_pruned_checkpoint_is_no_teacher_of_its_own(request_: FinetuneRequest) -> None:
    request = replace(request_, checkpoint=prune(Path("dense.pt"), 0.5, Selection()).run, distill=Distillation())
    with pytest.raises(UsageError, match="--distill: dense-s50 is pruned already: name the dense checkpoint"):
        search(request, parse_budget("1%"), Observer())
    assert not Path("dense-s50-max-loss-1pct").exists()


def test_a_task_without_labels_has_no_control(request_: FinetuneRequest) -> None:
    with pytest.raises(UsageError, match="--max-loss compares with a dense control"):
        search(replace(request_, task=TaskChoice("distill")), parse_budget("1%"), Observer())

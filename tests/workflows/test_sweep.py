"""A sweep of a task of a few milliseconds: its cells, what a second start does, and what is refused."""

from __future__ import annotations

import json
import multiprocessing
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from rnnprune.errors import Diverged, GoalMissed, StorageError, UsageError
from rnnprune.formats.lock import folder_lock
from rnnprune.pruning.options import Block, PruningOptions, Timing
from rnnprune.training.recipe import Recipe
from rnnprune.workflows.budget import Budget
from rnnprune.workflows.finetune_plan import FinetuneRequest
from rnnprune.workflows.side_by_side import make_all
from rnnprune.workflows.subject import TaskChoice
from rnnprune.workflows.sweep import SweepRequest, sweep
from rnnprune.workflows.sweep_grid import Grid, cells_of

TASK = """
import time
import torch
from torch import nn

class Sums:
    metric, goal = "mse", "min"

    def build_model(self):
        return nn.ModuleDict({"rnn": nn.GRU(4, 16, batch_first=True), "out": nn.Linear(16, 1)})

    def train_batches(self, *, epoch, seed, rank, world_size):
        draw = torch.Generator().manual_seed(1000 * seed + epoch)
        return [torch.randn(16, 4, 4, generator=draw) for _ in range(5)]

    def loss(self, model, batch):
        time.sleep(PAUSE)
        return (model["out"](model["rnn"](batch)[0][:, -1])[:, 0] - batch.mean((1, 2))).square().mean() * SCALE

    def evaluate(self, model, split):
        draw = torch.Generator().manual_seed(1 if split == "test" else 2)
        return {"mse": self.loss(model, torch.randn(64, 4, 4, generator=draw)).item()}

def make():
    return Sums()
"""
GRID = Grid(targets=(0.5, 0.75), methods=("cubic", "hard"), saliencies=("magnitude",), seeds=1)
CELLS = {
    "control-seed0",
    *(f"{method}-magnitude-s{target}-seed0" for method in ("cubic", "hard") for target in ("50", "75")),
}


def write_task(pause: float = 0.0, scale: str = "1.0") -> None:
    Path("sums.py").write_text(TASK.replace("PAUSE", str(pause)).replace("SCALE", scale))


@pytest.fixture
def request_(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepRequest:
    monkeypatch.chdir(tmp_path)
    write_task()
    model = nn.ModuleDict({"rnn": nn.GRU(4, 16, batch_first=True), "out": nn.Linear(16, 1)})
    torch.save(model.state_dict(), "dense.pt")
    base = FinetuneRequest(
        Path("dense.pt"), TaskChoice("sums.py:make"), PruningOptions(timing=Timing(frequency=2)), Recipe(12), threads=1
    )
    return SweepRequest(base, GRID, jobs=1, rounds=0)


def made(folder: Path) -> dict[str, int]:
    """When each finished cell was."""
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("*/rnnprune.json")}


def test_a_sweep_makes_every_cell_once_and_more_may_be_added(request_: SweepRequest) -> None:
    found = sweep(request_)
    first = made(found.out)
    assert found.out == Path("dense-sweep")
    assert set(first) == CELLS
    assert found.remarks == ()
    points = {point.name: point for point in found.frontier.points}
    weights = 48 * (4 + 16) + 16
    assert {name: point.nonzeros for name, point in points.items()} == {
        f"{method}-magnitude-s{100 - share}": weights * share // 100
        for method in ("cubic", "hard")
        for share in (50, 25)
    }
    assert found.frontier.control.nonzeros == weights
    assert {point.steps for point in (found.frontier.control, *found.frontier.points)} == {12}
    told = json.loads((found.out / "sweep.json").read_text())
    assert told == json.loads(json.dumps({"schema": 1, **found.to_json()}))
    manifest = json.loads((found.out / "cubic-magnitude-s50-seed0" / "rnnprune.json").read_text())
    assert told["points"][0]["test"]["values"] == [manifest["figures"]["sparse"]["test"]["mse"]]

    lines: list[str] = []
    again = sweep(replace(request_, grid=replace(GRID, targets=(0.75, 0.8))), lines.append)
    assert lines[0] == "3 of 5 cells are done already"
    assert {point.setting["target"] for point in again.frontier.points} == {0.75, 0.8}
    assert {name: when for name, when in made(found.out).items() if name in first} == first


def test_cells_of_other_settings_and_other_folders_are_refused(request_: SweepRequest) -> None:
    small = replace(request_, grid=replace(GRID, targets=(0.5,), methods=("hard",)))
    sweep(small)
    changed = replace(small, base=replace(small.base, recipe=Recipe(13)))
    with pytest.raises(UsageError, match=r"control-seed0 was made with other settings: recipe.steps was 12, is 13"):
        sweep(changed)
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="mine holds other files and no sweep"):
        sweep(replace(small, out=Path("mine")))
    with folder_lock(Path("busy")), pytest.raises(StorageError, match="busy: another process is at work there"):
        sweep(replace(small, out=Path("busy")))


def test_a_cell_that_cannot_be_made_is_left_out_and_told(request_: SweepRequest) -> None:
    grid = replace(GRID, targets=(0.75,), methods=("hard",), blocks=(Block(1, 1), Block(48, 16)))
    found = sweep(replace(request_, grid=grid))
    assert set(found.left_out) == {"hard-magnitude-48x16-s75-seed0"}
    assert "rounds to all" in found.left_out["hard-magnitude-48x16-s75-seed0"]
    assert [point.name for point in found.frontier.points] == ["hard-magnitude-s75"]


def test_where_every_cell_fails_its_reason_is_the_answer(request_: SweepRequest) -> None:
    write_task(scale="float('nan')")
    with pytest.raises(Diverged, match="the loss is nan"):
        sweep(request_)


def test_no_point_within_the_budget_misses_the_goal(request_: SweepRequest) -> None:
    small = replace(request_, grid=replace(GRID, targets=(0.75,), methods=("hard",)))
    found = sweep(small.within(Budget(-1e9, relative=False)))
    with pytest.raises(GoalMissed, match="no point is within it; hard-magnitude-s75 is nearest and loses"):
        found.require_take()


def test_every_combination_is_a_cell_and_the_controls_come_first(request_: SweepRequest) -> None:
    grid = Grid((0.8,), ("gradual",), ("fisher", "magnitude"), (Block(1, 1), Block(16, 1)), seeds=2, distill=True)
    names = list(cells_of(grid, request_.base, Path("out")).all())
    assert len(names) == 2 + 2 * 2 * 2 * 2
    assert names[:3] == ["control-seed0", "control-seed1", "gradual-fisher-s80-seed0"]
    assert "gradual-magnitude-16x1-distill-s80-seed1" in names


@pytest.mark.parametrize(
    ("wrong", "text"), [({"seeds": 0}, "--seeds must be at least 1"), ({"targets": (0.9, 0.9)}, "--targets names each")]
)
def test_a_grid_that_makes_no_sense_is_refused(wrong: dict[str, object], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        replace(GRID, **wrong)


@pytest.mark.slow
def test_a_cell_that_somebody_else_stops_is_told_as_not_made(request_: SweepRequest) -> None:
    write_task(pause=0.01)
    run = Path("cell")

    def stop_it() -> None:
        while not (run / ".unfinished/metrics.jsonl").exists():
            time.sleep(0.02)
        for child in multiprocessing.active_children():
            child.terminate()

    threading.Thread(target=stop_it, daemon=True).start()
    failures = make_all({"cell": replace(request_.base, out=run, recipe=Recipe(100_000))}, 2, print)
    assert not (run / "rnnprune.json").exists()
    assert "its process ended with exit code 143; the same command goes on with it" in str(failures["cell"])


@pytest.mark.torture
@pytest.mark.usefixtures("request_")
def test_a_sweep_that_is_killed_goes_on_and_loses_no_finished_cell() -> None:
    """SIGKILL reaches the sweep alone: its cells must notice, save and end by themselves."""
    write_task(pause=0.05)
    out = Path("dense-sweep")
    command = [
        *(sys.executable, "-m", "rnnprune", "sweep", "dense.pt", "--task", "sums.py:make", "--targets", "0.5,0.75"),
        *("--methods", "cubic,hard", "--saliency", "magnitude", "--seeds", "1", "--steps", "40", "--frequency", "2"),
        *("--jobs", "2", "--threads", "1", "--rounds", "0", "--json"),
    ]
    first = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 240
    while not made(out) and first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    done = made(out)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert done
    assert len(done) < len(CELLS), "killed too late to show anything"
    second = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400)
    assert second.returncode == 0, second.stderr
    assert set(made(out)) == CELLS
    assert {name: made(out)[name] for name in done} == done
    assert len(json.loads(second.stdout)["points"]) == 4

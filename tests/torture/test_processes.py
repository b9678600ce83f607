"""Several processes: one set of masks, one stop, one skipped step; and a run that loses some of them goes on."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ranks
import torch
import torch.distributed as dist
from forks import exit_code
from torch import Tensor

from rnnprune.cli.app import app
from rnnprune.errors import Interrupted
from rnnprune.pruning.options import PruningOptions, Timing
from rnnprune.training.recipe import Recipe
from rnnprune.training.workers import Workers, hash_of
from rnnprune.workflows.finetune import FinetuneRequest, Observer, finetune
from rnnprune.workflows.subject import TaskChoice

pytestmark = [pytest.mark.torture, pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")]

TASK = '''
import os, signal, time
from pathlib import Path
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.drop, self.out = nn.LSTM(6, 16, batch_first=True), nn.Dropout(DROPOUT), nn.Linear(16, 2)

    def forward(self, x):
        return self.out(self.drop(self.rnn(x)[0][:, -1]))

class Shared:
    """16 items a step, shared out among the processes."""
    metric, goal = "mse", "min"
    calls = 0

    def build_model(self):
        self.perish("start")
        return Net()

    def train_batches(self, *, epoch, seed, rank, world_size):
        items = torch.randn(7, 16, 5, 6, generator=torch.Generator().manual_seed(1000 * seed + epoch))
        if "NAN" in os.environ and epoch == 1 and rank == int(os.environ["NAN"]):
            items[2, -1] = float("nan")
        return list(items.view(7, world_size, 16 // world_size, 5, 6)[:, rank])

    def loss(self, model, batch):
        self.calls += 1
        self.perish(self.calls)
        time.sleep(float(os.environ.get("SLOW", 0)))
        return (model(batch) - batch.sum((1, 2))[:, None]).square().mean()

    def evaluate(self, model, split):
        self.perish("evaluation")
        x = torch.ones(4, 5, 6)
        return {"mse": (model(x) - 30).square().mean().item()}

    def perish(self, where):
        """kill -9 itself, once for each of PERISH, in their order: `rank where`."""
        kills = os.environ.get("PERISH", "").split(",")
        done = len(list(Path().glob("perished*")))
        if done < len(kills) and kills[done] == f"{os.environ.get('RANK')} {where}":
            Path(f"perished{done}").touch()
            os.kill(os.getpid(), signal.SIGKILL)

def make():
    return Shared()
'''
RECIPE = Recipe(40, lr=0.01)
PRUNING = PruningOptions(0.8, timing=Timing(frequency=2))
UPDATES = 9  # at 4, 6, ..., 20; 2 is where the schedule starts


def write_task(dropout: float = 0.3) -> None:
    source = TASK.replace("DROPOUT", str(dropout))
    Path("shared.py").write_text(source)
    namespace: dict[str, Any] = {}
    exec(source, namespace)
    torch.manual_seed(0)
    torch.save(namespace["Net"]().state_dict(), "dense.pt")


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_task()


def request(run: str, **more: Any) -> FinetuneRequest:
    return replace(
        FinetuneRequest(Path("dense.pt"), TaskChoice("shared.py:make"), PRUNING, RECIPE, out=Path(run)), **more
    )


def losses(run: str) -> list[float]:
    return [json.loads(line)["loss"] for line in Path(run, "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("world_size", [2, 4])
def test_all_processes_have_the_same_masks_at_every_update(world_size: int) -> None:
    def act(rank: int) -> None:
        share, hashes = Workers.share, list[str]()

        def spy(self: Workers, masks: Sequence[Tensor]) -> list[Tensor]:
            if rank:  # whatever another process would have decided does not count
                masks = [mask.roll(1) for mask in masks]
            shared = share(self, masks)
            hashes.append(hash_of(shared))
            return shared

        Workers.share = spy  # type: ignore[method-assign]
        finetune(request("run"))
        Path(f"hashes{rank}.txt").write_text("\n".join(hashes))

    assert ranks.run(world_size, act) == [0] * world_size, ranks.told(world_size)
    found = [Path(f"hashes{rank}.txt").read_text().split() for rank in range(world_size)]
    assert found == [found[0]] * world_size
    assert len(found[0]) == len(set(found[0])) == UPDATES
    print(f"\n{world_size} gloo ranks: {len(found[0])} mask updates, equal hashes at each")


def test_masks_that_differ_stop_the_run() -> None:
    def act(rank: int) -> None:
        real = dist.broadcast

        def losing(mask: Tensor, source: int) -> None:
            real(mask, source)
            mask.zero_()

        if rank:
            dist.broadcast = losing
        app(["finetune", "dense.pt", "--task", "shared.py:make", "--steps", "40", "--out", "run"])

    codes = [exit_code(child) for child in ranks.start(2, act)]
    assert codes == [5, 5], ranks.told(2)
    assert "the masks of rank [1] are not those of rank 0" in ranks.told(2)


def test_two_halves_of_a_batch_make_the_steps_of_the_whole() -> None:
    write_task(dropout=0.0)
    recipe = replace(RECIPE, steps=50)
    finetune(request("one", recipe=recipe))
    assert ranks.run(2, lambda rank: finetune(request("two", recipe=recipe))) == [0, 0], ranks.told(2)  # noqa: ARG005
    one, two = losses("one"), losses("two")
    assert len(one) == len(two) == 50
    worst = max(abs(a - b) / a for a, b in zip(one, two, strict=True))
    assert worst <= 1e-6
    print(f"\n2 ranks x half batch against 1 x batch, 50 steps: loss within {worst:.1e} relative")


def test_what_is_not_finite_in_one_process_skips_the_step_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAN", "1")

    def act(rank: int) -> None:
        seen = list[int]()

        class Watch(Observer):
            def step(self, phase: str, record: Any) -> None:  # noqa: ARG002
                seen.append(record.step)

        finetune(request("run", recipe=replace(RECIPE, steps=20)), Watch())
        if rank == 0:
            Path("seen.txt").write_text(json.dumps(seen))

    assert ranks.run(2, act) == [0, 0], ranks.told(2)
    assert json.loads(Path("seen.txt").read_text()) == list(range(1, 21))
    assert all(map(bool, losses("run")))


def test_a_signal_to_one_stops_all_after_the_same_step_and_the_run_goes_on_to_the_bit() -> None:
    assert ranks.run(2, lambda rank: finetune(request("whole"))) == [0, 0], ranks.told(2)  # noqa: ARG005

    def act(rank: int) -> None:
        class Stops(Observer):
            def step(self, phase: str, record: Any) -> None:  # noqa: ARG002
                if record.step == 9:
                    signal.raise_signal(signal.SIGTERM)

        try:
            finetune(request("run"), Stops())
        except Interrupted as error:
            Path(f"stopped{rank}.txt").write_text(str(error))
            sys.exit(error.exit_code)

    assert ranks.run(2, act) == [143, 143], ranks.told(2)
    assert {Path(f"stopped{rank}.txt").read_text() for rank in (0, 1)} == {
        "stopped after step 9; the same command goes on from run/.unfinished/state"
    }
    assert ranks.run(2, lambda rank: finetune(request("run"))) == [0, 0], ranks.told(2)  # noqa: ARG005
    for name in ("model.safetensors", "metrics.jsonl"):
        assert Path("run", name).read_bytes() == Path("whole", name).read_bytes()


def test_another_number_of_processes_goes_on_and_says_that_the_bits_may_differ() -> None:
    def act(rank: int) -> None:  # noqa: ARG001
        class Stops(Observer):
            def step(self, phase: str, record: Any) -> None:  # noqa: ARG002
                if record.step == 9:
                    signal.raise_signal(signal.SIGTERM)

        finetune(request("run"), Stops())

    assert ranks.run(2, act) == [99, 99]
    notes = list[str]()

    class Notes(Observer):
        def note(self, text: str) -> None:
            notes.append(text)

    assert finetune(request("run"), Notes()) is not None
    assert notes == [
        "going on after step 9 (pruning), from run/.unfinished/state",
        "not to the bit what an uninterrupted run would give: processes was 2, is 1",
    ]
    assert len(losses("run")) == 40


def test_a_process_that_loses_the_other_says_so_and_can_be_gone_on_with(monkeypatch: pytest.MonkeyPatch) -> None:
    for number, (lost, where) in enumerate(((1, "start"), (0, 1), (1, 9), (0, "evaluation"))):
        monkeypatch.setenv("PERISH", f"{lost} {where}")
        command = ["finetune", "dense.pt", "--task", "shared.py:make", "--steps", "40", "--out", f"run{number}"]
        codes = ranks.run(2, lambda rank, command=command: app(command))  # type: ignore[misc]  # noqa: ARG005
        survivor = 1 - lost
        assert codes[lost] == -signal.SIGKILL
        assert codes[survivor] == 143, ranks.told(2)
        told = Path(f"stderr{survivor}.txt").read_text()
        assert f"rnnprune: interrupted; rank {survivor} lost another of the 2 processes (" in told
        assert "the same command goes on from the last state that was saved" in told
        assert "Traceback" not in told
        Path("perished0").unlink()
    print("\na process that loses its peer in 4 places: exit 143, one sentence")


def in_processes(
    *launcher: str, run: str, perish: str = "", nproc: int | None = None
) -> subprocess.CompletedProcess[str]:
    command, environment = command_of(*launcher, run=run, perish=perish, nproc=nproc)
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def command_of(
    *launcher: str, run: str, perish: str = "", nproc: int | None = None
) -> tuple[list[str], dict[str, str]]:
    command = [sys.executable, "-m", *launcher, "finetune", "dense.pt", "--task", "shared.py:make", "--steps", "40"]
    command += ["--target", "0.8", "--frequency", "2", "--lr", "0.01", "--save-every", "2", "--threads", "1"]
    command += [] if nproc is None else ["--nproc", str(nproc)]
    environment = {**os.environ, "PERISH": perish, "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    return [*command, "--out", run], environment


TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "5", "-m", "rnnprune")


def test_torchrun_starts_again_until_the_run_is_what_it_would_have_been() -> None:
    whole = in_processes(*TORCHRUN, run="whole")
    assert whole.returncode == 0, whole.stderr
    perish = "1 3,0 7,1 start,1 12,0 evaluation"  # the last when all training is done, before or after
    torn = in_processes(*TORCHRUN, run="torn", perish=perish)
    assert torn.returncode == 0, torn.stderr
    assert len(list(Path().glob("perished*"))) == 5
    for name in ("model.safetensors", "metrics.jsonl"):
        assert Path("torn", name).read_bytes() == Path("whole", name).read_bytes()
    print("\ntorchrun, one of 2 ranks killed at 5 points: the final model and curve are bit-equal")


def test_nproc_starts_the_processes_itself_and_gives_the_exit_code_of_the_one_that_fails() -> None:
    done = in_processes("rnnprune", run="run", nproc=2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("run: 40 steps") == 1, "one process tells the result"
    assert json.loads(Path("run/rnnprune.json").read_text())["settings"]["out"] == "run"
    killed = in_processes("rnnprune", run="killed", nproc=2, perish="1 9")
    assert killed.returncode == 128 + signal.SIGKILL
    again = in_processes("rnnprune", run="killed", nproc=2)
    assert again.returncode == 0, again.stderr
    assert "going on after step 8 (pruning)" in again.stderr
    assert Path("killed/model.safetensors").read_bytes() == Path("run/model.safetensors").read_bytes()
    refused = in_processes("rnnprune", run="run", nproc=2)
    assert refused.returncode == 2
    assert "already holds a finished run" in refused.stderr
    print("\n--nproc 2, one process killed: exit 137; the same command again: the final model is bit-equal")


def test_no_process_outlives_a_launcher_that_is_killed() -> None:
    command, environment = command_of("rnnprune", run="run", nproc=2)
    launcher = subprocess.Popen(command, env={**environment, "SLOW": "0.3"}, stderr=subprocess.PIPE, text=True)
    curve = Path("run/.unfinished/metrics.jsonl")
    while not curve.exists() or len(curve.read_text().splitlines()) < 3:
        assert launcher.poll() is None
        time.sleep(0.05)
    launcher.kill()
    _, told = launcher.communicate(timeout=100)  # which is when no process holds its stderr any more
    stopped = set(re.findall(r"stopped after step (\d+); the same command goes on", told))
    assert told.count("rnnprune: interrupted; stopped after step") == 2, told
    again = in_processes("rnnprune", run="run", nproc=2)
    assert again.returncode == 0, again.stderr
    assert f"going on after step {stopped.pop()} (pruning)" in again.stderr
    assert not stopped, "both stopped after the same step"

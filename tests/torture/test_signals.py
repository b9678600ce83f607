"""SIGINT and SIGTERM in every phase: the right exit code, and the same command goes on at most one step back."""

from __future__ import annotations

import io
import json
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from forks import exit_code, forked
from torch import nn

from rnnprune.cli.app import app

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

TASK = '''
import os, time
import torch
from torch import nn

class Slow:
    """Tells the phase it is in through a pipe, and takes its time."""
    metric, goal = "mse", "min"

    def build_model(self):
        tell("start")
        return nn.ModuleDict({"encoder": nn.LSTM(6, 10), "head": nn.Linear(10, 5)})

    def train_batches(self, *, epoch, seed, rank, world_size):
        generator = torch.Generator().manual_seed(epoch)
        return [torch.randn(4, 2, 6, generator=generator) for _ in range(5)]

    def loss(self, model, batch):
        tell("training")
        return model["head"](model["encoder"](batch)[0]).square().mean()

    def evaluate(self, model, split):
        tell("evaluation")
        return {"mse": 1.0}

def tell(phase):
    if pipe := os.environ.get("TELL"):
        os.write(int(pipe), phase.encode() + b"\\n")
        time.sleep(0.004)

def make():
    return Slow()
'''
COMMAND = ("finetune", "bare.pt", "--task", "slow.py:make", "--steps", "20", "--out", "run", "--resume", "auto")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("slow.py").write_text(TASK)
    torch.save(nn.ModuleDict({"encoder": nn.LSTM(6, 10), "head": nn.Linear(10, 5)}).state_dict(), "bare.pt")
    return tmp_path


def command(*arguments: str, tell: int | None = None) -> Callable[[], None]:
    """What a shell would run, its stderr in a file."""

    def run() -> None:
        for descriptor, name in ((1, "stdout.txt"), (2, "stderr.txt")):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
        if tell is not None:
            os.environ["TELL"] = str(tell)
            slow_down_cuts_and_exports(tell)
        try:
            app(list(arguments))
        finally:
            if tell is not None:
                os.write(tell, b"ended\n")

    return run


def slow_down_cuts_and_exports(tell: int) -> None:
    from rnnprune.pruning.groups import Group
    from rnnprune.workflows import export

    def telling(phase: str, real: Callable[..., object]) -> Callable[..., object]:
        def told(*arguments: object, **more: object) -> object:
            os.write(tell, phase.encode() + b"\n")
            time.sleep(0.004)
            return real(*arguments, **more)

        return told

    Group.cut = telling("mask update", Group.cut)  # type: ignore[method-assign, assignment]
    export._compare = telling("export", export._compare)


def send_in(phase: str, number: int, wait: float, *arguments: str) -> tuple[int, int]:
    """The exit code of a command that is sent a signal so many seconds into a phase; the steps it had begun by then.

    Begun again where this process slept so long that the command had ended before.
    """
    while (sent := send_once(phase, number, wait, *arguments)) is None:
        shutil.rmtree("run", ignore_errors=True)
    return sent


def send_once(phase: str, number: int, wait: float, *arguments: str) -> tuple[int, int] | None:
    told, tell = os.pipe()
    child = forked(command(*arguments, tell=tell))
    os.close(tell)
    begun = 0
    with os.fdopen(told, "rb", buffering=0) as phases:
        line = b""
        while line != phase.encode():
            line = read_line(phases)
            begun += line == b"training"
        time.sleep(wait)
        os.set_blocking(told, False)
        rest = phases.read(1 << 16) or b""
        os.kill(child, number)
        os.set_blocking(told, True)
        came_late = b"ended" in rest
        code = exit_code(child)
        while more := phases.read(1 << 16):
            rest += more
    return None if came_late else (code, begun + rest.count(b"training"))


def read_line(phases: io.RawIOBase) -> bytes:
    line = b""
    while (letter := phases.read(1)) != b"\n":
        assert letter, f"the command ended before that: {Path('stderr.txt').read_text()}"
        line += letter
    return line


def saved_step() -> int | None:
    manifests = sorted(Path("run/.unfinished/state").glob("*.json"))
    if not manifests:
        return None
    return int(json.loads(manifests[-1].read_text())["state"]["document"]["positions"][0]["step"])


@pytest.mark.torture
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("phase", ["start", "training", "evaluation", "mask update"])
@pytest.mark.usefixtures("folder")
def test_a_signal_ends_a_run_that_can_be_gone_on_with(phase: str, number: signal.Signals) -> None:
    when = random.Random(phase)
    for _ in range(10):
        code, begun = send_in(phase, number, when.uniform(0.0, 0.01), *COMMAND)
        assert code == 128 + number, Path("stderr.txt").read_text()
        told = Path("stderr.txt").read_text()
        assert "rnnprune: interrupted; " in told
        assert "Traceback" not in told
        step = saved_step()
        assert (step or 0) >= begun - 1, "at most one step old"
        if begun:
            assert re.search(r"the same command goes on from run/\.unfinished/state", told)
        assert exit_code(forked(command(*COMMAND))) == 0, Path("stderr.txt").read_text()
        if step is not None:
            assert f"going on after step {step} (pruning)" in Path("stderr.txt").read_text()
        assert sorted(path.name for path in Path("run").iterdir()) == [
            "README.md",
            "metrics.jsonl",
            "model.safetensors",
            "rnnprune.json",
        ]
        for path in Path("run").iterdir():
            path.unlink()
    print(f"\n{number.name} in {phase}: 10 of 10 stopped with {128 + number} and were gone on with")


@pytest.mark.torture
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.usefixtures("folder")
def test_a_signal_in_an_export_leaves_the_old_file_and_no_other(number: signal.Signals) -> None:
    assert exit_code(forked(command("export", "bare.pt", "--out", "out.safetensors"))) == 0
    before = sorted(path.name for path in Path().iterdir())
    content = Path("out.safetensors").read_bytes()
    when = random.Random(1)
    for _ in range(10):
        code, _ = send_in(
            "export", number, when.uniform(0.0, 0.003), "export", "bare.pt", "--out", "out.safetensors", "--overwrite"
        )
        assert code == 128 + number, Path("stderr.txt").read_text()
        assert Path("out.safetensors").read_bytes() == content
        assert sorted(path.name for path in Path().iterdir()) == before
    print(f"\n{number.name} in export: 10 of 10 stopped with {128 + number}, the old file as it was")


@pytest.mark.torture
@pytest.mark.usefixtures("folder")
def test_the_second_sigint_stops_at_once() -> None:
    Path("slow.py").write_text(TASK.replace('tell("training")', 'tell("training"); time.sleep(60)'))
    told, tell = os.pipe()
    child = forked(command(*COMMAND, tell=tell))
    os.close(tell)
    with os.fdopen(told, "rb", buffering=0) as phases:
        while b"training" not in phases.read(1000):
            pass
        for _ in range(2):
            time.sleep(0.05)
            os.kill(child, signal.SIGINT)
        assert exit_code(child) == 130
    assert "stopped at once; the last saved state stands" in Path("stderr.txt").read_text()
    assert saved_step() is None, "the step was not ended first"

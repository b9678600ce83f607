"""torchrun and --nproc: what they start, start again, and leave behind when they or their processes are killed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from shared_task import write_task

pytestmark = [pytest.mark.torture, pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_task()


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

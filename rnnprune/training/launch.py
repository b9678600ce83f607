"""`--nproc N`: this very command in N processes of this machine, told their places as torchrun tells them."""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

SECONDS_TO_END = 30.0  # for the others, once one has failed
SECONDS_BETWEEN_LOOKS = 0.05
INTERRUPTED = (128 + signal.SIGINT, 128 + signal.SIGTERM)
LAUNCHER = "LAUNCHER_PID"  # told to each process, so that none outlives the one that started it


def is_launched() -> bool:
    """Whether this process is one of several already, started by `launch` or by torchrun."""
    return "RANK" in os.environ


def launch(processes: int) -> int:
    """Run the command that this process was started with `processes` times over; the exit code of the one to blame.

    SIGINT and SIGTERM are passed on to all of them, which agree on the step to stop after.
    """
    place = {
        "WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        LAUNCHER: str(os.getpid()),
        "TORCH_CPP_LOG_LEVEL": os.environ.get("TORCH_CPP_LOG_LEVEL", "ERROR"),  # DDP's remark on unused parameters
    }
    command = [sys.executable, "-m", "rnnprune", *sys.argv[1:]]
    started = [
        # A session of its own: Ctrl-C on a terminal would reach it twice, from there and from here.
        subprocess.Popen(
            command, env={**os.environ, **place, "RANK": str(rank), "LOCAL_RANK": str(rank)}, start_new_session=True
        )
        for rank in range(processes)
    ]
    try:
        with _passing_signals_on(started):
            return _wait(started)
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()


def end_with_the_launcher() -> None:
    """Should whoever started this process die, kill -9 included, stop it as SIGTERM does, and for good soon after."""
    if LAUNCHER in os.environ or "TORCHELASTIC_RUN_ID" in os.environ:
        launcher = int(os.environ.get(LAUNCHER, os.getppid()))
        threading.Thread(target=_watch, args=(launcher,), daemon=True).start()


def _watch(launcher: int) -> None:
    while os.getppid() == launcher:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(SECONDS_TO_END)
    os.kill(os.getpid(), signal.SIGKILL)


def _wait(started: Sequence[subprocess.Popen[bytes]]) -> int:
    """Until all have ended, or one has failed and the others had their time to notice."""
    deadline = math.inf
    while any(process.poll() is None for process in started) and time.monotonic() < deadline:
        if deadline == math.inf and any(process.returncode for process in started):
            deadline = time.monotonic() + SECONDS_TO_END
        time.sleep(SECONDS_BETWEEN_LOOKS)
    return blamed(process.returncode for process in started)


def blamed(codes: Iterable[int | None]) -> int:
    """The exit code of all, from those of each (None: still at work; below 0: killed by that signal), by rank.

    A process that only lost the others ends as one that was interrupted: what ended those others goes before that.
    """
    failed = [code if code > 0 else 128 - code for code in codes if code]
    return next((code for code in failed if code not in INTERRUPTED), next(iter(failed), 0))


@contextmanager
def _passing_signals_on(started: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    def pass_on(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        for process in started:
            if process.poll() is None:
                process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port

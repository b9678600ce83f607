"""`--nproc N`: this very command in N processes of this machine, told their places as torchrun tells them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

SECONDS_TO_END = 30.0  # for the others, once one has failed
SECONDS_BETWEEN_LOOKS = 0.05


def is_launched() -> bool:
    """Whether this process is one of several already, started by `launch` or by torchrun."""
    return "RANK" in os.environ


def launch(processes: int) -> int:
    """Run the command that this process was started with `processes` times over; the exit code of the first to fail.

    SIGINT and SIGTERM are passed on to all of them, which agree on the step to stop after.
    """
    place = {
        "WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
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


def _wait(started: Sequence[subprocess.Popen[bytes]]) -> int:
    """Until all have ended, or one has failed and the others had their time to notice."""
    deadline = None
    failed = 0
    while any(process.poll() is None for process in started):
        failed = failed or next((process.returncode for process in started if process.returncode), 0)
        if failed and deadline is None:
            deadline = time.monotonic() + SECONDS_TO_END
        if deadline is not None and time.monotonic() > deadline:
            break
        time.sleep(SECONDS_BETWEEN_LOOKS)
    failed = failed or next((process.returncode for process in started if process.returncode), 0)
    return failed if failed >= 0 else 128 - failed


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

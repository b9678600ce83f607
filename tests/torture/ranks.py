"""Several processes that train one model together: forked from this one, told their places as torchrun would."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from forks import exit_code, forked

from rnnprune.training import workers


def start(world_size: int, action: Callable[[int], Any]) -> list[int]:
    """One child per rank; their ids."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]

    def as_rank(rank: int) -> Callable[[], Any]:
        def run() -> None:
            told = {"RANK": rank, "WORLD_SIZE": world_size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            os.environ |= {name: str(value) for name, value in told.items()} | {"TORCH_CPP_LOG_LEVEL": "ERROR"}
            cores = sorted(os.sched_getaffinity(0))
            with suppress(OSError):
                os.sched_setaffinity(0, {cores[rank % len(cores)]})
            workers.PATIENCE = timedelta(minutes=2)  # a test that hangs is no answer
            sys.stderr = Path(f"stderr{rank}.txt").open("w", buffering=1)  # noqa: SIM115  pytest may have its own there
            os.dup2(sys.stderr.fileno(), 2)
            action(rank)

        return run

    return [forked(as_rank(rank)) for rank in range(world_size)]


def run(world_size: int, action: Callable[[int], Any]) -> list[int]:
    """The exit codes of all ranks."""
    return [exit_code(child) for child in start(world_size, action)]


def told(world_size: int) -> str:
    return "\n".join(Path(f"stderr{rank}.txt").read_text() for rank in range(world_size))

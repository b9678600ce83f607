"""A child process for each attempt: forked, so that all is imported already, and killed where the test says."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch._dynamo  # noqa: F401  by torch's optimizers, at their first step

import rnnprune.cli.progress
import rnnprune.cli.render
import rnnprune.workflows.export
import rnnprune.workflows.search  # noqa: F401
from rnnprune.formats import atomic


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def forked(action: Callable[[], Any]) -> int:
    """Start the action in a child of this process, and give its id; its exit code is 0, or 99 where it raised."""
    child = os.fork()
    if child:
        return child
    try:
        action()
        os._exit(0)
    except SystemExit as exit:
        os._exit(exit.code if isinstance(exit.code, int) else 1)
    except BaseException:
        traceback.print_exc(file=sys.stderr)
        os._exit(99)


def exit_code(child: int) -> int:
    """Wait for the child; a negative number is the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


CAP_DAC_OVERRIDE = 1  # linux/capability.h: root's right to write whatever a folder's permissions say


def obey_permissions() -> None:
    """From now on this process, even root's, may write only where the permissions let it. capset(2), version 3."""
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()  # low effective, permitted, ...; high
    assert libc.capget(header, data) == 0, os.strerror(ctypes.get_errno())
    for kind in (0, 1):
        data[kind] &= ~(1 << CAP_DAC_OVERRIDE)
    assert libc.capset(header, data) == 0, os.strerror(ctypes.get_errno())


POINTS_OF_A_FILE = ("created", "half written", "synced", "renamed")


def die_in_writing(name: str, point: str) -> None:
    """From now on this process dies when a file whose name ends in `name` is written atomically and has come so far."""
    write, replace = atomic._write_synced, os.replace

    def is_it(path: Path) -> bool:
        return f"{name}." in path.name

    def dying_write(path: Path, chunks: Iterable[bytes]) -> None:
        if not is_it(path):
            return write(path, chunks)
        if point in ("created", "half written"):
            chunks = cut_off(b"".join(chunks), 0 if point == "created" else 0.5)
        write(path, chunks)
        if point == "synced":
            die()
        return None

    def dying_replace(old: Path, new: Path) -> None:
        replace(old, new)
        if is_it(Path(old)) and point == "renamed":
            die()

    atomic._write_synced = dying_write
    os.replace = dying_replace  # type: ignore[assignment]


def cut_off(data: bytes, share: float) -> Iterator[bytes]:
    yield data[: int(share * len(data))]
    die()


def die_in_removing(number: int) -> None:
    """This process dies before it removes its file of that number, from 0."""
    unlink = Path.unlink
    removed = iter(range(10_000))

    def dying_unlink(path: Path, missing_ok: bool = False) -> None:
        if next(removed) == number:
            die()
        unlink(path, missing_ok)

    Path.unlink = dying_unlink  # type: ignore[method-assign]

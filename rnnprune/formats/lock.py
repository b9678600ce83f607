"""One process at a time: a lock on an open file or folder, which the kernel drops when its process dies, however."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rnnprune.errors import StorageError


def try_lock(descriptor: int) -> bool:
    """Lock what is open there until it is closed; False where another process holds it. Windows has no such lock."""
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: nobody can hold one
        return True
    return True


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Make the folder and hold it. Raises StorageError where that fails, or another process has it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = None if sys.platform == "win32" else os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise StorageError(f"{folder}: cannot make the run folder ({error.strerror}); choose another --out") from error
    try:
        if descriptor is not None and not try_lock(descriptor):
            raise StorageError(f"{folder}: another process is at work there; wait for it, or choose another --out")
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)

"""Files that are either all there or not there at all.

The bytes go to a temporary file in the same folder, are flushed and synced, and take the final name in one step, so a
power cut or a full disk leaves what stood there before. A process that is killed in between leaves its temporary file,
which the next write of the same file removes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
from collections.abc import Iterable
from pathlib import Path

from rnnprune.errors import StorageError
from rnnprune.formats.lock import try_lock

_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.tmp\Z")
_REMEDIES = {
    errno.ENOSPC: "free some space or write to another disk",
    errno.EDQUOT: "free some of the quota or write to another disk",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.EROFS: "choose a folder that you may write to",
    errno.ENOENT: "create the folder first",
    errno.ENOTDIR: "part of the path is a file; choose another path",
    errno.EISDIR: "a folder has that name; choose another name",
    errno.ENAMETOOLONG: "choose a shorter name",
}


def write_atomic(path: Path, data: bytes | Iterable[bytes], *, told_as: Path | None = None) -> None:
    """Write `data` (bytes, or chunks made while writing) to `path`, whole or not at all.

    Raises StorageError with the path (that of `told_as` where it is to be renamed), the reason and the remedy; whatever
    goes wrong, Ctrl-C included, the temporary file is removed and an older file at `path` stays as it was.
    """
    prefix = f".{path.name[:128]}."
    temporary = path.with_name(f"{prefix}{secrets.token_hex(8)}.tmp")
    try:
        remove_strays(path.parent, prefix)
        try:
            _write_synced(temporary, [data] if isinstance(data, bytes) else data)
            os.replace(temporary, path)  # noqa: PTH105  same call on every platform, and the one that is atomic
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        _sync_folder(path.parent)
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, "choose another place")
        raise StorageError(f"{told_as or path} cannot be written: {error.strerror or error}; {remedy}") from error


def remove_strays(folder: Path, prefix: str = ".") -> None:
    """Remove the temporary files of writers that died; a living one holds the lock of its own."""
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if path.name.startswith(prefix) and _TEMPORARY.search(path.name):
                with path.open("rb") as file:
                    if try_lock(file.fileno()):
                        path.unlink()


def _write_synced(path: Path, chunks: Iterable[bytes]) -> None:
    with path.open("xb") as file:
        try_lock(file.fileno())
        for chunk in chunks:
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make the new name itself durable; not every file system lets a folder be synced, and the rename has happened."""
    if os.name == "nt":
        return
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

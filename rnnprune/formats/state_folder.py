"""The state folder: what an interrupted run goes on from.

000012.safetensors   every tensor of the state
000012.json          {"state": {"bytes", "sha256" of the tensor file, "document": all that is no tensor}, "sha256"}
latest               the name of the newest manifest

Each file is whole or not there, and they are written in this order, so at every instant `latest` names a state that is
complete. The last two are kept: should the newest be damaged later, the one before it is read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from rnnprune.errors import InputRefused, StorageError
from rnnprune.formats.atomic import write_atomic
from rnnprune.formats.container import container_chunks, read_container
from rnnprune.formats.lock import folder_lock
from rnnprune.formats.run_folder import sha256_of

LATEST = "latest"
KEPT = 2
SPARE_BYTES = 2**20  # for the manifest, the pointer and the file system's own bookkeeping
_MANIFEST = re.compile(r"(\d{6,})\.json")


class Snapshot(NamedTuple):
    """The state of a run at one instant: tensors of any dtype and shape, and plain data that JSON can hold."""

    tensors: Mapping[str, Tensor]
    document: Mapping[str, Any]


class StateFolder:
    """Saves and loads snapshots in one folder, which is made at the first save."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextlib.contextmanager
    def in_use(self, keep: bool) -> Iterator[None]:
        """Hold the folder, emptied unless `keep`; it goes again where nothing was saved in it."""
        with folder_lock(self.path):
            if not keep:
                self._remove_all_but(set())
            try:
                yield
            finally:
                with contextlib.suppress(OSError):
                    self.path.rmdir()

    def save(self, snapshot: Snapshot) -> None:
        """Make this the newest state, and drop all but the last two.

        Raises StorageError when it cannot be written, or the disk has too little room; the states before it stay.
        """
        number = max(self._numbers(), default=0) + 1
        manifest, tensors = self._files(number)
        self._require_room(snapshot)
        with self._told_as_storage_error():
            self.path.mkdir(parents=True, exist_ok=True)
        stream = _Hashed(container_chunks(snapshot.tensors, {}))
        write_atomic(tensors, stream)
        state = {"bytes": stream.bytes, "sha256": stream.sha256, "document": snapshot.document}
        write_atomic(manifest, json.dumps({"state": state, "sha256": _sha256_of_json(state)}).encode())
        write_atomic(self.path / LATEST, manifest.name.encode())
        self.clean()

    def load(self) -> Snapshot | None:
        """The newest state that is whole, or None where nothing was saved. InputRefused when all are damaged."""
        problems = []
        for number in self._newest_first():
            try:
                return self._read(number)
            except (InputRefused, OSError, ValueError, KeyError, TypeError) as error:
                problems.append(f"{self._files(number)[0].name}: {error}")
        if problems:
            raise InputRefused(f"{self.path}: no saved state is whole ({'; '.join(problems)}); pass --resume never")
        return None

    def clean(self) -> None:
        """Remove what is no part of the last two states: left-overs of a write that was cut off, older states."""
        newest_first = self._newest_first()
        pointed = self._pointed()
        stale = [number for number in newest_first if pointed is not None and number > pointed]
        kept = [number for number in newest_first if number not in stale][:KEPT]
        names = {file.name for number in kept for file in self._files(number)} | {LATEST}
        self._remove_all_but(names)

    def remove(self) -> None:
        """The run is finished: nothing has to be gone on from."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _remove_all_but(self, names: set[str]) -> None:
        with contextlib.suppress(OSError):  # what cannot be removed now is removed at the next start
            for path in self.path.iterdir():
                if path.name not in names:
                    path.unlink()

    def _files(self, number: int) -> tuple[Path, Path]:
        return self.path / f"{number:06}.json", self.path / f"{number:06}.safetensors"

    def _numbers(self) -> list[int]:
        names = (_MANIFEST.fullmatch(path.name) for path in self.path.glob("*.json"))
        return [int(name[1]) for name in names if name]

    def _pointed(self) -> int | None:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            if name := _MANIFEST.fullmatch((self.path / LATEST).read_text(encoding="ascii")):
                return int(name[1]) if int(name[1]) in self._numbers() else None
        return None

    def _newest_first(self) -> list[int]:
        """The one that `latest` names, then those before it, then any that never became the latest."""
        pointed = self._pointed()
        return sorted(self._numbers(), key=lambda number: (pointed is not None and number > pointed, -number))

    def _read(self, number: int) -> Snapshot:
        manifest, tensors = self._files(number)
        content = json.loads(manifest.read_text(encoding="utf-8"))
        state = content["state"]
        if content["sha256"] != _sha256_of_json(state):
            raise InputRefused("its bytes are not those that were written")
        if (tensors.stat().st_size, sha256_of(tensors)) != (state["bytes"], state["sha256"]):
            raise InputRefused(f"the bytes of {tensors.name} are not those that were written")
        return Snapshot(read_container(tensors).arrays, state["document"])

    def _require_room(self, snapshot: Snapshot) -> None:
        needed = sum(tensor.numel() * tensor.element_size() for tensor in snapshot.tensors.values()) + SPARE_BYTES
        require_room(self.path, needed, "the next state; the last one stays")

    @contextlib.contextmanager
    def _told_as_storage_error(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(f"{self.path} cannot be made: {error.strerror}; choose another --out") from error


def require_room(path: Path, needed: int, what: str) -> None:
    """Raise StorageError where the disk of `path` has fewer than `needed` free bytes."""
    there = next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise StorageError(
            f"{path}: {free:,} bytes are free on its disk and {needed:,} are needed for {what}; "
            "free some space, and run the same command again"
        )


class _Hashed:
    """Chunks that are counted and hashed as they go by, so that what was written need not be read again."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks, self._hash, self.bytes = chunks, hashlib.sha256(), 0

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self._hash.update(chunk)
            self.bytes += len(chunk)
            yield chunk

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()


def _sha256_of_json(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()

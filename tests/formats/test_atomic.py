"""Atomic writes: whole or not at all, nothing left behind, and a text that helps."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from rnnprune.errors import StorageError
from rnnprune.formats.atomic import write_atomic


def test_bytes_and_chunks_are_written(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a", b"whole")
    write_atomic(tmp_path / "b", (chunk for chunk in (b"in ", b"parts")))
    assert (tmp_path / "a").read_bytes() == b"whole"
    assert (tmp_path / "b").read_bytes() == b"in parts"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_the_new_file_has_the_usual_permissions(tmp_path: Path) -> None:
    write_atomic(tmp_path / "ours", b"")
    (tmp_path / "plain").write_bytes(b"")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("stop", [KeyboardInterrupt, MemoryError, SystemExit])
def test_an_interrupted_write_leaves_the_old_file_and_no_rubbish(tmp_path: Path, stop: type[BaseException]) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"half"
        raise stop

    path = tmp_path / "model"
    path.write_bytes(b"old")
    with pytest.raises(stop):
        write_atomic(path, chunks())
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


def test_a_full_disk_leaves_the_old_file_and_tells_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "model"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"model cannot be written: No space left on device; free some space"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


def test_a_folder_that_cannot_be_synced_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync

    def only_files(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):  # noqa: PTH112
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", only_files)
    write_atomic(tmp_path / "model", b"new")
    assert (tmp_path / "model").read_bytes() == b"new"


def test_file_and_folder_are_both_synced_and_in_this_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    real_sync, real_replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (calls.append("sync"), real_sync(descriptor))[1])
    monkeypatch.setattr(os, "replace", lambda *paths: (calls.append("replace"), real_replace(*paths))[1])
    write_atomic(tmp_path / "model", b"new")
    assert calls == ["sync", "replace", "sync"]


def test_a_missing_folder_and_a_name_that_is_taken_are_explained(tmp_path: Path) -> None:
    with pytest.raises(
        StorageError, match=r"model cannot be written: No such file or directory; create the folder first"
    ):
        write_atomic(tmp_path / "missing" / "model", b"")
    (tmp_path / "taken").mkdir()
    with pytest.raises(StorageError, match=r"taken cannot be written: Is a directory; a folder has that name"):
        write_atomic(tmp_path / "taken", b"")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="part of the path is a file"):
        write_atomic(tmp_path / "file" / "model", b"")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "taken"]


def test_a_very_long_name_is_still_written(tmp_path: Path) -> None:
    write_atomic(tmp_path / ("n" * 250), b"x")
    with pytest.raises(StorageError, match="choose a shorter name"):
        write_atomic(tmp_path / ("n" * 300), b"x")

"""A disk that is full, a folder that is read-only, a device that takes nothing: the last good state stays, exit 6."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import torch
from forks import exit_code, forked
from torch import nn

from rnnprune.cli.app import app
from rnnprune.errors import StorageError
from rnnprune.formats import atomic, state_folder
from rnnprune.formats.state_folder import Snapshot, StateFolder

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
SIZE = 50_000


def snapshot(number: int) -> Snapshot:
    return Snapshot({"w": torch.full((SIZE,), float(number))}, {"number": number})


def number_of(folder: StateFolder) -> int:
    found = folder.load()
    assert found is not None
    assert found.tensors["w"].unique().tolist() == [found.document["number"]]
    return int(found.document["number"])


WHOLE = 4 * SIZE + 72 + 300  # tensors with their header, and a manifest


@pytest.mark.parametrize("offset", [0, 1, 8, 72, 4096, SIZE, 2 * SIZE, 4 * SIZE, 4 * SIZE + 80, WHOLE - 200])
def test_a_disk_that_fills_at_some_byte_keeps_the_last_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offset: int
) -> None:
    folder = StateFolder(tmp_path / "state")
    folder.save(snapshot(1))
    write, room = atomic._write_synced, [offset]

    def until_full(chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            if len(chunk) > room[0]:
                yield chunk[: room[0]]
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            room[0] -= len(chunk)
            yield chunk

    def filling(path: Path, chunks: Iterable[bytes]) -> None:
        write(path, until_full(chunks))

    monkeypatch.setattr(atomic, "_write_synced", filling)
    with pytest.raises(StorageError, match=r"00000\d\.\w+ cannot be written: No space left on device; free some space"):
        folder.save(snapshot(2))
    monkeypatch.setattr(atomic, "_write_synced", write)
    assert number_of(folder) == 1
    assert not list(folder.path.glob(".*")), "no rubbish takes the room"
    folder.save(snapshot(3))
    assert number_of(folder) == 3


def test_too_little_room_is_found_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = StateFolder(tmp_path / "state")
    folder.save(snapshot(1))
    before = sorted(folder.path.iterdir())
    usage = state_folder.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(state_folder.shutil, "disk_usage", lambda _: usage._replace(free=4 * SIZE))
    with pytest.raises(StorageError, match=r"state: 200,000 bytes are free on its disk and 1,248,576 are needed"):
        folder.save(snapshot(2))
    assert sorted(folder.path.iterdir()) == before
    assert number_of(folder) == 1


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    torch.save(nn.ModuleDict({"encoder": nn.LSTM(60, 100)}).state_dict(), "bare.pt")
    return Path("bare.pt")


def run(*arguments: str, user: int | None = None, stdout: str = "stdout.txt") -> tuple[int, str]:
    """Exit code and stderr of a command, perhaps as another user."""

    def act() -> None:
        os.dup2(os.open("stderr.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        os.dup2(os.open(stdout, os.O_WRONLY | os.O_CREAT), 1)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
        if user is not None:
            os.setuid(user)
        app(list(arguments))

    code = exit_code(forked(act))
    return code, Path("stderr.txt").read_text()


@pytest.mark.usefixtures("bare")
def test_an_answer_that_cannot_be_written_is_no_success() -> None:
    code, told = run("report", "bare.pt", "--json", stdout="/dev/full")
    assert code == 6
    assert "standard output cannot be written: No space left on device" in told


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.usefixtures("bare")
def test_a_read_only_folder_exits_with_6_and_its_name(tmp_path: Path) -> None:
    for path in (tmp_path, *tmp_path.parents[:2]):
        path.chmod(0o755)
    (tmp_path / "locked").mkdir(mode=0o755)
    (tmp_path / "locked/x.safetensors").write_text("old")
    for arguments in (
        ("prune", "bare.pt", "--out", "locked/run"),
        ("export", "bare.pt", "--out", "locked/x.safetensors", "--overwrite"),
    ):
        code, told = run(*arguments, user=65534)
        assert code == 6, told
        assert arguments[3] in told
    assert (tmp_path / "locked/x.safetensors").read_text() == "old"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 5 MB, where one can be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("this user cannot mount a small file system")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.usefixtures("bare")
def test_a_real_disk_that_fills_up_keeps_what_was_there(small_disk: Path) -> None:
    folder = StateFolder(small_disk / "state")
    folder.save(snapshot(1))
    (small_disk / "out.safetensors").write_text("old")
    for spare in (300_000, 200_000, 100_000, 50_000, 4096):  # bytes left free, less than the 4 * 64,800 of the model
        usage = os.statvfs(small_disk)
        (small_disk / "filler").write_bytes(b"x" * max(0, usage.f_bavail * usage.f_frsize - spare))
        with pytest.raises(StorageError, match="state"):
            folder.save(snapshot(2))
        code, told = run(
            "export", "bare.pt", "--format", "dense", "--out", f"{small_disk}/out.safetensors", "--overwrite"
        )
        assert code == (0 if spare == 300_000 else 6), told
        if code:
            assert "out.safetensors cannot be written: No space left on device" in told
            assert (small_disk / "out.safetensors").read_text() == "old"
        else:
            (small_disk / "out.safetensors").write_text("old")
        assert number_of(folder) == 1
        assert {path.name for path in small_disk.iterdir()} == {"state", "out.safetensors", "filler"}
        (small_disk / "filler").unlink()

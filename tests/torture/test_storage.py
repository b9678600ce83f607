"""A disk that is full, a folder that is read-only, a device that takes nothing: the last good state stays, exit 6."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
import torch
from forks import exit_code, forked, obey_permissions
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


TASK = '''
import os, signal
import torch
from torch import nn

class Short:
    """At the step of STOP it asks to be stopped; at its eleventh it fills the disk FILL but for 100 kB."""
    metric, goal = "mse", "min"
    calls = 0

    def build_model(self):
        return nn.ModuleDict({"encoder": nn.LSTM(60, 100)})

    def train_batches(self, *, epoch, seed, rank, world_size):
        return [torch.randn(4, 2, 60, generator=torch.Generator().manual_seed(i)) for i in range(30)]

    def loss(self, model, batch):
        self.calls += 1
        if self.calls == int(os.environ.get("STOP", 0)):
            signal.raise_signal(signal.SIGTERM)
        if self.calls == 11 and (disk := os.environ.get("FILL")):
            usage = os.statvfs(disk)
            open(disk + "/filler", "wb").write(bytes(usage.f_bavail * usage.f_frsize - 100_000))
        return model["encoder"](batch)[0].square().mean()

    def evaluate(self, model, split):
        return {"mse": 1.0}

def make():
    return Short()
'''


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("short.py").write_text(TASK)
    torch.save(nn.ModuleDict({"encoder": nn.LSTM(60, 100)}).state_dict(), "bare.pt")
    return Path("bare.pt")


def run(*arguments: str, limit: Callable[[], None] | None = None, stdout: str = "stdout.txt") -> tuple[int, str]:
    """Exit code and stderr of a command, in a process that may be limited."""

    def act() -> None:
        os.dup2(os.open("stderr.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        os.dup2(os.open(stdout, os.O_WRONLY | os.O_CREAT), 1)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
        if limit is not None:
            limit()
        app(list(arguments))

    code = exit_code(forked(act))
    return code, Path("stderr.txt").read_text()


@pytest.mark.usefixtures("bare")
def test_an_answer_that_cannot_be_written_is_no_success() -> None:
    code, told = run("report", "bare.pt", "--json", stdout="/dev/full")
    assert code == 6
    assert "standard output cannot be written: No space left on device" in told


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


def fill(disk: Path, spare: int) -> None:
    """Leave so many bytes free."""
    usage = os.statvfs(disk)
    (disk / "filler").write_bytes(b"x" * max(0, usage.f_bavail * usage.f_frsize - spare))


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


COMMANDS = (
    ("prune", "bare.pt", "--out", "{}/run"),
    ("export", "bare.pt", "--overwrite", "--out", "{}/x.safetensors"),
    ("finetune", "bare.pt", "--task", "short.py:make", "--steps", "4", "--out", "{}/unfinished"),
    ("finetune", "bare.pt", "--task", "short.py:make", "--steps", "4", "--out", "{}/new"),
)


def interrupted_run(out: str) -> None:
    """A run of `finetune` that was stopped after its second step."""
    code, told = run(*COMMANDS[2][:-1], out, limit=lambda: os.environ.update(STOP="2"))
    assert code == 143, told


def refuses(folder: Path, limit: Callable[[], None] | None = None) -> None:
    before = content_of(folder)
    for *arguments, out in COMMANDS:
        code, told = run(*arguments, out.format(folder), limit=limit)
        assert code == 6, told
        assert out.format(folder) in told
    assert content_of(folder) == before


@pytest.mark.usefixtures("bare")
def test_a_folder_without_permission_to_write_exits_with_6_and_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    (folder / "x.safetensors").write_text("old")
    interrupted_run(f"{folder}/unfinished")
    inside = [folder, *folder.rglob("*")]
    for path in inside:
        path.chmod(0o555)
    refuses(folder, obey_permissions)
    for path in inside:
        path.chmod(0o755)
    code, told = run(*COMMANDS[2][:-1], f"{folder}/unfinished")
    assert code == 0, told
    assert "going on after step 2" in told


@pytest.mark.usefixtures("bare")
def test_a_read_only_disk_exits_with_6_and_its_name(small_disk: Path) -> None:
    (small_disk / "x.safetensors").write_text("old")
    interrupted_run(f"{small_disk}/unfinished")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    refuses(small_disk)
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    code, told = run(*COMMANDS[2][:-1], f"{small_disk}/unfinished")
    assert code == 0, told
    assert "going on after step 2" in told


@pytest.mark.usefixtures("bare")
def test_a_real_disk_that_fills_up_at_ten_offsets_keeps_what_was_there(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_folder, "require_room", lambda *_: None)  # or nothing would be written at all
    folder = StateFolder(small_disk / "state")
    folder.save(snapshot(1))
    (small_disk / "out.safetensors").write_text("old")
    for spare in range(0, 200_000, 20_000):  # bytes left free, less than the state or the model takes
        fill(small_disk, spare)
        with pytest.raises(StorageError, match=r"00000\d\.\w+ cannot be written: No space left on device; free some"):
            folder.save(snapshot(2))
        code, told = run(
            "export", "bare.pt", "--format", "dense", "--out", f"{small_disk}/out.safetensors", "--overwrite"
        )
        assert code == 6, told
        assert "out.safetensors cannot be written: No space left on device" in told
        assert (small_disk / "out.safetensors").read_text() == "old"
        assert number_of(folder) == 1
        assert {path.name for path in small_disk.iterdir()} == {"state", "out.safetensors", "filler"}
        assert len(list(folder.path.iterdir())) == 3, "tensors, manifest, pointer"
        (small_disk / "filler").unlink()
    folder.save(snapshot(2))
    assert number_of(folder) == 2
    print("\na disk of 5 MB that fills up at 10 offsets: the state before it loads, exit 6")


@pytest.mark.usefixtures("bare")
def test_a_run_whose_disk_fills_up_goes_on_when_there_is_room_again(small_disk: Path) -> None:
    def command(out: str) -> tuple[str, ...]:
        more = ("--steps", "20", "--save-every", "2", "--threads", "1", "--out", out)
        return ("finetune", "bare.pt", "--task", "short.py:make", *more)

    assert run(*command("whole"))[0] == 0
    run_folder = small_disk / "run"
    code, told = run(*command(str(run_folder)), limit=lambda: os.environ.update(FILL=str(small_disk)))
    assert code == 6, told
    assert f"{run_folder}/.unfinished/state: " in told
    assert "free some space, and run the same command again" in told
    (small_disk / "filler").unlink()
    code, told = run(*command(str(run_folder)))
    assert code == 0, told
    assert "going on after step 10 (pruning)" in told
    for name in ("model.safetensors", "metrics.jsonl"):
        assert (run_folder / name).read_bytes() == Path("whole", name).read_bytes()

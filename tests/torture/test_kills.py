"""kill -9 at any point of a write: what loads is the old or the new, and what lies about goes at the next start."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from forks import POINTS_OF_A_FILE, die_in_removing, die_in_writing, exit_code, forked

from rnnprune.formats.atomic import write_atomic
from rnnprune.formats.run_folder import STAGE, STATE, is_run_folder, open_stage, publish, write_manifest
from rnnprune.formats.state_folder import Snapshot, StateFolder

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
SIZE = 100_000  # float32: well over a page and over Python's buffer


def snapshot(number: int) -> Snapshot:
    return Snapshot(
        {"model/w": torch.full((SIZE,), float(number)), "mask/w": torch.full((SIZE // 8,), number, dtype=torch.uint8)},
        {"number": number},
    )


def number_of(folder: StateFolder) -> int | None:
    """Which state loads; every part of it must agree."""
    found = folder.load()
    if found is None:
        return None
    numbers = {*found.tensors["model/w"].unique().tolist(), *found.tensors["mask/w"].unique().tolist()}
    assert numbers == {found.document["number"]}
    return int(found.document["number"])


FILES = {"tensors": ".safetensors", "manifest": ".json", "pointer": "latest"}
POINTS: dict[str, Callable[[], None]] = {
    f"{role} {point}": (lambda name=name, point=point: die_in_writing(name, point))  # type: ignore[misc]
    for role, name in FILES.items()
    for point in POINTS_OF_A_FILE
} | {
    "older state to be removed": lambda: die_in_removing(0),
    "older state half removed": lambda: die_in_removing(1),
}


@pytest.mark.parametrize("states_before", [0, 2])
@pytest.mark.parametrize("point", POINTS)
def test_a_save_that_is_killed_leaves_the_old_state_or_the_new(tmp_path: Path, point: str, states_before: int) -> None:
    folder = StateFolder(tmp_path / "state")
    for number in range(1, states_before + 1):
        folder.save(snapshot(number))
    new = states_before + 1

    def save() -> None:
        POINTS[point]()
        StateFolder(tmp_path / "state").save(snapshot(new))

    killed = exit_code(forked(save)) == -signal.SIGKILL
    assert killed == (not ("removed" in point and states_before == 0)), "the first save has nothing to remove"
    is_new = point == "pointer renamed" or "removed" in point
    if states_before == 0:  # nothing older to stay with: what is whole is found without the pointer
        is_new = is_new or point == "manifest renamed" or point.startswith("pointer")
    assert number_of(folder) == (new if is_new else states_before or None)

    folder.clean()
    left = {path.name for path in folder.path.iterdir()} if folder.path.exists() else set()
    states = {name.partition(".")[0] for name in left} - {"latest"}
    assert left <= {f"{state}{suffix}" for state in states for suffix in (".json", ".safetensors")} | {"latest"}
    assert len(states) <= 2
    folder.save(snapshot(9))
    assert number_of(folder) == 9


@pytest.mark.parametrize("before", [b"", b"old" * SIZE], ids=["first write", "overwrite"])
@pytest.mark.parametrize("point", POINTS_OF_A_FILE)
def test_a_file_that_is_killed_while_it_is_written_is_old_or_new(tmp_path: Path, point: str, before: bytes) -> None:
    path = tmp_path / "model.safetensors"
    if before:
        path.write_bytes(before)

    def write() -> None:
        die_in_writing("model.safetensors", point)
        write_atomic(path, b"new" * SIZE)

    assert exit_code(forked(write)) == -signal.SIGKILL
    content = path.read_bytes() if path.exists() else b""
    assert content == (b"new" * SIZE if point == "renamed" else before)
    write_atomic(path, b"next")
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.safetensors"]


def stage_run(run: Path, text: str) -> None:
    stage = open_stage(run, overwrite=True, unfinished="keep")
    StateFolder(stage / STATE).save(snapshot(1))
    for name in ("model.safetensors", "README.md"):
        (stage / name).write_text(text)
    if not (stage / "metrics.jsonl").exists():
        (stage / "metrics.jsonl").write_text(text)
    write_manifest(stage, {"made": text})


def texts(run: Path) -> set[str]:
    names = ("model.safetensors", "README.md", "metrics.jsonl", "rnnprune.json")
    return {(run / name).read_text().strip().replace('{\n  "made": "', "").replace('"\n}', "") for name in names}


@pytest.mark.slow
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_publication_that_is_killed_is_the_old_run_or_is_done_again(tmp_path: Path, overwrite: bool) -> None:
    seen = set()
    for operation in range(14):
        run = tmp_path / f"run{operation}"
        if overwrite:
            stage_run(run, "old")
            publish(run)
        stage_run(run, "new")

        def publishing(run: Path = run, operation: int = operation) -> None:
            left = iter(range(1000))
            for name in ("replace", "rename", "unlink"):
                real = getattr(os, name)

                def dying(*args: object, real: Callable[..., None] = real, **more: object) -> None:
                    if next(left) == operation:
                        os.kill(os.getpid(), signal.SIGKILL)
                    real(*args, **more)

                setattr(os, name, dying)
            publish(run)

        code = exit_code(forked(publishing))
        if is_run_folder(run):
            assert texts(run) == ({"new"} if (code == 0 or not (run / STAGE / "rnnprune.json").exists()) else {"old"})
        else:
            assert number_of(StateFolder(run / STAGE / STATE)) == 1, "the run can be gone on with"
            stage_run(run, "new")
            publish(run)
            assert texts(run) == {"new"}
            assert not (run / STAGE).exists()
        seen.add((code, is_run_folder(run)))
    assert {code for code, _ in seen} == {0, -signal.SIGKILL}


@pytest.mark.torture
def test_saves_that_are_killed_200_times_at_random(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path / "state")
    when, outcomes = random.Random(0), {"the state before": 0, "the state that was being saved": 0}
    last = 0
    for _ in range(200):
        told, tell = os.pipe()

        def save_on(first: int = last + 1, tell: int = tell) -> None:
            for number in range(first, first + 10_000):
                folder.save(snapshot(number % 256))
                os.write(tell, number.to_bytes(4, "little"))

        child = forked(save_on)
        os.close(tell)
        time.sleep(when.uniform(0.0, 0.05))
        os.kill(child, signal.SIGKILL)
        assert exit_code(child) == -signal.SIGKILL
        with os.fdopen(told, "rb") as file:
            acknowledged = file.read()
        saved = int.from_bytes(acknowledged[-4:], "little") if acknowledged else last
        found = number_of(folder) or 0
        assert found in (saved % 256, (saved + 1) % 256)
        outcomes["the state before" if found == saved % 256 else "the state that was being saved"] += 1
        folder.clean()
        assert len(list(folder.path.iterdir())) <= 5 if folder.path.exists() else True
        last = saved + (found != saved % 256)
    print(f"\n200 kills at random, {last} states saved: {outcomes}")

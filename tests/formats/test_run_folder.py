"""Run folders: which is the newest, what is never overwritten, and JSON that every reader accepts."""

import hashlib
import json
import math
import os
from pathlib import Path
from typing import get_args

import pytest

from rnnprune.errors import StorageError, UsageError
from rnnprune.formats.options import ExportFormat
from rnnprune.formats.run_folder import (
    dump_plain,
    newest_run,
    open_stage,
    publish,
    sha256_of,
    write_manifest,
)


def finished_run(path: Path, finished_at: int) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    write_manifest(path, {"schema": 1, "name": path.name})
    os.utime(path / "rnnprune.json", (finished_at, finished_at))
    return path


def test_the_newest_run_is_the_one_finished_last_whatever_its_name(tmp_path: Path) -> None:
    finished_run(tmp_path / "z-first", 1000)
    last = finished_run(tmp_path / "a-last", 3000)
    finished_run(tmp_path / "m-middle", 2000)
    assert newest_run(tmp_path) == last


def test_writing_into_an_older_run_does_not_make_it_the_newest(tmp_path: Path) -> None:
    older, newer = finished_run(tmp_path / "older", 1000), finished_run(tmp_path / "newer", 2000)
    (older / "model.csr.safetensors").write_bytes(b"exported just now")
    assert newest_run(tmp_path) == newer


def test_unfinished_runs_files_and_deeper_folders_do_not_count(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run", 1000)
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "metrics.jsonl").touch()
    (tmp_path / "rnnprune.json.txt").touch()
    finished_run(tmp_path / "archive" / "newer", 9000)
    assert newest_run(tmp_path) == run


def test_the_folder_itself_may_be_the_run(tmp_path: Path) -> None:
    assert newest_run(finished_run(tmp_path / "run", 1000)) == tmp_path / "run"


def test_no_run_at_all_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no run folder in .*rnnprune finetune CKPT --target 0\.9"):
        newest_run(tmp_path)


def contents(run: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in run.iterdir() if path.is_file()}


def test_a_finished_run_is_kept_unless_overwrite_is_asked_for(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run", 1000)
    before = contents(run)
    with pytest.raises(UsageError, match="already holds a finished run; choose another --out, or pass --overwrite"):
        open_stage(run, overwrite=False)
    assert contents(run) == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_somebody_else_is_never_written_into(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "model.safetensors").write_text("precious")
    with pytest.raises(UsageError, match=r"holds other files and no run; choose another --out"):
        open_stage(tmp_path, overwrite=overwrite)
    assert contents(tmp_path) == {"model.safetensors": "precious"}


def test_an_older_run_is_whole_until_the_new_one_is_published(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run", 1000)
    exports = [
        f"model.{form}{values}.safetensors" for form in get_args(ExportFormat) for values in ("", ".fp16", ".int8")
    ]
    for name in (*exports, "model.best.safetensors", "metrics.jsonl"):
        (run / name).write_text("old")
    before = contents(run)
    stage = open_stage(run, overwrite=True)
    (stage / "model.safetensors").write_text("new")
    write_manifest(stage, {"new": True})
    assert contents(run) == before

    publish(run)
    after = {path.name: path.read_text() for path in run.iterdir()}
    assert json.loads(after.pop("rnnprune.json")) == {"new": True}
    assert after == {"model.safetensors": "new", "model.best.safetensors": "old"}, "exports and curve of the old one go"


def test_an_unfinished_run_may_be_begun_again(tmp_path: Path) -> None:
    (open_stage(tmp_path / "deep" / "run", overwrite=False) / "metrics.jsonl").write_text("{}")
    stage = open_stage(tmp_path / "deep" / "run", overwrite=False)
    assert list(stage.iterdir()) == []


@pytest.mark.parametrize("below", ["", "run"])
def test_a_file_in_the_way_is_a_storage_error(tmp_path: Path, below: str) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(StorageError, match=r"taken.*cannot make the run folder.*choose another --out"):
        open_stage(tmp_path / "taken" / below, overwrite=False)
    assert (tmp_path / "taken").read_text() == "a file"


def test_figures_that_are_not_finite_become_null_at_any_depth() -> None:
    text = dump_plain({"a": math.nan, "b": [1.0, (math.inf, {"c": -math.inf})], "d": 2})
    assert json.loads(text, parse_constant=pytest.fail) == {"a": None, "b": [1.0, [None, {"c": None}]], "d": 2}


def test_the_fingerprint_is_sha256(tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    (tmp_path / "file").write_bytes(data)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(data).hexdigest()

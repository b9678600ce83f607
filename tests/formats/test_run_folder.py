"""Run folders: which is the newest, what is never overwritten, and JSON that every reader accepts."""

import hashlib
import json
import math
import os
from pathlib import Path

import pytest

from rnnprune.errors import InputRefused, StorageError, UsageError
from rnnprune.formats.run_folder import (
    create_run_folder,
    dump_plain,
    newest_run,
    open_for_rewriting,
    read_manifest,
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


def test_a_finished_run_is_kept_unless_overwrite_is_asked_for(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run", 1000)
    before = (run / "rnnprune.json").read_bytes()
    with pytest.raises(UsageError, match="already holds a finished run; choose another --out, or pass --overwrite"):
        create_run_folder(run, overwrite=False)
    assert (run / "rnnprune.json").read_bytes() == before


def test_overwriting_keeps_the_older_run_whole_until_the_new_one_is_written(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run", 1000)
    (run / "metrics.jsonl").write_text("old\n")
    before = (run / "rnnprune.json").read_bytes()
    create_run_folder(run, overwrite=True)
    assert (run / "rnnprune.json").read_bytes() == before
    assert (run / "metrics.jsonl").read_text() == "old\n"


def test_exports_of_an_older_model_go_and_nothing_else(tmp_path: Path) -> None:
    gone = {"model.csr.safetensors", "model.csr.fp16.safetensors", "model.dense.safetensors"}
    kept = {"model.safetensors", "mine.csr.safetensors", "README.md", "model.csr.txt"}
    for name in gone | kept:
        (tmp_path / name).touch()
    open_for_rewriting(tmp_path, keep_metrics=True)
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_rewriting_takes_the_manifest_first_and_the_curve_of_another_training(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run", 1000)
    (run / "metrics.jsonl").touch()
    open_for_rewriting(run, keep_metrics=False)
    assert list(run.iterdir()) == []


def test_an_unfinished_run_may_be_begun_again(tmp_path: Path) -> None:
    create_run_folder(tmp_path / "deep" / "run", overwrite=False)
    create_run_folder(tmp_path / "deep" / "run", overwrite=False)
    assert (tmp_path / "deep" / "run").is_dir()


@pytest.mark.parametrize("below", ["", "run"])
def test_a_file_in_the_way_is_a_storage_error(tmp_path: Path, below: str) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(StorageError, match=r"taken.*cannot make the run folder.*choose another --out"):
        create_run_folder(tmp_path / "taken" / below, overwrite=False)
    assert (tmp_path / "taken").read_text() == "a file"


def test_a_manifest_comes_back(tmp_path: Path) -> None:
    write_manifest(tmp_path, {"a": [1, 2.5, None, "é"], "b": {"c": True}})
    assert read_manifest(tmp_path) == {"a": [1, 2.5, None, "é"], "b": {"c": True}}
    assert (tmp_path / "rnnprune.json").read_bytes().endswith(b"}\n")


@pytest.mark.parametrize("content", [b"{", b"[]", b'"x"', b"\xff\xfe", b""])
def test_a_damaged_manifest_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "rnnprune.json").write_bytes(content)
    with pytest.raises(InputRefused, match=r"rnnprune\.json.*run `rnnprune finetune` again"):
        read_manifest(tmp_path)


def test_figures_that_are_not_finite_become_null_at_any_depth() -> None:
    text = dump_plain({"a": math.nan, "b": [1.0, (math.inf, {"c": -math.inf})], "d": 2})
    assert json.loads(text, parse_constant=pytest.fail) == {"a": None, "b": [1.0, [None, {"c": None}]], "d": 2}


def test_the_fingerprint_is_sha256(tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    (tmp_path / "file").write_bytes(data)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(data).hexdigest()

"""`finetune --dense`, `--distill-level sequence`, and `evaluate --engine torch-dense-int8`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SIZES = ("--seq-len", "20", "--batch-size", "8")
Program = Callable[..., Any]


@pytest.mark.usefixtures("finished")
def test_a_dense_run_is_the_control_that_a_pruned_run_has_beside_it(rnnprune: Program) -> None:
    alone = rnnprune("finetune", "ckpt.pt", "--dense", "--steps", "20", *SIZES, "--json").json
    beside = rnnprune(
        "finetune", "ckpt.pt", "--target", "0.5", "--control", "--steps", "20", *SIZES, "--out", "both", "--json"
    ).json
    assert alone["run"] == "ckpt-dense"
    assert alone["sparsity"] == {"target": 0.0, "achieved": 0.0, "per_tensor": {}}
    assert alone["metric"]["dense_control"] == beside["metric"]["dense_control"] != beside["metric"]["sparse"]


@pytest.mark.usefixtures("finished")
def test_a_dense_model_may_have_a_teacher_as_well(rnnprune: Program) -> None:
    flags = ("--dense", "--distill", "--distill-weight", "1", "--steps", "5", *SIZES, "--out", "new")
    told = rnnprune("finetune", "ckpt.pt", *flags)
    assert told.code == 0, told.err
    first = json.loads(Path("new/metrics.jsonl").read_text().splitlines()[0])
    assert first["loss"] == pytest.approx(0.0, abs=1e-6), "it begins as its own teacher"


@pytest.mark.usefixtures("finished")
@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (("--dense", "--target", "0.9"), "--dense prunes nothing: drop --target"),
        (("--dense", "--max-loss", "1%"), "--dense prunes nothing: drop --target and --max-loss"),
        (("--dense", "--control"), "--dense is the control as a run of its own: drop --control"),
        (("--distill", "--distill-level", "sequence"), "LmTask has none: use --distill-level word"),
        (("--distill", "--distill-level", "sequence", "--distill-weight", "0.9"), "belong to --distill-level word"),
    ],
)
def test_flags_that_cannot_go_together(rnnprune: Program, flags: tuple[str, ...], why: str) -> None:
    told = rnnprune("finetune", "ckpt.pt", *flags, "--steps", "20", *SIZES, "--out", "new")
    assert told.code == 2
    assert why in told.err


def test_a_student_learns_the_answers_of_its_teacher(
    rnnprune: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["".join("abcd"[(n >> shift) & 3] for shift in (0, 2, 4)) for n in range(64)]
    Path("pairs.tsv").write_text("".join(f"{word}\t{word[::-1]}\n" for word in words))
    sizes = ("--hidden", "8", "--embedding", "4", "--steps", "5", "--batch-size", "8")
    assert rnnprune("train", "seq2seq", "--data", "pairs.tsv", "--out", "ckpt.pt", *sizes).code == 0
    short = ("--target", "0.5", "--steps", "20", "--batch-size", "8")
    told = rnnprune("finetune", "ckpt.pt", *short, "--distill", "--distill-level", "sequence", "--out", "new")
    assert told.code == 0, told.err
    assert json.loads(Path("new/rnnprune.json").read_text())["settings"]["distill"] == [None, [2.0, 0.5], "sequence"]


@pytest.mark.usefixtures("finished")
def test_the_one_line_rival_is_scored_like_any_other_engine(rnnprune: Program) -> None:
    dense, int8 = (
        rnnprune("evaluate", "ckpt.pt", "--engine", engine, "--json").json
        for engine in ("torch-dense-fp32", "torch-dense-int8")
    )
    assert int8["engine"] == "torch-dense-int8"
    assert int8["value"] != dense["value"]
    assert int8["value"] == pytest.approx(dense["value"], rel=0.05)
    assert {layer["engine"] for layer in int8["layers"]} == {"torch-dense-int8"}
    assert dense["bytes"] == Path("ckpt.pt").stat().st_size

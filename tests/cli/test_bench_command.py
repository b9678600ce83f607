"""`rnnprune bench` as a shell calls it: its flags, its errors by their text, what it prints. Never how fast it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rnnprune.kernels import native

QUICK = ("--rounds", "2", "--threads", "1", "--time-steps", "3")
REQUIRED = {
    *("op", "shape", "sparsity", "block", "dtype", "batch", "steps", "threads", "device", "engine"),
    *("median_us", "min_us", "p90_us", "iqr_us", "vs_dense", "max_error"),
}
DENSE = "torch-dense-fp32"
Call = Callable[..., Any]


def test_random_shapes_need_no_model(rnnprune: Call) -> None:
    told = rnnprune("bench", "--shapes", "24x16,gru:8x16", "--sparsity", "0.5,0.75", "--batch", "1,2", *QUICK, "--json")
    answer = told.json
    rows = answer["rows"]
    assert all(row.keys() >= REQUIRED for row in rows)
    assert {(row["op"], row["shape"], row["mode"], row["steps"]) for row in rows} == {
        ("matvec", "24x16", "product", 1),
        ("gru", "8->16", "sequence", 3),
        ("gru", "8->16", "step", 1),
    }
    assert {row["batch"] for row in rows} == {1, 2}
    assert {round(row["sparsity"], 1) for row in rows} <= {0.4, 0.5, 0.6, 0.7, 0.8}
    assert {row["weights"] for row in rows} == {"cache"}
    assert not any(row["suspect"] for row in rows)
    assert all(row["bound_us"] > 0 for row in rows)
    assert len(answer["same_again"]) == 2 * 2 * 3
    assert answer["path"] is None
    assert answer["break_even"] == []
    assert answer["machine"]["probe"][0]["threads"] == 1
    assert "timed matvec 24x16" in told.err
    assert "newest run" not in told.err


def test_blocks_reach_the_rows(rnnprune: Call) -> None:
    rows = rnnprune("bench", "--shapes", "32x16", "--block", "16x1", *QUICK, "--json").json["rows"]
    assert {row["block"] for row in rows} == {"16x1"}
    engines = {row["engine"] for row in rows}
    assert "native" not in engines, "a row names the layout that ran"
    if native.unavailable_reason() is None:
        assert {"native:16x1", "native:16x1:int8"} <= engines
        assert {row["dtype"] for row in rows if row["engine"] == "native:16x1:int8"} == {"int8"}


@pytest.mark.usefixtures("bare")
def test_a_model_brings_its_layers_and_linear_matrices(rnnprune: Call) -> None:
    rows = rnnprune("bench", "bare.pt", *QUICK, "--engines", "torch-csr", "--json").json["rows"]
    assert {(row["op"], row["shape"], row["name"]) for row in rows} == {
        ("matvec", "40x6", "encoder.weight_ih_l0"),
        ("matvec", "40x10", "encoder.weight_hh_l0"),
        ("lstm", "6->10", "encoder"),
        ("matvec", "5x10", "head.weight"),
    }
    assert {row["engine"] for row in rows} == {DENSE, "torch-csr"}
    assert {row["vs_csr"] for row in rows if row["engine"] == "torch-csr"} == {1.0}
    assert {row["vs_int8"] for row in rows} == {None}


def test_a_model_with_nothing_to_time_is_refused(rnnprune: Call, folder: Path) -> None:
    torch.save(torch.nn.BatchNorm1d(4).state_dict(), folder / "norm.pt")
    told = rnnprune("bench", "norm.pt")
    assert told.code == 2
    assert "no recurrent layer and no linear matrix was recognised" in told.err


def test_tables_say_what_they_hold_and_bars_are_plain_text(rnnprune: Call) -> None:
    told = rnnprune("bench", "--shapes", "24x16", *QUICK, "--engines", "torch-csr,onnxruntime-fp32", "--plot")
    assert told.code == 0, told.err
    assert told.out.startswith("matvec 24x16, 9"), "the title stands on a line of its own"
    assert "dense against dense: " in told.out
    assert "; spread " in told.out
    assert told.out.splitlines()[-1].startswith("torch-csr: "), "the summary stands last"
    assert "GB/s from L1 " in told.out
    assert told.out.count("#####") >= 1
    bars = [line for line in told.out.splitlines() if "#" in line]
    assert all(line.isascii() and line.endswith(" us") for line in bars)
    assert "left out: onnxruntime-fp32, matvec: onnx" in told.out or "onnxruntime-fp32 #" in told.out


def test_break_even_is_told_for_the_sparse_engine_against_both_dense_ones(rnnprune: Call) -> None:
    answer = rnnprune("bench", "--shapes", "24x16", *QUICK, "--engines", "scipy-csr", "--break-even", "--json").json
    found = answer["break_even"]
    assert {each["rival"] for each in found} == {"torch-dense-fp32", "torch-dense-int8"}
    assert {(each["engine"], each["shape"]) for each in found} == {("scipy-csr", "24x16")}
    assert all(each["sparsity"] is None or 0 <= each["sparsity"] < 1 for each in found)
    told = rnnprune("bench", "--shapes", "24x16", *QUICK, "--engines", "scipy-csr", "--break-even")
    assert "break-even: matvec 24x16, batch 1, 1 thread, weights from cache: scipy-csr is " in told.out


def test_a_missed_goal_prints_the_rows_first_and_exits_4(rnnprune: Call) -> None:
    arguments = ("bench", "--shapes", "8x8", *QUICK, "--engines", "scipy-csr", "--min-speedup")
    told = rnnprune(*arguments, "1e9")
    assert told.code == 4
    assert "scipy-csr" in told.out
    assert "--min-speedup 1e+09: matvec 8x8, " in told.err
    assert "scipy-csr, the best sparse engine, is " in told.err
    assert rnnprune(*arguments, "1e-9").code == 0


def test_from_memory_what_is_too_small_is_left_out(rnnprune: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    told = rnnprune("bench", "--shapes", "8x8", *QUICK, "--memory", "--engines", "torch-csr")
    assert told.code == 2
    assert "nothing could be timed: torch-dense-fp32, matvec: --memory: less than " in told.err
    monkeypatch.setattr("rnnprune.workflows.bench_measure.cache_sizes", lambda: (1, 1, 1024))
    answer = rnnprune("bench", "--shapes", "8x8,gru:8x8", *QUICK, "--memory", "--engines", "torch-csr", "--json").json
    assert {(row["weights"], row["mode"]) for row in answer["rows"]} == {("memory", "product"), ("memory", "step")}
    assert answer["left_out"] == ["all engines, gru: a sequence of 3 finds its weights in the cache after one step"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_cuda_device_cuda_is_refused(rnnprune: Call) -> None:
    told = rnnprune("bench", "--shapes", "8x8", "--device", "cuda")
    assert told.code == 2
    assert "--device cuda: torch sees no CUDA device here; use --device cpu" in told.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--engines", "native:sel8"), "--engines: unknown native:sel8; did you mean native:sell8?"),
        (("--batch", "0"), "--batch must be at least 1, found 0"),
        (("--threads", "1,-2"), "--threads must be at least 1, found 1, -2"),
        (("--time-steps", "0"), "--time-steps must be at least 1, found 0"),
        (("--rounds", "0"), "--rounds must be at least 1, found 0"),
        (("--sparsity", "1.0"), "--sparsity must lie in 0 to below 1, found 1.0"),
        (("--sparsity", "most"), "--sparsity takes shares such as 0.9,0.95; found 'most'"),
        (("--block", "16"), "--block takes ROWSxCOLUMNS, such as 16x1 or 8x4; found '16'"),
        (("--block", "0x1"), "--block takes ROWSxCOLUMNS, such as 16x1 or 8x4; found '0x1'"),
        (("--block", "²x1"), "--block takes ROWSxCOLUMNS, such as 16x1 or 8x4; found '²x1'"),
        (("--plot", "--json"), "--plot draws for people, --json prints for programs; choose one"),
        (("bare.pt",), "either bare.pt or --shapes 8x8, not both"),
    ],
)
@pytest.mark.usefixtures("bare")
def test_a_wrong_flag_is_refused_before_anything_is_timed(
    rnnprune: Call, arguments: tuple[str, ...], message: str
) -> None:
    told = rnnprune("bench", "--shapes", "8x8", *arguments)
    assert told.code == 2
    assert told.out == ""
    assert told.err.startswith(f"rnnprune: {message}")


@pytest.mark.usefixtures("bare")
def test_a_model_has_its_own_zeros(rnnprune: Call) -> None:
    for flag, value in (("--sparsity", "0.9"), ("--block", "16x1")):
        told = rnnprune("bench", "bare.pt", flag, value)
        assert told.code == 2
        assert "--sparsity and --block belong to the random weights of --shapes" in told.err

"""A benchmark row names what really ran, its error is measured against float64, and nothing is timed twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from rnnprune.errors import UsageError
from rnnprune.workflows.bench import BenchRequest, bench
from rnnprune.workflows.bench_rows import Benchmark

QUICK = {"steps": 3, "rounds": 1}
TORCH = ("torch-dense-int8", "torch-csr", "scipy-csr")


def bench_of(tmp_path: Path, module: nn.Module, **more: object) -> Benchmark:
    torch.save(module.state_dict(), tmp_path / "model.pt")
    return bench(BenchRequest(tmp_path / "model.pt", **QUICK | more))


@pytest.mark.parametrize("make", [nn.GRU, nn.LSTM])
def test_an_int8_row_shows_the_error_of_int8(tmp_path: Path, make: Callable[..., nn.RNNBase]) -> None:
    result = bench_of(tmp_path, make(24, 32), engines=TORCH)
    errors = {row.engine: row.max_error for row in result.rows if row.case.mode == "sequence"}
    assert set(errors) == {"torch-dense-fp32", *TORCH}
    assert 1e-4 < errors.pop("torch-dense-int8") < 0.2
    assert max(errors.values()) < 1e-5


def test_there_is_no_int8_row_for_a_vanilla_rnn_which_torch_leaves_as_it_was(tmp_path: Path) -> None:
    result = bench_of(tmp_path, nn.RNN(24, 32), engines=TORCH)
    engines = {mode: {row.engine for row in result.rows if row.case.mode == mode} for mode in ("sequence", "step")}
    assert engines["sequence"] == {"torch-dense-fp32", "torch-csr", "scipy-csr"}
    assert engines["step"] == {"torch-dense-fp32", *TORCH}, "torch has an int8 RNNCell"
    assert result.left_out == ("torch-dense-int8, rnn: torch has no dynamic int8 RNN",)


def test_layers_alike_are_timed_once_and_every_batch_on_its_own(tmp_path: Path) -> None:
    twins = nn.ModuleDict({"a": nn.GRU(6, 8), "b": nn.GRU(6, 8), "c": nn.GRUCell(6, 9)})
    found = bench_of(tmp_path, twins, batches=(1, 2), engines=("torch-csr",)).rows
    assert {(row.case.op, row.case.shape, row.case.mode, row.case.batch) for row in found} == {
        (*work, batch)
        for rows, hidden in ((24, 8), (27, 9))
        for work in (
            ("matvec", f"{rows}x6", "product"),
            ("matvec", f"{rows}x{hidden}", "product"),
            ("gru", f"6->{hidden}", "sequence"),
            ("gru", f"6->{hidden}", "step"),
        )
        for batch in (1, 2)
    }
    assert len(found) == 16 * 2


def test_with_one_step_there_are_single_steps_only(tmp_path: Path) -> None:
    rows = bench_of(tmp_path, nn.GRU(6, 8), steps=1, engines=("torch-csr",)).rows
    assert [row.case.mode for row in rows] == ["product", "product", "product", "product", "step", "step"]


def test_sparsity_of_a_row_is_that_of_its_matrices(tmp_path: Path) -> None:
    module = nn.GRU(4, 4).requires_grad_(False)
    module.weight_hh_l0[:, :3] = 0.0
    rows = bench_of(tmp_path, module, engines=("scipy-csr",)).rows
    zeros = {(row.case.op, row.case.name): row.case.sparsity for row in rows}
    assert zeros == {("matvec", "weight_ih_l0"): 0.0, ("matvec", "weight_hh_l0"): 0.75, ("gru", "layer 0"): 0.375}


def test_the_number_of_threads_is_put_back(tmp_path: Path) -> None:
    rows = bench_of(tmp_path, nn.GRU(4, 4), threads=(2,), engines=("scipy-csr",)).rows
    assert {row.case.threads for row in rows} == {2}
    assert torch.get_num_threads() == 1


def test_every_piece_of_work_is_told(tmp_path: Path) -> None:
    told: list[str] = []
    torch.save(nn.GRU(4, 4).state_dict(), tmp_path / "model.pt")
    bench(BenchRequest(tmp_path / "model.pt", **QUICK, engines=("scipy-csr",)), told.append)
    assert [line.split()[:2] for line in told] == [["timed", "matvec"], ["timed", "gru"], ["timed", "gru"]]


def test_a_linear_matrix_is_timed_too(tmp_path: Path) -> None:
    rows = bench_of(tmp_path, nn.Linear(3, 5), engines=("scipy-csr",)).rows
    assert {(row.case.op, row.case.shape) for row in rows} == {("matvec", "5x3")}


def test_a_file_with_nothing_to_multiply_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no recurrent layer and no linear matrix was recognised"):
        bench_of(tmp_path, nn.BatchNorm1d(3))


def test_other_devices_are_refused() -> None:
    with pytest.raises(UsageError, match="--device mps: no such device; use cpu or cuda"):
        bench(BenchRequest(shapes="8x8", device="mps"))

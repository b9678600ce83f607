"""A benchmark row names what really ran, and its error is measured against float64."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from rnnprune.architecture import find_stacks
from rnnprune.errors import UsageError
from rnnprune.workflows.bench import Benchmark, BenchRequest, bench
from rnnprune.workflows.rivals import Work, layer_work
from rnnprune.workflows.timing import interleave, summarise

QUICK = {"steps": 3, "rounds": 1}


def bench_of(tmp_path: Path, module: nn.Module, **more: object) -> Benchmark:
    torch.save(module.state_dict(), tmp_path / "model.pt")
    return bench(BenchRequest(tmp_path / "model.pt", **QUICK | more))


def work_of(module: nn.RNNBase) -> Work:
    state = module.state_dict()
    (stack,) = find_stacks({name: tuple(tensor.shape) for name, tensor in state.items()}).stacks
    with torch.inference_mode():
        return layer_work(stack, state, batch=2, steps=4)


@pytest.mark.parametrize("make", [nn.GRU, nn.LSTM])
def test_an_int8_row_shows_the_error_of_int8(tmp_path: Path, make: Callable[..., nn.RNNBase]) -> None:
    errors = {row.engine: row.max_error for row in bench_of(tmp_path, make(24, 32)).rows if row.op != "matvec"}
    assert set(errors) == {"torch-dense-fp32", "torch-dense-int8", "torch-csr", "scipy-csr"}
    assert 1e-4 < errors.pop("torch-dense-int8") < 0.2
    assert max(errors.values()) < 1e-5


def test_there_is_no_int8_row_for_a_vanilla_rnn_which_torch_leaves_as_it_was(tmp_path: Path) -> None:
    result = bench_of(tmp_path, nn.RNN(24, 32))
    assert {row.engine for row in result.rows if row.op == "rnn"} == {"torch-dense-fp32", "torch-csr", "scipy-csr"}
    assert result.left_out == ("torch-dense-int8, rnn: torch has no dynamic int8 RNN",)


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize(
    "module",
    [nn.GRU(5, 7), nn.LSTM(5, 7, 2, bidirectional=True), nn.LSTM(5, 8, proj_size=3), nn.RNN(5, 7, bias=False)],
    ids=["gru", "stacked", "projected", "no bias"],
)
def test_every_candidate_computes_the_first_layer(module: nn.RNNBase) -> None:
    work = work_of(module)
    assert work.truth.dtype == torch.float64
    assert work.truth.shape == (4, 2, module.proj_size or module.hidden_size)
    for name, call in work.candidates.items():
        tolerance = 0.1 if "int8" in name else 1e-5
        torch.testing.assert_close(call().double(), work.truth, rtol=0, atol=tolerance)


def test_layers_alike_are_timed_once_and_every_batch_on_its_own(tmp_path: Path) -> None:
    twins = nn.ModuleDict({"a": nn.GRU(6, 8), "b": nn.GRU(6, 8), "c": nn.GRUCell(6, 9)})
    rows = bench_of(tmp_path, twins, batches=(1, 2), engines=("torch-csr",)).rows
    assert {(row.op, row.shape, row.batch) for row in rows} == {
        (op, shape, batch)
        for op, shape in (("matvec", "24x8"), ("gru", "6->8"), ("matvec", "27x9"), ("gru", "6->9"))
        for batch in (1, 2)
    }
    assert len(rows) == 8 * 2


def test_sparsity_of_a_row_is_that_of_its_matrices(tmp_path: Path) -> None:
    module = nn.GRU(4, 4).requires_grad_(False)
    module.weight_hh_l0[:, :3] = 0.0
    rows = bench_of(tmp_path, module, engines=("scipy-csr",)).rows
    assert {row.op: row.sparsity for row in rows} == {"matvec": 0.75, "gru": 0.375}


def test_the_number_of_threads_is_put_back(tmp_path: Path) -> None:
    rows = bench_of(tmp_path, nn.GRU(4, 4), threads=(2,), engines=("scipy-csr",)).rows
    assert {row.threads for row in rows} == {2}
    assert torch.get_num_threads() == 1


def test_a_file_without_recurrent_layers_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no recurrent layer was recognised; `rnnprune report` says why"):
        bench_of(tmp_path, nn.Linear(3, 3))


def test_percentiles_by_hand() -> None:
    timing = summarise([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0])
    assert (timing.median_us, timing.min_us, timing.p90_us, timing.iqr_us) == (6.0, 1.0, 10.0, 5.0)


def test_rivals_take_turns_in_every_round_and_in_starting_it() -> None:
    order: list[str] = []

    def call(name: str) -> Callable[[], object]:
        return lambda: (order.append(name), sum(range(100_000)))  # long enough never to be repeated

    interleave({"a": call("a"), "b": call("b")}, rounds=3)
    assert "".join(order).endswith("abbaabbaabba"), order

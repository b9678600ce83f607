"""Twins on the triton engine: called as torch's layers, on a GPU where there is one, else interpreted; its rules."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from rnnprune import UsageError, describe, sparsify
from rnnprune.kernels import triton_engine
from rnnprune.kernels.csr import csr_from_dense
from rnnprune.runtime import choice_cuda
from rnnprune.runtime.choice import Engines, choose, plain_problem, resolve_engine
from tests.kernels.triton_cases import DEVICE, needs_triton
from tests.runtime.twin_cases import assert_same, prune, truth_of

CUDA = torch.device("cuda", 0)


def moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, tuple) and not isinstance(value, PackedSequence):
        return tuple(moved(part, device) for part in value)
    return value if value is None else value.to(device)


def check(layer: nn.Module, *arguments: Any, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The layer, pruned, sparsified and called, against itself in float64."""
    prune(layer)
    truth = truth_of(layer)(*arguments)
    twin = sparsify(copy.deepcopy(layer).to(DEVICE, dtype), engine="triton")
    with torch.inference_mode():
        assert_same(moved(twin(*moved(arguments, DEVICE)), torch.device("cpu")), truth)
    return twin


@needs_triton
def test_a_stack_in_both_directions_with_state_and_batch_first() -> None:
    layer = nn.LSTM(3, 2, num_layers=2, bidirectional=True, batch_first=True)
    twin = check(layer, torch.randn(2, 2, 3), (torch.randn(4, 2, 2), torch.randn(4, 2, 2)))
    (told,) = describe(twin)
    assert (told.engine, told.layout) == ("triton", "sell")
    assert told.reason == "asked for"


@needs_triton
@pytest.mark.parametrize("make", [nn.GRU, nn.RNN])
def test_packed_sequences_of_any_order(make: type[nn.GRU] | type[nn.RNN]) -> None:
    sequences = [torch.randn(length, 2) for length in (1, 2, 2)]
    check(make(2, 3, bidirectional=True), pack_sequence(sequences, enforce_sorted=False), torch.randn(2, 3, 3))


@needs_triton
def test_no_batch_cells_and_linear_layers() -> None:
    check(nn.GRU(3, 2), torch.randn(2, 3))
    check(nn.LSTMCell(3, 2), torch.randn(2, 3), (torch.randn(2, 2), torch.randn(2, 2)))
    check(nn.RNNCell(3, 2), torch.randn(3))
    check(nn.Linear(7, 5), torch.randn(2, 3, 7))


@needs_triton
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_layers_answer_in_half_and_their_values_stay_narrow(dtype: torch.dtype) -> None:
    layer = nn.RNN(3, 5)
    prune(layer, 0.5)
    half = copy.deepcopy(layer).to(DEVICE, dtype)
    truth = truth_of(half.cpu().float())
    x, h = torch.randn(2, 1, 3).to(dtype), torch.randn(1, 1, 5).to(dtype)
    twin = sparsify(half.to(DEVICE, dtype), engine="triton")
    output, last = twin(x.to(DEVICE), h.to(DEVICE))
    assert output.dtype == last.dtype == dtype
    expected, expected_last = truth(x.float(), h.float())
    for found, exact in ((output, expected), (last, expected_last)):
        assert float((found.cpu().double() - exact).abs().max()) <= torch.finfo(dtype).eps
    assert describe(twin)[0].layout in ("sell:fp16", "sell:bf16")
    with pytest.raises(UsageError, match=rf"expected {dtype} \[..., 3\] on {DEVICE.type}"):
        twin(x.float().to(DEVICE))


@needs_triton
def test_projections_stay_dense_and_moves_are_refused() -> None:
    model = nn.ModuleDict({"a": nn.LSTM(4, 6, proj_size=3), "b": nn.GRU(4, 5)}).to(DEVICE)
    prune(model)
    sparsify(model, engine="triton")
    projected, plain = describe(model)
    assert projected.engine == "torch-dense-fp32"
    assert projected.reason == "the triton engine has no LSTM with a projection (weight_hr_l0)"
    assert plain.engine == "triton"
    model.to(DEVICE)
    with pytest.raises(UsageError, match="cannot move to float64"):
        model.to(torch.float64)


@needs_triton
def test_saved_weights_come_back_where_the_module_is() -> None:
    layer = prune(nn.RNN(3, 5))
    twin = sparsify(copy.deepcopy(layer).to(DEVICE), engine="triton")
    again = sparsify(nn.RNN(3, 5).to(DEVICE), twin.state_dict(), engine="triton")
    x = torch.randn(2, 1, 3, device=DEVICE)
    assert torch.equal(again(x)[0], twin(x)[0])
    other = prune(nn.RNN(3, 5), seed=1)
    twin.load_state_dict(sparsify(copy.deepcopy(other).to(DEVICE), engine="triton").state_dict())
    assert_same(moved(twin(x), torch.device("cpu")), truth_of(other)(x.cpu()))
    assert {buffer.device.type for buffer in twin.buffers()} == {DEVICE.type}


# The rules, which need no GPU


def test_auto_on_cuda_is_triton_or_dense_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_engine, "unavailable_reason", lambda: None)
    assert resolve_engine("auto", CUDA) == Engines("triton", True, "")
    monkeypatch.setattr(triton_engine, "unavailable_reason", lambda: "triton is not installed")
    engines = resolve_engine("auto", CUDA)
    big = {"weight_hh_l0": torch.eye(64)}
    assert choose("recurrent", big, engines).reason == "no triton engine: triton is not installed"
    with pytest.raises(UsageError, match="the triton engine is unavailable: triton is not installed; or choose"):
        resolve_engine("triton", CUDA)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_cuda_or_interpreter_asking_for_triton_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET")
    monkeypatch.setattr(triton_engine, "version", lambda _: "3.9.0")
    with pytest.raises(UsageError, match=r"torch sees no CUDA device .*or choose another engine"):
        sparsify(nn.GRU(3, 5), engine="triton")


@pytest.mark.parametrize(
    ("size", "density", "reason"),
    [
        (2048, 0.1, "90.0% of 4,194,304 weights are zero"),
        (1024, 0.1, "1,048,576 weights: triton wins from 4,194,304 on"),
        (2048, 0.4, "60.0% zeros: triton wins from 80% on"),
    ],
)
def test_small_and_dense_layers_stay_dense(size: int, density: float, reason: str) -> None:
    weight = torch.zeros(size, size)
    weight.view(-1)[: round(density * size * size)] = 1.0
    choice = choose("recurrent", {"weight_hh_l0": csr_from_dense(weight)}, Engines("triton", True, ""))
    assert choice.reason == reason
    assert (choice.engine == "triton") == ("are zero" in reason)


def test_where_dense_wins_at_a_batch() -> None:
    def lstm(hidden: int, dtype: torch.dtype = torch.float16, **more: Any) -> nn.LSTM:
        return nn.LSTM(128, hidden, dtype=dtype, device="meta", **more)

    persistent = "batch 8: cuDNN keeps a float16 layer of 1024 units on the chip, and dense wins"
    assert choice_cuda.dense_because(lstm(1024), 8) == persistent
    for layer in (
        lstm(1152), lstm(1024, torch.float32), lstm(1000), lstm(1024, bidirectional=True), lstm(1024, num_layers=2),
        nn.GRU(128, 1024, dtype=torch.float16, device="meta"), nn.Linear(4, 4, device="meta"),
    ):  # fmt: skip
        assert choice_cuda.dense_because(layer, 8) is None
        assert choice_cuda.dense_because(layer, 32) == "batch 32: dense wins from batch 32 on"
    assert choice_cuda.dense_because(lstm(1024), 1) is None


def test_a_layer_elsewhere_stays_dense_and_says_where_it_is() -> None:
    layer = nn.GRU(3, 5, dtype=torch.float64)
    told = plain_problem(layer, nn.GRU, "triton", CUDA)
    assert told is not None
    assert told.startswith("its parameters are torch.float64 on cpu, not torch.float32 on cuda:0 or torch.float16 on")
    assert plain_problem(layer.float(), nn.GRU, "triton", torch.device("cpu")) is None


def test_batch_must_be_positive() -> None:
    with pytest.raises(UsageError, match="batch must be at least 1, found 0"):
        sparsify(nn.GRU(3, 5), batch=0)

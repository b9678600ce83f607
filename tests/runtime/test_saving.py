"""Twins as modules: state dicts, torch.save, deepcopy, pickle, and the moves that are refused."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch import nn

import rnnprune
from rnnprune import UsageError
from tests.runtime.twin_cases import ANY, assert_same, each_engine, prune, truth_of

X = torch.randn(5, 2, 12, generator=torch.Generator().manual_seed(0))


def model_of(seed: int = 0, sparsity: float = 0.8) -> nn.Module:
    torch.manual_seed(seed)
    return prune(nn.Sequential(nn.GRU(12, 20), nn.Identity()), sparsity, seed)


def sparse_of(seed: int = 0, sparsity: float = 0.8, engine: str = ANY) -> Any:
    return rnnprune.sparsify(model_of(seed, sparsity), engine=engine)[0]  # type: ignore[arg-type, index]


def test_the_names_of_a_state_dict() -> None:
    state = sparse_of().state_dict()
    parts = ("crow_indices", "col_indices", "values")
    assert set(state) == {"bias_ih_l0", "bias_hh_l0"} | {
        f"weight_{w}_l0.{part}" for w in ("ih", "hh") for part in parts
    }
    assert state["weight_hh_l0.col_indices"].dtype == torch.uint16


@each_engine
def test_a_state_dict_goes_through_a_file_into_another_twin(engine: str) -> None:
    """The other twin has other weights and another number of them, and has already run."""
    source, target = sparse_of(0, engine=engine), sparse_of(1, 0.6, engine)
    target(X)
    file = io.BytesIO()
    torch.save(source.state_dict(), file)
    file.seek(0)
    target.load_state_dict(torch.load(file, weights_only=True))
    assert_same(target(X), truth_of(model_of()[0])(X))  # type: ignore[index]


def copied(twin: Any, how: str) -> Any:
    if how == "copy":
        return copy.deepcopy(twin)
    if how == "pickle":
        return pickle.loads(pickle.dumps(twin))
    torch.save(twin, file := io.BytesIO())
    file.seek(0)
    return torch.load(file, weights_only=False)


@each_engine
@pytest.mark.parametrize("how", ["copy", "pickle", "torch.save"])
def test_a_copy_runs_by_itself(engine: str, how: str) -> None:
    twin = sparse_of(engine=engine)
    expected = twin(X)
    other = copied(twin, how)
    twin.load_state_dict(sparse_of(1).state_dict())
    torch.testing.assert_close(other(X), expected, rtol=0, atol=0)
    (layer,) = rnnprune.describe(other)
    assert layer.engine == engine
    assert str(layer).startswith(f"the model ({layer.layer}): {engine}")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("weight_hh_l0.col_indices", lambda t: torch.full_like(t, 20), "a column index of 20 lies outside 0..19"),
        ("weight_hh_l0.crow_indices", lambda t: t.flip(0), "crow_indices starts at"),
        ("weight_hh_l0.crow_indices", lambda t: t[:-1], "crow_indices has 60 entries, expected rows"),
        ("weight_hh_l0.values", lambda t: t.double(), "values are torch.float64, expected torch.float32"),
        ("weight_hh_l0.values", lambda t: t * torch.nan, "a stored value is NaN or infinite"),
    ],
)
def test_a_broken_state_dict_is_refused_by_name(name: str, value: Any, message: str) -> None:
    twin = sparse_of()
    state = twin.state_dict()
    state[name] = value(state[name])
    with pytest.raises(RuntimeError, match=f"weight_hh_l0: {message}"):
        twin.load_state_dict(state)


def test_missing_and_unexpected_names_are_torchs_errors() -> None:
    twin = sparse_of()
    state = twin.state_dict()
    state["weight_hh_l0.surplus"] = state.pop("weight_hh_l0.values")
    with pytest.raises(RuntimeError, match=r"(?s)Missing.*weight_hh_l0.values.*Unexpected.*weight_hh_l0.surplus"):
        twin.load_state_dict(state)


@pytest.mark.parametrize(
    "move", [lambda m: m.to(torch.float64), lambda m: m.half(), lambda m: m.bfloat16(), lambda m: m.to("meta")]
)
def test_another_dtype_or_device_is_refused(move: Any) -> None:
    model = nn.Sequential(sparse_of())
    with pytest.raises(UsageError, match=r"sparse layers compute in float32 on the CPU and cannot move to"):
        move(model)
    assert_same(model[0](X), truth_of(model_of()[0])(X))  # type: ignore[index]


def test_moves_to_where_it_is_are_fine() -> None:
    twin = sparse_of()
    expected = twin(X)
    torch.testing.assert_close(twin.float().cpu().to("cpu")(X), expected, rtol=0, atol=0)


def test_a_weight_tells_itself_and_does_not_run() -> None:
    weight = sparse_of().weight_hh_l0
    assert weight.shape == (60, 20)
    assert torch.equal(weight.to_dense(), model_of()[0].weight_hh_l0)  # type: ignore[index]
    assert "[60, 20], nnz=" in repr(weight)
    with pytest.raises(UsageError, match="does not run"):
        weight(X)

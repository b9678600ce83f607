"""The twins of the cells and of nn.Linear against torch in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rnnprune import UsageError
from rnnprune.runtime.cells import SparseCell, SparseLinear
from tests.runtime.twin_cases import HERE, assert_same, prune, truth_of, twin_of

CELLS: dict[str, Any] = {
    "rnn": nn.RNNCell,
    "relu": lambda *sizes, **rest: nn.RNNCell(*sizes, nonlinearity="relu", **rest),
    "gru": nn.GRUCell,
    "lstm": nn.LSTMCell,
}


@settings(max_examples=80)
@given(
    kind=st.sampled_from(sorted(CELLS)),
    sizes=st.tuples(st.integers(1, 20), st.integers(2, 21)),
    bias=st.booleans(),
    batch=st.one_of(st.none(), st.integers(1, 9)),
    has_state=st.booleans(),
    engine=st.sampled_from(HERE),
)
def test_a_cell(kind: str, sizes: tuple[int, int], bias: bool, batch: int | None, has_state: bool, engine: str) -> None:
    torch.manual_seed(0)
    cell = prune(CELLS[kind](*sizes, bias=bias), 0.6)
    lead = () if batch is None else (batch,)
    x = torch.randn(*lead, sizes[0])
    parts = tuple(torch.randn(*lead, sizes[1]) for _ in range(2 if kind == "lstm" else 1))
    state = None if not has_state else parts if kind == "lstm" else parts[0]
    truth = truth_of(cell)(x, state)
    twin = twin_of(cell, engine)
    assert isinstance(twin, SparseCell)
    assert_same(twin(x, state), truth)
    with torch.inference_mode():
        assert_same(twin(x.expand(2, *x.shape)[0], state), truth)


@settings(max_examples=80)
@given(
    sizes=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    lead=st.lists(st.integers(0, 5), max_size=3).map(tuple),
    bias=st.booleans(),
    engine=st.sampled_from(HERE),
    is_strided=st.booleans(),
)
def test_linear(sizes: tuple[int, int], lead: tuple[int, ...], bias: bool, engine: str, is_strided: bool) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(*sizes, bias=bias)
    with torch.no_grad():
        linear.weight *= torch.rand_like(linear.weight) < 0.3
        linear.weight[-1] = 0
    x = torch.randn(*lead, 2 * sizes[0])[..., ::2] if is_strided else torch.randn(*lead, sizes[0])
    truth = truth_of(linear)(x)
    twin = twin_of(linear, engine)
    assert isinstance(twin, SparseLinear)
    assert_same(twin(x), truth)


def test_a_single_step_cell_in_other_memory() -> None:
    cell = prune(nn.LSTMCell(6, 9))
    truth = truth_of(cell)
    twin = twin_of(cell)
    x, h, c = torch.randn(6, 4).T, torch.randn(9, 4).T, torch.randn(9, 4).T
    assert_same(twin(x, (h, c)), truth(x, (h, c)))


@pytest.mark.parametrize("cell", [nn.GRUCell(4, 8), nn.LSTMCell(4, 8)], ids=["gru", "lstm"])
def test_a_cell_refuses_what_does_not_fit(cell: nn.Module) -> None:
    twin = twin_of(prune(cell, 0.5))
    for wrong in (torch.zeros(2, 5), torch.zeros(2, 4).double(), torch.zeros(1, 2, 4), torch.zeros(0, 4)):
        with pytest.raises(UsageError, match="input"):
            twin(wrong)
    with pytest.raises(UsageError, match=r"state is torch.float32 \[3, 8\]"):
        twin(torch.zeros(2, 4), torch.zeros(3, 8))
    with pytest.raises(UsageError, match="training mode"):
        twin.train()(torch.zeros(2, 4))


def test_linear_refuses_what_does_not_fit() -> None:
    twin = twin_of(prune(nn.Linear(40, 30)))
    for wrong in (torch.zeros(2, 39), torch.zeros(2, 40).double(), torch.zeros(())):
        with pytest.raises(UsageError, match="input"):
            twin(wrong)
    with pytest.raises(UsageError, match="requires a gradient"):
        twin(torch.zeros(2, 40, requires_grad=True))
    with pytest.raises(UsageError, match="training mode"):
        twin.train()(torch.zeros(2, 40))

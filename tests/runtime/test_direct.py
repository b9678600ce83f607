"""The short way into the native engine keeps a plan from call to call; each call gets its own shapes and checks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rnnprune import UsageError
from tests.runtime.twin_cases import assert_same, needs_native, prune, truth_of, twin_of

pytestmark = needs_native

LAYERS = {
    "lstm": lambda: nn.LSTM(5, 8, 2, bidirectional=True, proj_size=3),
    "gru": lambda: nn.GRU(5, 8, 2, batch_first=True),
    "lstm cell": lambda: nn.LSTMCell(5, 8),
    "rnn cell": lambda: nn.RNNCell(5, 8),
}
each_layer = pytest.mark.parametrize("kind", LAYERS)


def layer_and_twin(kind: str) -> tuple[nn.Module, Any]:
    layer = prune(LAYERS[kind](), 0.5)
    return layer, twin_of(layer, "native")


@each_layer
def test_calls_of_many_shapes_in_turn(kind: str) -> None:
    layer, twin = layer_and_twin(kind)
    truth = truth_of(layer)
    for lead in ((1, 1), (1, 3), (3, 1), (3, 2), (2, 3), (1, 1)):
        x = torch.randn(*(lead[:1] if "cell" in kind else lead), 5)
        state = None
        for _ in range(2):  # from zeros, then from a state
            assert_same(twin(x, state), truth(x, state))
            after = twin(x, state)
            state = after if "cell" in kind else after[1]


@each_layer
def test_a_call_that_does_not_fit_is_refused_after_calls_that_did(kind: str) -> None:
    _, twin = layer_and_twin(kind)
    x = torch.randn(*((2,) if "cell" in kind else (2, 2)), 5)
    state = twin(x) if "cell" in kind else twin(x)[1]

    def cut(part: Tensor) -> Tensor:
        return part[:1] if "cell" in kind else part[:, :1]

    def with_first(change: Any) -> Any:
        return (change(state[0]), *state[1:]) if isinstance(state, tuple) else change(state)

    for change in (cut, torch.Tensor.double, lambda part: part.clone().requires_grad_()):
        with pytest.raises(UsageError, match="state"):
            twin(x, with_first(change))
    for wrong in (x[..., :4], x.double(), x[:0], x.clone().requires_grad_()):
        with pytest.raises(UsageError, match="input"):
            twin(wrong, state)


@each_layer
def test_a_number_is_refused_as_the_first_call(kind: str) -> None:
    with pytest.raises(UsageError, match="input"):
        layer_and_twin(kind)[1](torch.tensor(1.0))


@pytest.fixture
def default_dtype() -> Iterator[Callable[[torch.dtype], None]]:
    yield torch.set_default_dtype
    torch.set_default_dtype(torch.float32)


@each_layer
def test_torchs_default_type_does_not_matter(kind: str, default_dtype: Callable[[torch.dtype], None]) -> None:
    layer, twin = layer_and_twin(kind)
    x = torch.randn(*((2,) if "cell" in kind else (4, 2)), 5)
    default_dtype(torch.float64)
    assert_same(twin(x), truth_of(layer)(x))

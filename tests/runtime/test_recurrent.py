"""The recurrent twin against torch in float64: every kind, shape, direction and way to be called."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence

from rnnprune import UsageError
from rnnprune.runtime.frames import stretches_of
from rnnprune.runtime.recurrent import SparseRecurrent
from tests.runtime.twin_cases import HERE, assert_same, each_engine, needs_native, prune, truth_of, twin_of

KINDS = ["rnn", "relu", "gru", "lstm", "projected"]


@dataclass(frozen=True)
class Case:
    """One layer and one way to call it. Sizes as in torch; `lengths` is one per sequence."""

    kind: str
    input_size: int
    hidden_size: int
    num_layers: int
    bidirectional: bool
    bias: bool
    batch_first: bool
    form: str  # batched, unbatched, packed, unsorted
    lengths: tuple[int, ...]
    has_state: bool
    engine: str
    seed: int

    def layer(self) -> nn.RNNBase:
        torch.manual_seed(self.seed)
        sizes = (self.input_size, self.hidden_size, self.num_layers)
        same = {"bidirectional": self.bidirectional, "bias": self.bias, "batch_first": self.batch_first}
        made: dict[str, Any] = {
            "rnn": lambda: nn.RNN(*sizes, **same),
            "relu": lambda: nn.RNN(*sizes, nonlinearity="relu", **same),
            "gru": lambda: nn.GRU(*sizes, **same),
            "lstm": lambda: nn.LSTM(*sizes, **same),
            "projected": lambda: nn.LSTM(sizes[0], sizes[1] + 1, sizes[2], proj_size=(sizes[1] + 1) // 2, **same),
        }
        layer = made[self.kind]()
        assert isinstance(layer, nn.RNNBase)
        prune(layer, 0.6, self.seed)
        return layer

    def input(self) -> Tensor | PackedSequence:
        if self.form == "unbatched":
            return torch.randn(self.lengths[0], self.input_size)
        if self.form == "batched":
            time, batch = self.lengths[0], len(self.lengths)
            return torch.randn(*((batch, time) if self.batch_first else (time, batch)), self.input_size)
        lengths = self.lengths if self.form == "unsorted" else sorted(self.lengths, reverse=True)
        sequences = [torch.randn(length, self.input_size) for length in lengths]
        return pack_sequence(sequences, enforce_sorted=self.form == "packed")

    def state(self, layer: nn.RNNBase) -> Any:
        if not self.has_state:
            return None
        lead = (self.num_layers * (1 + self.bidirectional),)
        lead += () if self.form == "unbatched" else (len(self.lengths),)
        h = torch.randn(*lead, layer.proj_size or layer.hidden_size)
        return (h, torch.randn(*lead, layer.hidden_size)) if self.kind in ("lstm", "projected") else h


cases = st.builds(
    Case,
    kind=st.sampled_from(KINDS),
    input_size=st.integers(1, 20),
    hidden_size=st.integers(1, 21),
    num_layers=st.integers(1, 3),
    bidirectional=st.booleans(),
    bias=st.booleans(),
    batch_first=st.booleans(),
    form=st.sampled_from(["batched", "unbatched", "packed", "unsorted"]),
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6).map(tuple),
    has_state=st.booleans(),
    engine=st.sampled_from(HERE),
    seed=st.integers(0, 3),
)


@settings(max_examples=150)
@given(case=cases)
def test_the_twin_answers_as_the_layer(case: Case) -> None:
    layer = case.layer()
    x, state = case.input(), case.state(layer)
    truth = truth_of(layer)(x, state)
    twin = twin_of(layer, case.engine)
    with torch.inference_mode():
        assert_same(twin(x, state), truth)
    assert_same(twin(x, state), truth)


@needs_native
@settings(max_examples=40)
@given(case=cases, stride=st.sampled_from(["transposed", "sliced"]))
def test_the_short_way_and_the_general_way_agree(case: Case, stride: str) -> None:
    """A plain call goes straight to C; the same numbers in other memory take the way through the runners."""
    layer = case.layer()
    twin = twin_of(layer, "native")
    lead = (len(case.lengths), case.lengths[0])
    if stride == "transposed":
        x = torch.randn(case.input_size, *lead).permute(1, 2, 0)
    else:
        x = torch.randn(*lead, case.input_size + 3)[..., 1:-2]
    plain, general = twin(x.contiguous()), twin(x)
    torch.testing.assert_close(general, plain, rtol=0, atol=1e-6)


@each_engine
@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_of_single_steps_is_the_sequence(engine: str, kind: str) -> None:
    case = Case(kind, 5, 11, 2, False, True, True, "batched", (7, 7), False, engine, 0)
    layer = case.layer()
    twin, x = twin_of(layer, engine), torch.randn(2, 7, 5)
    whole, last = twin(x)
    state, steps = None, []
    for t in range(7):
        y, state = twin(x[:, t : t + 1], state)
        steps.append(y)
    torch.testing.assert_close(torch.cat(steps, 1), whole, rtol=0, atol=1e-6)
    torch.testing.assert_close(state, last, rtol=0, atol=1e-6)


@each_engine
def test_backwards_begins_at_the_end_of_each_sequence(engine: str) -> None:
    """A padded run would begin in the padding: the short sequence must come out as if it were alone."""
    layer = nn.GRU(4, 6, bidirectional=True)
    prune(layer, 0.5)
    twin = twin_of(layer, engine)
    long, short = torch.randn(9, 4), torch.randn(2, 4)
    _, together = twin(pack_sequence([long, short]))
    _, alone = twin(short)
    torch.testing.assert_close(together[:, 1], alone, rtol=0, atol=1e-6)


def test_stretches_of_equal_batch() -> None:
    assert stretches_of([3, 3, 2, 1]) == ((2, 3), (1, 2), (1, 1))
    assert stretches_of([4]) == ((1, 4),)


def test_a_packed_sequence_with_a_state_in_the_callers_order() -> None:
    layer = nn.LSTM(3, 8, batch_first=True)
    prune(layer, 0.5)
    state = (torch.randn(1, 3, 8), torch.randn(1, 3, 8))
    packed = pack_padded_sequence(torch.randn(3, 5, 3), [2, 5, 4], batch_first=True, enforce_sorted=False)
    truth = truth_of(layer)(packed, state)
    assert_same(twin_of(layer)(packed, state), truth)


def test_what_models_read_off_a_layer_is_there() -> None:
    layer = nn.LSTM(6, 10, 2, bias=False, batch_first=True, dropout=0.3, bidirectional=True, proj_size=4)
    prune(layer)
    twin = twin_of(layer)
    for name in ("mode", "input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional"):
        assert getattr(twin, name) == getattr(layer, name)
    assert twin.proj_size == 4
    twin.flatten_parameters()
    assert "LSTM, 6, 10, num_layers=2, bidirectional=True" in repr(twin)
    assert repr(twin).count("SparseWeight") == 12


def test_the_caller_owns_what_it_gets() -> None:
    layer = nn.GRU(4, 8)
    prune(layer, 0.5)
    twin, x = twin_of(layer), torch.randn(3, 1, 4)
    first, h = twin(x)
    kept = first.clone(), h.clone()
    twin(2 * x)
    torch.testing.assert_close((first, h), kept, rtol=0, atol=0)
    first.zero_()
    assert_same(h, kept[1].double())


def test_several_threads_may_call_one_twin() -> None:
    layer = nn.LSTM(16, 24, 2, bidirectional=True)
    prune(layer)
    twin, x = twin_of(layer), torch.randn(20, 2, 16)
    expected, found = twin(x)[0], []
    threads = [threading.Thread(target=lambda: found.extend(twin(x)[0] for _ in range(10))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 30
    assert all(torch.equal(each, expected) for each in found)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_runs_the_twin_it_inherits() -> None:
    """A child has none of its parent's threads: it must not wait for them."""
    twin, x = twin_of(prune(nn.LSTM(16, 32)), threads=2), torch.randn(5, 1, 16)
    expected = twin(x)[0]
    child = multiprocessing.get_context("fork").Process(
        target=exit_by, args=(lambda: torch.equal(twin(x)[0], expected),)
    )
    child.start()
    child.join(20)
    child.kill()
    assert child.exitcode == 0


def exit_by(is_right: Callable[[], bool]) -> None:
    os._exit(0 if is_right() else 1)


@needs_native
@pytest.mark.parametrize("threads", [2, 3])
def test_more_threads_give_the_same(threads: int) -> None:
    layer = nn.GRU(17, 29, 2, bidirectional=True)
    prune(layer)
    x = torch.randn(6, 3, 17)
    assert_same(twin_of(layer, "native", threads)(x), truth_of(layer)(x))


# Refusals


@pytest.fixture
def twin() -> SparseRecurrent:
    layer = nn.LSTM(4, 8, 2)
    prune(layer, 0.5)
    return twin_of(layer)


def test_training_mode_is_refused(twin: SparseRecurrent) -> None:
    with pytest.raises(UsageError, match=r"runs forward only and is in training mode; call \.eval\(\)"):
        twin.train()(torch.randn(3, 1, 4))


def test_a_gradient_is_refused_and_not_silently_lost(twin: SparseRecurrent) -> None:
    x = torch.randn(3, 1, 4, requires_grad=True)
    with pytest.raises(UsageError, match=r"no backward pass and its input requires a gradient; .* detach"):
        twin(x)
    with torch.no_grad():
        assert twin(x)[0].shape == (3, 1, 8)
    assert not twin(x.detach())[0].requires_grad
    h = torch.zeros(2, 1, 8, requires_grad=True)
    with pytest.raises(UsageError, match="its state requires a gradient"):
        twin(x.detach(), (h, h))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(3, 1, 5), r"expected torch.float32 \[\.\.\., 4\] on cpu"),
        (
            torch.zeros(3, 1, 4, dtype=torch.float64),
            r"input is torch.float64 \[3, 1, 4\] on cpu, expected torch.float32",
        ),
        (torch.zeros(0, 1, 4), r"input has shape \[0, 1, 4\]"),
        (torch.zeros(3, 0, 4), r"input has shape \[3, 0, 4\]"),
        (torch.zeros(1, 1, 1, 4), r"input has shape \[1, 1, 1, 4\]"),
        (torch.zeros(4), r"input has shape \[4\]"),
    ],
)
def test_an_input_that_does_not_fit(twin: SparseRecurrent, x: Tensor, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        twin(x)


@pytest.mark.parametrize(
    "state",
    [
        (torch.zeros(2, 1, 8), torch.zeros(2, 1, 7)),
        (torch.zeros(1, 1, 8), torch.zeros(1, 1, 8)),
        (torch.zeros(2, 8), torch.zeros(2, 8)),
        (torch.zeros(2, 1, 8).double(), torch.zeros(2, 1, 8)),
        torch.zeros(2, 1, 8),
    ],
    ids=["cell", "layers", "no batch", "dtype", "no cell"],
)
def test_a_state_that_does_not_fit(twin: SparseRecurrent, state: Any) -> None:
    with pytest.raises(UsageError, match=r"state is torch.* expected torch.float32 \[2, 1, 8\], \[2, 1, 8\] on cpu"):
        twin(torch.zeros(3, 1, 4), state)

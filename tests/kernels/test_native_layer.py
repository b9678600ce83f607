"""Whole recurrent layers of the native engine against torch in float64."""

import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnprune.errors import UsageError
from rnnprune.kernels import native

if native.unavailable_reason() is not None:
    pytest.skip(native.unavailable_reason(), allow_module_level=True)

from rnnprune.kernels.native_layer import Layouts, NativeLayer
from tests.kernels.native_cases import LayerCase, assert_close, make_layer, random_state, twin

ISAS = native.instruction_sets()
FP32_LAYOUTS = ["auto", "sell8", "16x1", "8x1", "8x4", "4x4"]
kinds = st.sampled_from([("rnn", "tanh"), ("rnn", "relu"), ("gru", "tanh"), ("lstm", "tanh"), ("lstm", "projected")])
sizes = st.one_of(st.integers(5, 40), st.sampled_from([63, 64, 65, 80]))


def check(case: LayerCase, layer: NativeLayer, module: torch.nn.RNNBase, T: int, B: int, reverse: bool) -> None:  # noqa: N803
    x, state = torch.randn(T, B, case.input_size), random_state(case, B)
    y, h_n = layer.run(x, state, reverse)
    truth, truth_n = twin(module, x, state, reverse)
    assert_close(y, truth, scale=0.1)  # when the only output cancels to nothing, rounding is measured by its terms
    largest = max(truth.abs().max().item(), 0.1)
    for found, expected in zip(h_n, truth_n, strict=True):  # a state of one unit may pass through zero
        assert (found - expected).abs().max() <= 1e-6 * max(largest, expected.abs().max().item())


@settings(max_examples=400, deadline=None)
@given(
    kind=kinds, I=sizes, H=sizes, T=st.integers(1, 40), B=st.integers(1, 64), threads=st.integers(1, 4),
    reverse=st.booleans(), layout=st.sampled_from(FP32_LAYOUTS), isa=st.sampled_from(ISAS),
    density=st.sampled_from([0.0, 0.1, 0.5]), bias=st.booleans(), seed=st.integers(0, 9),
)  # fmt: skip
def test_layer(*, kind, I, H, T, B, threads, reverse, layout, isa, density, bias, seed):  # noqa: E741, N803
    name, variant = kind
    case = LayerCase(name, I, H, H - 1 if variant == "projected" else 0, "relu" if variant == "relu" else "tanh", bias)
    module, weights = make_layer(case, density, seed)
    plain = "sell8" if layout == "auto" else layout
    layer = NativeLayer(weights, Layouts(plain, layout, plain), threads, isa)
    check(case, layer, module, min(T, 200 // B + 1), B, reverse)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("case", [LayerCase(kind, 1, 1) for kind in ("rnn", "gru", "lstm")], ids=lambda case: case.kind)
@pytest.mark.parametrize("B", [1, 5])
def test_a_single_unit(isa, case, B):  # noqa: N803
    module, weights = make_layer(case, 1.0, 0)
    check(case, NativeLayer(weights, isa=isa), module, 20, B, False)


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
def test_one_layer_serves_batches_in_any_order(kind):
    case = LayerCase(kind, 12, 40)
    module, weights = make_layer(case, 0.3, 1)
    layer = NativeLayer(weights, threads=2)
    for batch in (1, 7, 64, 3, 1, 17):
        check(case, layer, module, 18, batch, batch % 2 == 0)


def test_strided_input_and_half_of_a_wider_output():
    case = LayerCase("gru", 6, 10)
    module, weights = make_layer(case, 0.5, 2)
    x = torch.randn(3, 9, 6)  # batch first
    wide = torch.full((3, 9, 20), 7.0)
    y, _ = NativeLayer(weights).run(x.transpose(0, 1), None, True, wide[:, :, 10:].transpose(0, 1))
    truth, _ = twin(module, x.transpose(0, 1), (torch.zeros(3, 10),), True)
    assert_close(y, truth)
    assert (wide[:, :, :10] == 7.0).all()


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("batch", [1, 4])
def test_a_stream_equals_a_run(kind, batch):
    case = LayerCase(kind, 9, 33)
    _, weights = make_layer(case, 0.3, 3)
    layer, x = NativeLayer(weights), torch.randn(21, batch, 9)
    y, state = layer.run(x)
    stream = layer.stream(batch)
    streamed = torch.stack([stream.step(x[t].contiguous()).clone() for t in range(21)])
    assert_close(streamed, y.double())
    stepped, h = [], None
    for t in range(21):
        out, h = layer.step(x[t], h)
        stepped.append(out)
    assert torch.equal(torch.stack(stepped), streamed)
    assert_close(h[-1], state[-1].double())


def test_int8_blocks_stay_near_the_float_layer():
    case = LayerCase("lstm", 32, 64)
    module, weights = make_layer(case, 0.3, 4)
    x = torch.randn(20, 2, 32)
    y, _ = NativeLayer(weights, Layouts("16x1:int8", "16x1:int8")).run(x)
    truth, _ = twin(module, x, (torch.zeros(2, 64), torch.zeros(2, 64)), False)
    assert_close(y, truth, 2e-2)


def test_two_python_threads_share_a_layer():
    case = LayerCase("lstm", 16, 48)
    _, weights = make_layer(case, 0.3, 5)
    layer, x = NativeLayer(weights, threads=2), torch.randn(30, 1, 16)
    expected, results = layer.run(x)[0], []
    threads = [threading.Thread(target=lambda: results.extend(layer.run(x)[0] for _ in range(20))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 60
    assert all(torch.equal(y, expected) for y in results)


def test_wrong_calls_say_so():
    _, weights = make_layer(LayerCase("lstm", 4, 8), 0.5, 6)
    layer = NativeLayer(weights)
    with pytest.raises(UsageError, match=r"expected float32 \[T, B, 4\]"):
        layer.run(torch.ones(2, 3, 5))
    with pytest.raises(UsageError, match="state has shapes"):
        layer.run(torch.ones(2, 3, 4), (torch.ones(3, 8),))
    with pytest.raises(UsageError, match="expected contiguous float32"):
        layer.stream().step(torch.ones(2, 4))

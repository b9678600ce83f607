"""Whole layers of the triton engine against torch in float64: on a GPU where there is one, else interpreted.

All buffers are full of NaN before a run, and the counter stands anywhere, so that what is read before it is written,
or never written at all, shows.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from rnnprune.errors import UsageError
from rnnprune.kernels import triton_layer
from rnnprune.kernels.csr import csr_from_dense
from rnnprune.kernels.cuda_graph import Captured
from rnnprune.kernels.native_layer import LayerWeights
from rnnprune.kernels.triton_engine import Variant, parse_variant
from rnnprune.kernels.triton_layer import InputProduct, TritonLayer
from rnnprune.kernels.triton_pack import VALUE_DTYPES
from tests.kernels.native_cases import LayerCase, random_state, twin
from tests.kernels.triton_cases import DEVICE, in_blocks, needs_triton, uneven

pytestmark = needs_triton
NAN = float("nan")


def made(case: LayerCase, variant: str, block: tuple[int, int] | None = None) -> tuple[nn.RNNBase, TritonLayer]:
    """A float64 torch layer and the engine's; the weights are exact in the values of the variant."""
    parsed = parse_variant(variant)
    assert parsed is not None
    torch.manual_seed(0)
    module = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[case.kind](case.input_size, case.hidden_size)
    if case.kind == "rnn":
        module = nn.RNN(case.input_size, case.hidden_size, nonlinearity=case.nonlinearity)  # type: ignore[arg-type]
    with torch.no_grad():
        for seed, parameter in enumerate(module.parameters()):
            if parameter.ndim == 2:
                rows, cols = parameter.shape
                mask = uneven(rows, cols, seed) != 0 if block is None else in_blocks(rows, cols, block, 0.4, seed) != 0
                parameter.copy_((parameter * mask).to(VALUE_DTYPES[parsed.values or "fp32"]).float())
    weights = LayerWeights(
        kind=case.kind,  # type: ignore[arg-type]
        weight_ih=csr_from_dense(module.weight_ih_l0),
        weight_hh=csr_from_dense(module.weight_hh_l0),
        bias_ih=module.bias_ih_l0.detach().clone(),
        bias_hh=module.bias_hh_l0.detach().clone(),
        nonlinearity=case.nonlinearity,  # type: ignore[arg-type]
    )
    return module.double(), TritonLayer(weights, DEVICE, parsed)


def poison(layer: TritonLayer, batch: int) -> None:
    space = layer.workspace(batch)
    space.counter.fill_(77)
    for buffer in (space.inputs, space.gates_x, space.frames, space.cell):
        if buffer is not None:
            buffer.fill_(NAN)


def check(
    module: nn.RNNBase, layer: TritonLayer, case: LayerCase, time: int, batch: int, reverse: bool = False
) -> None:
    x, state = torch.randn(time, batch, case.input_size), random_state(case, batch)
    poison(layer, batch)
    out = torch.full((time, batch, case.hidden_size), NAN, device=DEVICE)
    y, last = layer.run(x.to(DEVICE), tuple(part.to(DEVICE) for part in state), reverse, out)
    truth, truth_last = twin(module, x, state, reverse)
    assert y is out
    for found, expected in zip((y, *last), (truth, *truth_last), strict=True):
        assert found.shape == expected.shape
        assert float((found.cpu().double() - expected).abs().max()) < 1e-6 * max(1.0, float(expected.abs().max()))


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize(
    ("inputs", "hidden", "time", "batch", "variant", "reverse"),
    [
        (1, 1, 3, 1, "auto", False),
        (3, 7, 2, 1, "sell:u4w1", True),
        (4, 33, 2, 1, "sell:u32w1", False),
        (4, 33, 1, 5, "sell:fp16:u32w1", True),
        (5, 9, 1, 2, "sell:bf16:u8w1", False),
        (2, 7, 2, 8, "sell:u8w1", False),
        (2, 5, 2, 32, "sell:u8w1", False),
        (2, 3, 1, 33, "sell:u4w1", True),
    ],
)
def test_single_weights(  # noqa: PLR0917 - a row of the table
    kind: str, inputs: int, hidden: int, time: int, batch: int, variant: str, reverse: bool
) -> None:
    case = LayerCase(kind, inputs, hidden, nonlinearity="relu" if kind == "rnn" and time == 2 else "tanh")
    check(*made(case, variant), case, time, batch, reverse)


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize(
    ("inputs", "hidden", "batch", "variant"),
    [(5, 32, 1, "16x1:u16w1"), (3, 20, 5, "16x1:fp16:u16w1"), (8, 16, 1, "8x4:bf16:u8w1"), (4, 20, 2, "8x4:u8w1")],
)
def test_blocks(kind: str, inputs: int, hidden: int, batch: int, variant: str) -> None:
    """20 units are no multiple of the block: the last one of each gate is cut."""
    case = LayerCase(kind, inputs, hidden)
    rows, cols = map(int, variant.partition(":")[0].split("x"))
    check(*made(case, variant, (rows, cols)), case, 1, batch, hidden == 20)


@pytest.mark.parametrize("time", [1, 4, 11])
@pytest.mark.parametrize("reverse", [False, True])
def test_a_sequence_longer_than_a_window_and_its_graphs(
    monkeypatch: pytest.MonkeyPatch, time: int, reverse: bool
) -> None:
    """Windows of 4: 11 steps are 4, 4, 2 + 1; each graph finds its place through the counter."""
    monkeypatch.setattr(triton_layer, "LONGEST_WINDOW", 4)
    case = LayerCase("rnn", 3, 6)
    module, layer = made(case, "sell:u8w1")
    check(module, layer, case, time, 2, reverse)
    assert layer.workspace(2).window == 4


class Rehearsed(Captured):
    """As on a GPU: the warm-up runs before the work, on the same buffers."""

    def __init__(self, work: Callable[[], object], warm_up: Callable[[], object], _: torch.device) -> None:
        self.work = work
        for _ in range(2):
            warm_up()

    def __call__(self) -> None:
        self.work()


def test_no_launch_leaves_its_window_and_warm_ups_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_layer, "LONGEST_WINDOW", 4)
    monkeypatch.setattr(triton_layer, "Captured", Rehearsed)
    launch, places = TritonLayer.launch, []

    def watched(self: TritonLayer, space: triton_layer.Workspace, step: int) -> None:
        places.append(int(space.counter) + step)
        launch(self, space, step)

    monkeypatch.setattr(TritonLayer, "launch", watched)
    case = LayerCase("rnn", 2, 3)
    module, layer = made(case, "sell:u4w1")
    for time in (4, 5, 2):  # new graphs appear while the counter stands at the end of a window
        check(module, layer, case, time, 1)
    assert set(places) == {0, 1, 2, 3}


def test_one_layer_serves_batches_in_any_order_and_those_padded_alike_share_buffers() -> None:
    case = LayerCase("lstm", 2, 5)
    module, layer = made(case, "sell:u8w1")
    for batch in (3, 1, 4, 3):
        check(module, layer, case, 2, batch)
    assert layer.workspace(3) is layer.workspace(4)


def test_without_state_it_begins_at_zero_and_steps_make_a_sequence() -> None:
    case = LayerCase("gru", 3, 5)
    module, layer = made(case, "sell:u8w1")
    x = torch.randn(3, 1, 3, device=DEVICE)
    with torch.inference_mode():
        y, last = layer.run(x)
    truth, _ = twin(module, x.cpu(), (torch.zeros(1, 5),), False)
    assert float((y.cpu().double() - truth).abs().max()) < 1e-6
    state, steps = None, []
    for frame in x:  # outside inference mode, on buffers that were made inside
        out, state = layer.run(frame.unsqueeze(0), state)
        steps.append(out[0])
    assert torch.equal(torch.stack(steps), y)
    assert torch.equal(state[0], last[0])


@pytest.mark.parametrize(("times", "chosen"), [((2.0, 1.0), "dense"), ((1.0, 2.0), "sparse")])
def test_the_input_product_is_the_faster_one_measured_once(times: tuple[float, float], chosen: str) -> None:
    readings = iter(times)  # sparse first; a third reading would raise

    def clock(work: Callable[[], object]) -> float:
        work()
        return next(readings)

    weight, bias = uneven(12, 5), torch.randn(12, device=DEVICE)
    product = InputProduct(csr_from_dense(weight), bias, Variant("sell", None, 16, 1), DEVICE)

    def run(columns: int) -> None:
        x, out = torch.randn(5, columns, device=DEVICE), torch.full((12, columns + 3), NAN, device=DEVICE)
        product(x, out[:, :columns], clock)
        expected = weight.double() @ x.cpu().double() + bias.cpu().double().unsqueeze(1)
        assert float((out[:, :columns].cpu().double() - expected).abs().max()) < 1e-5
        assert out[:, columns:].isnan().all()

    run(8)
    run(20)
    run(17)
    assert product.choices == {32: chosen}, "too few columns are not measured, and those padded alike once"


def test_wrong_calls_say_so() -> None:
    case = LayerCase("lstm", 4, 8)
    _, layer = made(case, "sell:u8w1")
    with pytest.raises(UsageError, match=r"expected float32 \[T, B, 4\] on c"):
        layer.run(torch.ones(2, 3, 5, device=DEVICE))
    with pytest.raises(UsageError, match=r"state has shapes \[\[3, 8\]\], expected 2 of \[3, 8\]"):
        layer.run(torch.ones(2, 3, 4, device=DEVICE), (torch.ones(3, 8, device=DEVICE),))
    eight = csr_from_dense(torch.ones(32, 8))
    with pytest.raises(UsageError, match="the triton engine has no LSTM with a projection; use another engine"):
        TritonLayer(LayerWeights("lstm", eight, eight, weight_hr=eight), DEVICE)


def test_gates_saturate_and_nan_stays_nan() -> None:
    """The kernels' own sigmoid and tanh, far out and at zero; relu keeps NaN."""
    one = csr_from_dense(torch.full((1, 1), 1.0))
    for nonlinearity, expected in (("tanh", torch.tanh), ("relu", torch.relu)):
        layer = TritonLayer(LayerWeights("rnn", one, one, nonlinearity=nonlinearity), DEVICE)  # type: ignore[arg-type]
        x = torch.tensor([-200.0, -9.0, -0.7, -0.62, -1e-4, 0.0, 1e-20, 0.3, 0.63, 5.0, 100.0, NAN], device=DEVICE)
        zeros: Tensor = torch.zeros(len(x), 1, device=DEVICE)
        y, _ = layer.run(x.reshape(1, -1, 1), (zeros,))
        exact = expected(x.double())
        assert torch.equal(y.flatten().isnan(), exact.isnan())
        assert bool(((y.flatten() - exact).abs() <= 6e-7 * exact.abs())[:-1].all())

"""The reference layers against torch.nn in float64: every kind, awkward sizes, states that are not zero."""

import pytest
import torch
from torch import Tensor, nn

from rnnprune.architecture import Kind
from rnnprune.kernels import reference, scipy_csr, torch_csr
from rnnprune.kernels.api import Engine
from rnnprune.kernels.csr import csr_from_dense
from rnnprune.kernels.reference import Layer, State, run_layer

TOLERANCE = 1e-12
SIZES = [(1, 1, 1, 1), (5, 7, 3, 4), (13, 6, 2, 9), (3, 17, 5, 2)]  # I, H, B, T


def torch_layer(kind: str, inputs: int, hidden: int) -> nn.RNNBase:
    module = {
        "tanh": lambda: nn.RNN(inputs, hidden),
        "relu": lambda: nn.RNN(inputs, hidden, nonlinearity="relu"),
        "gru": lambda: nn.GRU(inputs, hidden),
        "lstm": lambda: nn.LSTM(inputs, hidden),
        "lstm projected": lambda: nn.LSTM(inputs, hidden, proj_size=max(1, hidden // 2)),
    }[kind]()
    return module.double().requires_grad_(False)


def thin_out(module: nn.RNNBase, seed: int = 0) -> None:
    """Nine weights of ten to zero, and two whole rows of each matrix."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in module.named_parameters():
        if weight.dim() == 2:
            weight *= torch.rand(weight.shape, generator=generator) < 0.1
            weight[0] = 0.0
            weight[-1] = 0.0
            assert "weight" in name


def as_layer(module: nn.RNNBase, engine: Engine = reference.ENGINE) -> Layer:
    def product(name: str) -> reference.Product:
        return engine.pack(csr_from_dense(getattr(module, name)))

    kind: Kind = "lstm" if isinstance(module, nn.LSTM) else "gru" if isinstance(module, nn.GRU) else "rnn"
    return Layer(
        kind=kind,
        weight_ih=product("weight_ih_l0"),
        weight_hh=product("weight_hh_l0"),
        bias_ih=module.bias_ih_l0.unsqueeze(1),
        bias_hh=module.bias_hh_l0.unsqueeze(1),
        weight_hr=product("weight_hr_l0") if module.proj_size else None,
        nonlinearity="relu" if getattr(module, "nonlinearity", "tanh") == "relu" else "tanh",
    )


def states(module: nn.RNNBase, batch: int, *, zero: bool) -> State:
    draw = torch.zeros if zero else torch.randn
    h = draw(module.proj_size or module.hidden_size, batch, dtype=torch.float64)
    return (h, draw(module.hidden_size, batch, dtype=torch.float64)) if isinstance(module, nn.LSTM) else (h,)


def run_torch(module: nn.RNNBase, inputs: Tensor, state: State) -> tuple[Tensor, State]:
    """torch takes [T, B, I] and states [1, B, H]; ours are [T, I, B] and [H, B]."""
    torch_state = tuple(each.T.unsqueeze(0).contiguous() for each in state)
    output, last = module(inputs.transpose(1, 2), torch_state if isinstance(module, nn.LSTM) else torch_state[0])
    last = last if isinstance(last, tuple) else (last,)
    return output.transpose(1, 2), tuple(each[0].T for each in last)


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("zero", [True, False], ids=["zero state", "given state"])
@pytest.mark.parametrize("sizes", SIZES, ids=["x".join(map(str, sizes)) for sizes in SIZES])
@pytest.mark.parametrize("kind", ["tanh", "relu", "gru", "lstm", "lstm projected"])
def test_a_layer_equals_torch(kind: str, sizes: tuple[int, int, int, int], zero: bool) -> None:
    inputs, hidden, batch, time = sizes
    if kind == "lstm projected" and hidden == 1:
        hidden = 2  # torch wants the projection smaller than the layer
    module = torch_layer(kind, inputs, hidden)
    x = torch.randn(time, inputs, batch, dtype=torch.float64)
    state = states(module, batch, zero=zero)
    expected, expected_state = run_torch(module, x, state)
    found, found_state = run_layer(as_layer(module), x, state)
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE)
    assert len(found_state) == len(expected_state)
    for each, other in zip(found_state, expected_state, strict=True):
        torch.testing.assert_close(each, other, rtol=0, atol=TOLERANCE)


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("engine", [reference.ENGINE, torch_csr.ENGINE, scipy_csr.ENGINE], ids=lambda each: each.name)
@pytest.mark.parametrize("kind", ["tanh", "relu", "gru", "lstm", "lstm projected"])
def test_a_pruned_layer_with_empty_rows_equals_torch_on_every_engine(kind: str, engine: Engine) -> None:
    module = torch_layer(kind, 11, 20)
    thin_out(module)
    x, state = torch.randn(6, 11, 3, dtype=torch.float64), states(module, 3, zero=False)
    expected, expected_state = run_torch(module, x, state)
    found, found_state = run_layer(as_layer(module, engine), x, state)
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE)
    for each, other in zip(found_state, expected_state, strict=True):
        torch.testing.assert_close(each, other, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 5])
def test_sequences_of_one_batch_do_not_mix(batch: int) -> None:
    module = torch_layer("gru", 4, 5)
    x, state = torch.randn(7, 4, batch, dtype=torch.float64), states(module, batch, zero=False)
    together, _ = run_layer(as_layer(module), x, state)
    for one in range(batch):
        expected, _ = run_torch(module, x[:, :, one : one + 1], tuple(each[:, one : one + 1] for each in state))
        torch.testing.assert_close(together[:, :, one : one + 1], expected, rtol=0, atol=TOLERANCE)


def test_a_sequence_may_be_cut_and_go_on_from_the_state() -> None:
    module = torch_layer("lstm", 3, 4)
    x, state = torch.randn(8, 3, 2, dtype=torch.float64), states(module, 2, zero=True)
    expected, _ = run_torch(module, x, state)
    first, middle = run_layer(as_layer(module), x[:3], state)
    second, _ = run_layer(as_layer(module), x[3:], middle)
    torch.testing.assert_close(torch.cat([first, second]), expected, rtol=0, atol=TOLERANCE)


def test_one_gru_step_by_hand() -> None:
    """All weights zero but W_hn = 1; b_hn = 2 stays inside the reset product: n = tanh(0.5 (h + 2))."""
    module = nn.GRU(1, 1).double().requires_grad_(False)
    for parameter in module.parameters():
        parameter.zero_()
    module.weight_hh_l0[2] = 1.0
    module.bias_hh_l0[2] = 2.0
    h = torch.tensor([[0.4]], dtype=torch.float64)
    output, _ = run_layer(as_layer(module), torch.zeros(1, 1, 1, dtype=torch.float64), (h,))
    assert output.item() == pytest.approx(0.5 * 0.8336546070121553 + 0.5 * 0.4, abs=1e-15)  # tanh(1.2)

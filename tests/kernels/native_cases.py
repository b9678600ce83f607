"""What the tests of the native engine share: random sparse weights, float64 twins and the one comparison."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rnnprune.kernels import native
from rnnprune.kernels.csr import csr_from_dense
from rnnprune.kernels.native_layer import LayerWeights

FP32_TOLERANCE = 1e-6  # of the largest output
MODULES = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
UNSTRUCTURED = ("auto", "sell8")
BLOCKS = tuple(name for name in native.LAYOUTS if "x" in name)


def assert_close(found: Tensor, truth: Tensor, tolerance: float = FP32_TOLERANCE, scale: float = 0.0) -> None:
    """Every element within `tolerance` of the largest |truth| or of `scale`; `found` is float32, `truth` float64."""
    assert found.shape == truth.shape
    assert found.dtype == torch.float32
    if truth.numel():
        error, largest = (found - truth).abs().max().item(), max(scale, truth.abs().max().item())
        assert error <= tolerance * largest + 1e-30, f"error {error:.3g} of {largest:.3g} is {error / largest:.3g}"


def assert_product(y: Tensor, weight: Tensor, x: Tensor) -> None:
    """y = weight x, where an output that happens to cancel is measured by the size it could be expected to have."""
    expected_size = ((weight.double() ** 2) @ (x.double() ** 2)).sqrt()
    assert_close(y, weight.double() @ x.double(), scale=expected_size.max().item() if y.numel() else 0.0)


def sparse_weight(rows: int, cols: int, density: float, seed: int) -> Tensor:
    """Random values; row 0 is full and row 1 empty where there are as many."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, cols, generator=generator)
    keep = torch.rand(rows, cols, generator=generator) < density
    keep[0] = True
    keep[1:2] = False
    return weight * keep


@dataclass(frozen=True)
class LayerCase:
    """The sizes of one layer."""

    kind: str
    input_size: int
    hidden_size: int
    proj_size: int = 0
    nonlinearity: str = "tanh"
    bias: bool = True


def make_layer(case: LayerCase, density: float, seed: int) -> tuple[nn.RNNBase, LayerWeights]:
    """A float64 torch layer with pruned weights, exact in float32, and the same weights for the engine."""
    torch.manual_seed(seed)
    extra = {"rnn": {"nonlinearity": case.nonlinearity}, "gru": {}, "lstm": {"proj_size": case.proj_size}}[case.kind]
    module = MODULES[case.kind](case.input_size, case.hidden_size, bias=case.bias, **extra)
    for seed_of, parameter in enumerate(module.parameters(), start=seed):
        if parameter.ndim == 2:
            parameter.data *= sparse_weight(*parameter.shape, density, seed_of) != 0
    weights = {name: parameter.detach() for name, parameter in module.named_parameters()}
    matrix = {name: csr_from_dense(weight) for name, weight in weights.items() if weight.ndim == 2}
    layer = LayerWeights(
        kind=case.kind,
        weight_ih=matrix["weight_ih_l0"],
        weight_hh=matrix["weight_hh_l0"],
        bias_ih=weights.get("bias_ih_l0"),
        bias_hh=weights.get("bias_hh_l0"),
        weight_hr=matrix.get("weight_hr_l0"),
        nonlinearity=case.nonlinearity,
    )
    return module.double(), layer


def random_state(case: LayerCase, batch: int) -> tuple[Tensor, ...]:
    """h (and c) of one direction, [B, ...]."""
    h = torch.randn(batch, case.proj_size or case.hidden_size)
    return (h, torch.randn(batch, case.hidden_size)) if case.kind == "lstm" else (h,)


def twin(module: nn.RNNBase, x: Tensor, state: tuple[Tensor, ...], reverse: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The layer in float64, in torch, forwards or backwards in time."""
    h0 = tuple(part.double().unsqueeze(0) for part in state)
    with torch.no_grad():
        y, h_n = module(x.double().flip(0) if reverse else x.double(), h0 if len(h0) > 1 else h0[0])
    h_n = h_n if isinstance(h_n, tuple) else (h_n,)
    return y.flip(0) if reverse else y, tuple(part[0] for part in h_n)

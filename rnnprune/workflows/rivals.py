"""What a benchmark compares: for one matrix or one recurrent layer, the same work done by every engine.

Each candidate takes no argument and returns its output, so that all of them can be compared with float64.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rnnprune.architecture import RecurrentStack
from rnnprune.kernels import scipy_csr, torch_csr
from rnnprune.kernels.api import Engine
from rnnprune.kernels.csr import csr_from_dense
from rnnprune.kernels.reference import Layer, State, run_layer

Candidate = Callable[[], Tensor]
SPARSE_ENGINES: tuple[Engine, ...] = (torch_csr.ENGINE, scipy_csr.ENGINE)
DENSE = "torch-dense-fp32"
INT8 = "torch-dense-int8"
ENGINE_NAMES = (DENSE, INT8, *(engine.name for engine in SPARSE_ENGINES))

_MODULES: Mapping[str, Callable[..., nn.RNNBase]] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


@dataclass(frozen=True)
class Work:
    """One thing to time: its rivals by engine name, its float64 truth, and the rivals left out with the reason."""

    candidates: dict[str, Candidate]
    truth: Tensor
    left_out: dict[str, str]


def matrix_work(weight: Tensor, batch: int, seed: int = 0) -> Work:
    """weight [rows, cols] times a random [cols, batch], float32."""
    weight = weight.float()
    x = torch.randn(weight.shape[1], batch, generator=torch.Generator().manual_seed(seed))
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.weight = nn.Parameter(weight, requires_grad=False)
    rows = x.T.contiguous()  # a dense layer's own layout, [B, cols]
    candidates: dict[str, Candidate] = {DENSE: lambda: linear(rows).T}
    left_out = {}
    try:
        quantized = quantize(linear)
        candidates[INT8] = lambda: quantized(rows).T
    except RuntimeError as error:
        left_out[INT8] = _first_line(error)
    csr = csr_from_dense(weight)
    for engine in SPARSE_ENGINES:
        product = engine.pack(csr)
        candidates[engine.name] = lambda product=product: product(x)  # type: ignore[misc]
    return Work(candidates, weight.double() @ x.double(), left_out)


def layer_work(stack: RecurrentStack, state_dict: Mapping[str, Tensor], batch: int, steps: int, seed: int = 0) -> Work:
    """The stack's first layer, forward direction, over a random sequence [steps, batch, input] from a zero state."""
    module, tensors = first_layer(stack, state_dict)
    x = torch.randn(steps, batch, stack.input_size, generator=torch.Generator().manual_seed(seed))
    candidates: dict[str, Candidate] = {DENSE: lambda: module(x)[0]}
    left_out = {}
    try:
        quantized = quantize(module)
        quantized(x[:1])
        candidates[INT8] = lambda: quantized(x)[0]
    except (RuntimeError, AttributeError, NotImplementedError) as error:
        left_out[INT8] = _first_line(error)
    for engine in SPARSE_ENGINES:
        candidates[engine.name] = _loop(engine, stack, tensors, x)
    truth = first_layer(stack, state_dict)[0].double()(x.double())[0]
    return Work(candidates, truth, left_out)


def first_layer(stack: RecurrentStack, state_dict: Mapping[str, Tensor]) -> tuple[nn.RNNBase, dict[str, Tensor]]:
    """Layer 0 of the stack, forward, as a float32 torch module, and its tensors under torch's bare names."""
    dot, end = f"{stack.prefix}." if stack.prefix else "", "" if stack.is_cell else "_l0"
    names = ("weight_ih", "weight_hh", "weight_hr", "bias_ih", "bias_hh")
    tensors = {
        f"{name}_l0": state_dict[f"{dot}{name}{end}"].float() for name in names if f"{dot}{name}{end}" in state_dict
    }
    projection = {"proj_size": stack.proj_size} if stack.proj_size else {}
    module = _MODULES[stack.kind](stack.input_size, stack.hidden_size, bias=stack.bias, **projection)
    module.load_state_dict(tensors, strict=True)
    return module.requires_grad_(False).eval(), tensors


def quantize(module: nn.Module) -> nn.Module:
    """torch's dynamic int8: the one-line alternative to pruning."""
    wrapped = nn.Sequential(module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces a successor of the whole module
        quantized = torch.ao.quantization.quantize_dynamic(wrapped, {type(module)}, dtype=torch.qint8)  # type: ignore[no-untyped-call]
    result: nn.Module = quantized[0]
    if type(result) is type(module):  # torch leaves a layer that it cannot quantize as it was, and says nothing
        raise RuntimeError(f"torch has no dynamic int8 {type(module).__name__}")
    return result


def _loop(engine: Engine, stack: RecurrentStack, tensors: Mapping[str, Tensor], x: Tensor) -> Candidate:
    gates = tensors["weight_hh_l0"].shape[0]
    zero = torch.zeros(gates, 1)
    layer = Layer(
        kind=stack.kind,
        weight_ih=engine.pack(csr_from_dense(tensors["weight_ih_l0"])),
        weight_hh=engine.pack(csr_from_dense(tensors["weight_hh_l0"])),
        bias_ih=tensors["bias_ih_l0"].unsqueeze(1) if stack.bias else zero,
        bias_hh=tensors["bias_hh_l0"].unsqueeze(1) if stack.bias else zero,
        weight_hr=engine.pack(csr_from_dense(tensors["weight_hr_l0"])) if stack.proj_size else None,
    )
    h = torch.zeros(stack.proj_size or stack.hidden_size, x.shape[1])
    state: State = (h, torch.zeros(stack.hidden_size, x.shape[1])) if stack.kind == "lstm" else (h,)
    inputs = x.transpose(1, 2).contiguous()
    return lambda: run_layer(layer, inputs, state)[0].transpose(1, 2)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:120]

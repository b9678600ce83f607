"""What a benchmark compares: for one matrix or one recurrent layer, the same work done by every engine.

Every engine gets the layout of activations that suits it best: torch's dense modules [B, cols], sparse products
[cols, B] (a plain vector for one column). Whatever it returns, `output` gives [rows, B] or [T, B, outputs].
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rnnprune.errors import UsageError
from rnnprune.kernels import scipy_csr, torch_csr
from rnnprune.kernels.api import Engine, Product
from rnnprune.kernels.csr import Csr
from rnnprune.kernels.reference import STEPS, Layer, State, run_layer
from rnnprune.runtime import int8
from rnnprune.workflows.bench_pieces import Piece

SPARSE_ENGINES: tuple[Engine, ...] = (torch_csr.ENGINE, scipy_csr.ENGINE)
DENSE, INT8, CSR = "torch-dense-fp32", "torch-dense-int8", torch_csr.ENGINE.name
CHECKED_STEPS = 8  # of a stream, against float64

_MODULES: Mapping[str, Callable[..., nn.RNNBase]] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
_CELLS: Mapping[str, Callable[..., nn.RNNCellBase]] = {"rnn": nn.RNNCell, "gru": nn.GRUCell, "lstm": nn.LSTMCell}


class Prepared(NamedTuple):
    """An engine with its own copy of the weights: the timed call, its checked output, bytes of the weights it holds."""

    call: Callable[[], object]
    output: Callable[[], Tensor]
    nbytes: int


Prepare = Callable[[], Prepared]


@dataclass(frozen=True)
class Work:
    """One thing to time, and its inputs: x [cols, B] of a matrix, [T, B, I] of a layer."""

    piece: Piece
    batch: int
    steps: int
    threads: int
    x: Tensor

    @property
    def streaming(self) -> bool:
        """Whether every call is one time step of a layer."""
        return self.piece.stack is not None and self.steps == 1


class LayerEngine(NamedTuple):
    """A layer ready to run: over a sequence, or as a stream over the same frames that remembers its state."""

    run: Callable[[Float[Tensor, "time batch inputs"]], Float[Tensor, "time batch outputs"]]
    start: Callable[[Float[Tensor, "time batch inputs"]], Callable[[int], Tensor]]
    natural: Callable[[Tensor], Tensor]  # what a step of the stream returns -> [B, outputs]
    nbytes: int


def make_work(piece: Piece, batch: int, steps: int, threads: int, seed: int = 0) -> Work:
    """Random inputs for this piece; a stream gets `CHECKED_STEPS` frames."""
    generator = torch.Generator().manual_seed(seed)
    if piece.stack is None:
        x = torch.randn(piece.tensors["weight"].shape[1], batch, generator=generator)
        return Work(piece, batch, 1, threads, x)
    frames = CHECKED_STEPS if steps == 1 else steps
    return Work(piece, batch, steps, threads, torch.randn(frames, batch, piece.stack.input_size, generator=generator))


def truth(work: Work) -> Tensor:
    """The outputs in float64."""
    if work.piece.stack is None:
        return work.piece.tensors["weight"].double() @ work.x.double()
    output: Tensor = torch_module(work.piece).double()(work.x.double())[0]
    return output


def torch_rivals(work: Work) -> dict[str, Prepare]:
    """torch dense fp32 and int8, torch.sparse and scipy. A call may raise where an engine cannot run."""
    if work.piece.stack is None:
        rivals: dict[str, Prepare] = {DENSE: lambda: _dense(work), INT8: lambda: _int8(work)}
        return rivals | {engine.name: lambda engine=engine: _sparse(engine, work) for engine in SPARSE_ENGINES}
    rivals = {
        DENSE: lambda: prepare_layer(_module_engine(_streamable(work), _nbytes(work.piece)), work),
        INT8: lambda: prepare_layer(_module_engine(quantize(_streamable(work)), _int8_nbytes(work.piece)), work),
    }
    return rivals | {
        engine.name: lambda engine=engine: prepare_layer(loop_engine(engine, work.piece), work)
        for engine in SPARSE_ENGINES
    }


def prepare_layer(engine: LayerEngine, work: Work) -> Prepared:
    """The timed call of a layer: the whole sequence, or the next step of a stream (always the same input)."""
    if not work.streaming:
        return Prepared(lambda: engine.run(work.x), lambda: engine.run(work.x), engine.nbytes)
    step = engine.start(work.x)

    def output() -> Tensor:
        fresh = engine.start(work.x)
        return torch.stack([engine.natural(fresh(t)).clone() for t in range(len(work.x))])

    return Prepared(lambda: step(0), output, engine.nbytes)


def rotate(prepare: Prepare, first: Prepared, copies: int) -> Prepared:
    """The same with a fresh copy of the weights in every call, so that they come from memory."""
    ready = [first, *(prepare() for _ in range(copies - 1))]
    calls = itertools.cycle([each.call for each in ready])
    return Prepared(lambda: next(calls)(), first.output, first.nbytes)


def torch_module(piece: Piece) -> nn.RNNBase:
    """The layer as a float32 torch module with a copy of the weights."""
    stack = piece.stack
    assert stack is not None
    projection = {"proj_size": stack.proj_size} if stack.proj_size else {}
    module = _MODULES[stack.kind](stack.input_size, stack.hidden_size, bias=stack.bias, **projection)
    module.load_state_dict(piece.tensors, strict=True)
    return module.requires_grad_(False).eval()


def quantize(module: nn.Module) -> nn.Module:
    """torch's dynamic int8: the one-line alternative to pruning. RuntimeError where torch has none for it."""
    try:
        return int8.quantize(nn.Sequential(module)).get_submodule("0")
    except UsageError as error:
        raise RuntimeError(str(error)) from error


def _dense(work: Work) -> Prepared:
    weight, x = work.piece.tensors["weight"].clone(), _rows_or_vector(work.x)
    return Prepared(
        lambda: F.linear(x, weight), lambda: F.linear(x, weight).reshape(work.batch, -1).T, _nbytes(work.piece)
    )


def _int8(work: Work) -> Prepared:
    weight, x = work.piece.tensors["weight"], work.x.T.contiguous()
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.weight = nn.Parameter(weight, requires_grad=False)
    quantized = quantize(linear)
    return Prepared(lambda: quantized(x), lambda: quantized(x).T, _int8_nbytes(work.piece))


def _sparse(engine: Engine, work: Work) -> Prepared:
    product = engine.pack(_copied(work.piece.csr["weight"]))
    x = _vector_or_columns(work.x)
    return Prepared(lambda: product(x), lambda: product(x).reshape(-1, work.batch), _csr_nbytes(work.piece))


def _streamable(work: Work) -> nn.Module:
    """The layer as torch runs it best: for single steps a cell, since a module packs its weights in every call."""
    if not work.streaming or "weight_hr_l0" in work.piece.tensors:
        return torch_module(work.piece)
    stack = work.piece.stack
    assert stack is not None
    cell = _CELLS[stack.kind](stack.input_size, stack.hidden_size, bias=stack.bias)
    cell.load_state_dict({name.removesuffix("_l0"): tensor for name, tensor in work.piece.tensors.items()}, strict=True)
    return cell.requires_grad_(False).eval()


def _module_engine(module: nn.Module, nbytes: int) -> LayerEngine:
    """A torch module, or a cell that is only ever started."""
    is_cell = not hasattr(module, "num_layers")

    def start(x: Tensor) -> Callable[[int], Tensor]:
        frames = x.unbind(0) if is_cell else torch.split(x, 1)
        state: Any = None

        def step_of_cell(t: int) -> Tensor:
            nonlocal state
            state = module(frames[t], state)
            h: Tensor = state[0] if isinstance(state, tuple) else state
            return h

        def step(t: int) -> Tensor:
            nonlocal state
            y: Tensor
            y, state = module(frames[t], state)
            return y

        return step_of_cell if is_cell else step

    return LayerEngine(lambda x: module(x)[0], start, (lambda h: h) if is_cell else (lambda y: y[0]), nbytes)


def loop_engine(engine: Engine, piece: Piece) -> LayerEngine:
    """The layer as a loop in Python over the engine's products."""
    packed = {name: engine.pack(_copied(csr)) for name, csr in piece.csr.items()}

    def run(x: Tensor) -> Tensor:
        layer, state = _layer_and_state(piece, packed, x.shape[1])
        return run_layer(layer, x.transpose(1, 2), state)[0].transpose(1, 2)

    def start(x: Tensor) -> Callable[[int], Tensor]:
        frames = x.transpose(1, 2).contiguous().unbind(0)
        layer, state = _layer_and_state(piece, packed, x.shape[1])

        def step(t: int) -> Tensor:
            nonlocal state
            state = STEPS[layer.kind](layer, layer.weight_ih(frames[t]) + layer.bias_ih, state)
            return state[0]

        return step

    return LayerEngine(run, start, lambda h: h.T, _csr_nbytes(piece))


def _layer_and_state(piece: Piece, packed: Mapping[str, Product], batch: int) -> tuple[Layer, State]:
    """The layer over these products, and zeros to start from, on the device of the weights."""
    stack, weight_hh = piece.stack, piece.tensors["weight_hh_l0"]
    assert stack is not None
    products = {name: _narrow(product, batch) for name, product in packed.items()}
    none = weight_hh.new_zeros(weight_hh.shape[0])
    layer = Layer(
        kind=stack.kind,
        weight_ih=products["weight_ih_l0"],
        weight_hh=products["weight_hh_l0"],
        bias_ih=piece.tensors.get("bias_ih_l0", none).unsqueeze(1),
        bias_hh=piece.tensors.get("bias_hh_l0", none).unsqueeze(1),
        weight_hr=products.get("weight_hr_l0"),
    )
    h, c = weight_hh.new_zeros(weight_hh.shape[1], batch), weight_hh.new_zeros(stack.hidden_size, batch)
    return layer, (h, c) if stack.kind == "lstm" else (h,)


def _narrow(product: Product, batch: int) -> Product:
    """At batch 1, a product of a plain vector: sparse libraries are much faster there than with one column."""
    if batch > 1:
        return product
    return lambda x: product(x[:, 0]).unsqueeze(1) if x.shape[1] == 1 else product(x)


def _vector_or_columns(x: Float[Tensor, "cols batch"]) -> Tensor:
    return x[:, 0].contiguous() if x.shape[1] == 1 else x


def _rows_or_vector(x: Float[Tensor, "cols batch"]) -> Tensor:
    return x[:, 0].contiguous() if x.shape[1] == 1 else x.T.contiguous()


def _nbytes(piece: Piece) -> int:
    return sum(4 * weight.numel() for weight in piece.matrices.values())


def _int8_nbytes(piece: Piece) -> int:
    """One byte per value, one scale per row."""
    return sum(weight.numel() + 4 * weight.shape[0] for weight in piece.matrices.values())


def _csr_nbytes(piece: Piece) -> int:
    return sum(torch_csr.packed_nbytes(csr.shape, csr.nnz) for csr in piece.csr.values())


def _copied(csr: Csr) -> Csr:
    """With values of its own: engines keep the tensor they are given."""
    return Csr(csr.crow_indices, csr.col_indices, csr.values.clone(), csr.shape)

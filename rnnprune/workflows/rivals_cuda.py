"""What `rnnprune bench --device cuda` compares, by the names of its rows.

    torch-dense-fp32, torch-dense-fp32:tf32, torch-dense-fp16    F.linear; nn.LSTM, nn.GRU, nn.RNN (cuDNN)
    ...:addmm                       a layer as one input product, then per step one product and one fused gate kernel
    torch-dense-fp16:pad8           the batch padded to a multiple of 8, as tensor cores like it
    torch-csr                       cuSPARSE, float32; layers as a loop in Python
    triton:LAYOUT, triton:LAYOUT:fp16    this package's kernels; `triton` stands for those that fit the zeros

Each of them also as `...:graph`, replayed from one CUDA graph: what is left without the launches of Python.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from rnnprune.architecture import Kind
from rnnprune.errors import UsageError
from rnnprune.kernels import torch_csr, triton_engine
from rnnprune.kernels.cuda_graph import Captured
from rnnprune.kernels.native_layer import LayerWeights
from rnnprune.kernels.triton_engine import Variant, parse_variant
from rnnprune.kernels.triton_layer import TritonLayer
from rnnprune.workflows.bench_pieces import UNSTRUCTURED, Piece
from rnnprune.workflows.rivals import CSR, DENSE, Prepare, Prepared, Work, loop_engine, torch_module

TF32, FP16, TRITON = f"{DENSE}:tf32", "torch-dense-fp16", "triton"
ADDMM, PAD, GRAPH = ":addmm", ":pad8", ":graph"
PADDED_TO = 8
DENSE_NAMES = (DENSE, TF32, FP16, FP16 + PAD, DENSE + ADDMM, TF32 + ADDMM, FP16 + ADDMM, FP16 + PAD + ADDMM)
FITTING = ("", ":fp16")  # values that `triton` alone stands for

Call = Callable[[], Tensor]
GateKernel = Callable[..., tuple[Tensor, ...]]


def check_cuda_engines(engines: tuple[str, ...]) -> None:
    """UsageError for a name that is none of CUDA's."""
    for name in engines:
        base = name.removesuffix(GRAPH)
        if base not in (*DENSE_NAMES, CSR) and _variant(base) is None:
            known = ", ".join((*DENSE_NAMES, CSR, TRITON))
            raise UsageError(f"--engines: unknown {name}; on cuda there are {known}, triton:8x4:fp16, each with :graph")


def cuda_rivals(work: Work, engines: tuple[str, ...], device: torch.device) -> dict[str, Prepare]:
    """The rivals asked for (none: all that have a meaning here), dense fp32 always first. Preparing one may raise."""
    bases = [name for name in (*DENSE_NAMES, CSR) if _has_meaning(work, name)]
    found = {name: _prepare(work, name, device) for name in bases}
    found |= {name: _triton(work, variant, device) for name, variant in _triton_names(work.piece, engines).items()}
    found |= {name + GRAPH: _graphed(prepare, device) for name, prepare in list(found.items())}
    asked = {name for each in engines for name in _expand(each, work.piece)}
    return {name: prepare for name, prepare in found.items() if not engines or name == DENSE or name in asked}


def _has_meaning(work: Work, name: str) -> bool:
    """Padding where there is something to pad, a loop of addmm where there is a layer without a projection."""
    if PAD in name and work.batch % PADDED_TO == 0:
        return False
    return ADDMM not in name or (work.piece.stack is not None and not work.piece.stack.proj_size)


def _variant(name: str) -> Variant | None:
    head, _, rest = name.partition(":")
    return parse_variant(rest) if head == TRITON else None


def _triton_names(piece: Piece, engines: tuple[str, ...]) -> dict[str, Variant]:
    """Names of rows to variants: those that `triton` stands for, and those asked for by name."""
    names = dict.fromkeys(_fitting(piece))
    names |= {name: None for each in engines if (name := each.removesuffix(GRAPH)).startswith(f"{TRITON}:")}
    return {name: variant for name in names if (variant := _variant(name)) is not None}


def _fitting(piece: Piece) -> list[str]:
    layouts = ["sell"] if piece.block == UNSTRUCTURED else ["x".join(map(str, piece.block)), "sell"]
    return [f"{TRITON}:{layout}{values}" for layout in layouts for values in FITTING]


def _expand(asked: str, piece: Piece) -> list[str]:
    """`triton` -> every variant that fits, with and without a graph; any other name is itself."""
    if asked.removesuffix(GRAPH) != TRITON:
        return [asked]
    ends = (GRAPH,) if asked.endswith(GRAPH) else ("", GRAPH)
    return [name + end for name in _fitting(piece) for end in ends]


def _prepare(work: Work, name: str, device: torch.device) -> Prepare:
    def prepare() -> Prepared:
        call = _csr_call(work, device) if name == CSR else _dense_call(work, name, device)
        call = _with_tf32(call) if name.startswith(TF32) else call
        return Prepared(call, _checked(call), _nbytes(work.piece, name))

    return prepare


def _checked(call: Call) -> Call:
    """[rows, B] or [T, B, outputs] in float32 on the CPU."""
    return lambda: call().float().cpu()


def _dense_call(work: Work, name: str, device: torch.device) -> Call:
    dtype = torch.float16 if name.startswith(FP16) else torch.float32
    batch, padding = work.batch, -work.batch % PADDED_TO if PAD in name else 0
    on_gpu = _moved(work.piece, device, dtype)
    if work.piece.stack is None:
        weight, rows = on_gpu.tensors["weight"], F.pad(work.x.T, (0, 0, 0, padding)).to(device, dtype).contiguous()
        return lambda: F.linear(rows, weight)[:batch].T
    frames = F.pad(work.x[: work.steps], (0, 0, 0, padding)).to(device, dtype)
    if ADDMM in name:
        run = fused_loop(on_gpu, torch_gate_kernel(work.piece.stack.kind))
        return lambda: run(frames)[:, :batch]
    module = torch_module(work.piece).to(device, dtype)
    return lambda: module(frames)[0][:, :batch]


def _csr_call(work: Work, device: torch.device) -> Call:
    if work.piece.stack is None:
        product, x = torch_csr.pack(_on(work.piece, device).csr["weight"]), work.x.to(device)
        return lambda: product(x)
    run, frames = loop_engine(torch_csr.ENGINE, _on(work.piece, device)).run, work.x[: work.steps].to(device)
    return lambda: run(frames)


def torch_gate_kernel(kind: Kind) -> GateKernel:
    """(gates of x, gates of h, state, b_ih, b_hh) -> new h (and c): torch's fused kernels, on CUDA alone."""
    if kind == "lstm":
        return lambda x, h, state, b_ih, b_hh: torch.ops.aten._thnn_fused_lstm_cell(x, h, state[1], b_ih, b_hh)[:2]
    if kind == "gru":
        return lambda x, h, state, b_ih, b_hh: torch.ops.aten._thnn_fused_gru_cell(x, h, state[0], b_ih, b_hh)[:1]
    return lambda x, h, state, b_ih, b_hh: (torch.tanh(x + h + (b_ih + b_hh)),)  # noqa: ARG005


def fused_loop(piece: Piece, gate_kernel: GateKernel) -> Callable[[Tensor], Tensor]:
    """A layer: [T, B, I] -> [T, B, H]."""
    t = piece.tensors
    hidden = t["weight_hh_l0"].shape[1]
    none = t["weight_hh_l0"].new_zeros(len(t["weight_hh_l0"]))
    biases = t.get("bias_ih_l0", none), t.get("bias_hh_l0", none)

    def run(x: Tensor) -> Tensor:
        zeros = x.new_zeros(x.shape[1], hidden)
        state, outputs = (zeros, zeros), []
        for gates in F.linear(x, t["weight_ih_l0"]).unbind(0):
            state = gate_kernel(gates, F.linear(state[0], t["weight_hh_l0"]), state, *biases)  # type: ignore[assignment]
            outputs.append(state[0])
        return torch.stack(outputs)

    return run


def _triton(work: Work, variant: Variant, device: torch.device) -> Prepare:
    def prepare() -> Prepared:
        triton_engine.require_triton(device)
        if work.piece.stack is None:
            packed, x = triton_engine.Packed(work.piece.csr["weight"], variant, device), work.x.to(device)
            call: Call = lambda: packed(x)  # noqa: E731
            return Prepared(call, _checked(call), packed.nbytes)
        layer, frames = TritonLayer(_weights(work.piece), device, variant), work.x[: work.steps].to(device)
        call = lambda: layer.run(frames)[0]  # noqa: E731
        return Prepared(call, _checked(call), layer.nbytes)

    return prepare


def _weights(piece: Piece) -> LayerWeights:
    assert piece.stack is not None
    t = piece.tensors
    return LayerWeights(
        kind=piece.stack.kind,
        weight_ih=piece.csr["weight_ih_l0"],
        weight_hh=piece.csr["weight_hh_l0"],
        bias_ih=t.get("bias_ih_l0"),
        bias_hh=t.get("bias_hh_l0"),
        weight_hr=piece.csr.get("weight_hr_l0"),
    )


def _graphed(prepare: Prepare, device: torch.device) -> Prepare:
    def prepared() -> Prepared:
        ready, held = prepare(), dict[str, Tensor]()

        def work() -> None:
            held["output"] = ready.call()  # type: ignore[assignment]

        work()
        captured = Captured(work, work, device)

        def call() -> Tensor:
            captured()
            return held["output"]

        return Prepared(call, _checked(call), ready.nbytes)

    return prepared


def _with_tf32(call: Call) -> Call:
    def wrapped() -> Tensor:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        try:
            return call()
        finally:
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False

    return wrapped


def _on(piece: Piece, device: torch.device) -> Piece:
    return _moved(piece, device, torch.float32)


def _moved(piece: Piece, device: torch.device, dtype: torch.dtype) -> Piece:
    return replace(piece, tensors={name: tensor.to(device, dtype) for name, tensor in piece.tensors.items()})


def _nbytes(piece: Piece, name: str) -> int:
    """Bytes of the weights that this rival reads."""
    matrices: Mapping[str, Tensor] = piece.matrices
    if name == CSR:
        return sum(torch_csr.packed_nbytes(csr.shape, csr.nnz) for csr in piece.csr.values())
    return sum(weight.numel() for weight in matrices.values()) * (2 if name.startswith(FP16) else 4)

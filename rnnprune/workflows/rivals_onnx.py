"""ONNX Runtime as a rival, where `onnx` and `onnxruntime` are installed.

The graph is built node by node rather than by torch's exporter, which has written a GRU of the wrong kind
(pytorch#189225): one MatMul, or one LSTM / GRU / RNN node with `linear_before_reset=1`, torch's GRU. Weights stay
dense: ONNX Runtime turns sparse initialisers dense when it loads them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rnnprune.architecture import GATES, Kind
from rnnprune.workflows.bench_pieces import Piece
from rnnprune.workflows.rivals import LayerEngine, Prepared, Work, prepare_layer

NAME = "onnxruntime-fp32"
OPSET, IR_VERSION = 17, 8
GATE_ORDER: Mapping[Kind, tuple[int, ...]] = {
    "rnn": (0,),
    "gru": (1, 0, 2),
    "lstm": (0, 3, 1, 2),
}  # zrn, iofg

Array = NDArray[Any]


class _Graph(NamedTuple):
    """`onnx`, its arrays by name, and the node that uses them."""

    op: str
    arrays: dict[str, Array]
    inputs: dict[str, tuple[int | str, ...]]
    outputs: tuple[str, ...]
    node_inputs: tuple[str, ...]
    attributes: dict[str, int]


def unavailable_reason() -> str | None:
    """Why this rival cannot run here, or None when it can."""
    for module in ("onnx", "onnxruntime"):
        try:
            import_module(module)
        except ImportError:
            return f"{module} is not installed (pip install onnx onnxruntime)"
    return None


def prepare(work: Work) -> Prepared:
    """RuntimeError where ONNX has no such layer."""
    nbytes = sum(4 * weight.numel() for weight in work.piece.matrices.values())
    if work.piece.stack is not None:
        return prepare_layer(_layer_engine(work, nbytes), work)
    weight = work.piece.tensors["weight"]
    rows, cols = weight.shape
    inputs: dict[str, tuple[int | str, ...]] = {"X": (work.batch, cols)}
    session = _session(
        _Graph("MatMul", {"W": weight.T.contiguous().numpy()}, inputs, ("Y",), ("X", "W"), {}), work.threads
    )
    x = {"X": work.x.T.contiguous().numpy()}
    return Prepared(
        lambda: session.run(None, x), lambda: torch.from_numpy(session.run(None, x)[0]).reshape(-1, rows).T, nbytes
    )


def _layer_engine(work: Work, nbytes: int) -> LayerEngine:
    session = _session(_layer_graph(work.piece), work.threads)
    stack = work.piece.stack
    assert stack is not None
    states = ("h", "c") if stack.kind == "lstm" else ("h",)

    def zeros(batch: int) -> dict[str, Array]:
        return {name: np.zeros((1, batch, stack.hidden_size), np.float32) for name in states}

    def run(x: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["Y"], {"X": x.numpy(), **zeros(x.shape[1])})[0]).squeeze(1)

    def start(x: Tensor) -> Callable[[int], Tensor]:
        frames, state = [frame.numpy() for frame in torch.split(x, 1)], zeros(x.shape[1])
        names = [f"{name}_n" for name in states]

        def step(t: int) -> Tensor:
            nonlocal state
            state = dict(zip(states, session.run(names, {"X": frames[t], **state}), strict=True))
            return torch.from_numpy(state["h"])

        return step

    return LayerEngine(run, start, lambda h: h[0], nbytes)


def _layer_graph(piece: Piece) -> _Graph:
    stack, t = piece.stack, piece.tensors
    assert stack is not None
    if stack.proj_size:
        raise RuntimeError("ONNX has no LSTM with a projection")
    arrays = {"W": _gates(stack.kind, t["weight_ih_l0"])[None], "R": _gates(stack.kind, t["weight_hh_l0"])[None]}
    if stack.bias:
        biases = [_gates(stack.kind, t[f"bias_{which}_l0"]) for which in ("ih", "hh")]
        arrays["B"] = np.concatenate(biases)[None]
    state: tuple[int | str, ...] = (1, "batch", stack.hidden_size)
    inputs: dict[str, tuple[int | str, ...]] = {"X": ("time", "batch", stack.input_size), "h": state}
    node_inputs, outputs = ["X", "W", "R", "B" if stack.bias else "", "", "h"], ["Y", "h_n"]
    if stack.kind == "lstm":
        inputs["c"] = state
        node_inputs.append("c")
        outputs.append("c_n")
    attributes = {"hidden_size": stack.hidden_size} | ({"linear_before_reset": 1} if stack.kind == "gru" else {})
    return _Graph(stack.kind.upper(), arrays, inputs, tuple(outputs), tuple(node_inputs), attributes)


def _gates(kind: Kind, tensor: Tensor) -> Array:
    """Blocks of rows in ONNX's order of the gates."""
    chunks = tensor.chunk(len(GATES[kind]))
    array: Array = torch.cat([chunks[gate] for gate in GATE_ORDER[kind]]).numpy()
    return array


def _session(graph: _Graph, threads: int) -> Any:
    onnx, runtime = import_module("onnx"), import_module("onnxruntime")
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    built = helper.make_graph(
        [helper.make_node(graph.op, list(graph.node_inputs), list(graph.outputs), **graph.attributes)],
        "bench",
        [helper.make_tensor_value_info(name, float32, list(shape)) for name, shape in graph.inputs.items()],
        [helper.make_tensor_value_info(name, float32, None) for name in graph.outputs],
        [onnx.numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in graph.arrays.items()],
    )
    model = helper.make_model(built, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    # Threads that spin on after a run would take a core from the next rival.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

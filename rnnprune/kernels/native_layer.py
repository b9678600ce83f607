"""Whole recurrent layers on the native engine: one direction of one layer, prepared once, run many times.

T time, B batch, I input, H hidden, P projection. Sequences are [T, B, I], states [B, H], as in torch; with a projection
h is [B, P].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from rnnprune.architecture import Kind
from rnnprune.errors import UsageError
from rnnprune.kernels import native
from rnnprune.kernels.csr import Csr

if native.unavailable_reason() is None:
    from rnnprune.kernels import _native

_KINDS = {"rnn:tanh": 0, "rnn:relu": 1, "gru": 2, "lstm": 3}

State = tuple[Tensor, ...]  # (h,), or (h, c) for an LSTM


@dataclass(frozen=True)
class LayerWeights:
    """The parameters of one direction of one layer, with torch's names and gate order."""

    kind: Kind
    weight_ih: Csr
    weight_hh: Csr
    bias_ih: Tensor | None = None
    bias_hh: Tensor | None = None
    weight_hr: Csr | None = None
    nonlinearity: Literal["tanh", "relu"] = "tanh"


class Layouts(NamedTuple):
    """Layouts of the three matrices (see rnnprune.kernels.native); `window` helps weight_hh only."""

    weight_ih: str = "sell8"
    weight_hh: str = "auto"
    weight_hr: str = "sell8"


class NativeLayer:
    """A prepared layer. One call at a time runs; a second Python thread waits."""

    def __init__(
        self, weights: LayerWeights, layouts: Layouts | None = None, threads: int = 1, isa: str | None = None
    ) -> None:
        native.require_native()
        self.weights, self.layouts = weights, layouts or Layouts()
        self.threads, self.isa = threads, isa
        self.input_size = weights.weight_ih.shape[1]
        self.output_size = weights.weight_hh.shape[1]
        self.proj_size = 0 if weights.weight_hr is None else weights.weight_hr.shape[0]
        self.hidden_size = self.output_size if weights.weight_hr is None else weights.weight_hr.shape[1]
        self._layers: dict[bool, object] = {}  # by batch == 1
        self.handle(1)

    def runs(self, batch: int) -> str:
        """The layout in which weight_hh really runs for this batch."""
        return native.resolve_layout(self.layouts.weight_hh, self.output_size, batch, self.isa)

    def nbytes(self, batch: int = 1) -> int:
        """Bytes of the packed weights for this batch."""
        return _native.layer_info(self.handle(batch))[0]

    def run(
        self,
        x: Float[Tensor, "time batch inputs"],
        state: State | None = None,
        reverse: bool = False,
        out: Float[Tensor, "time batch outputs"] | None = None,
    ) -> tuple[Float[Tensor, "time batch outputs"], State]:
        """The outputs of every step, in the order of x, and the final state. `out` may be half of a wider tensor."""
        x = self._checked(x, "x", self.input_size)
        time, batch = x.shape[:2]
        shape = (time, batch, self.output_size)
        y = x.new_empty(shape) if out is None else out
        if y.shape != shape or y.stride(2) != 1 or y.dtype != torch.float32 or y.device.type != "cpu":
            raise UsageError(f"out is {y.dtype} {list(y.shape)}, expected float32 {list(shape)} on cpu")
        h0, c0 = (None, None) if state is None else self._checked_state(state, batch)
        h_n = x.new_empty(batch, self.output_size)
        c_n = x.new_empty(batch, self.hidden_size) if self.weights.kind == "lstm" else None
        if time * batch == 0:
            raise UsageError(f"x has shape {list(x.shape)}: at least one step and one batch entry are needed")
        _native.layer_run(
            self.handle(batch), native.pool(self.threads), reverse, time, batch, *_span(x), *_span(y),
            *native.array(h0), *native.array(c0), *native.array(h_n), *native.array(c_n),
        )  # fmt: skip
        return y, (h_n,) if c_n is None else (h_n, c_n)

    def step(self, x: Float[Tensor, "batch inputs"], state: State | None = None) -> tuple[Tensor, State]:
        """One step: the output h [B, P or H] and the new state."""
        y, state = self.run(x.unsqueeze(0), state)
        return y[0], state

    def stream(self, batch: int = 1) -> Stream:
        """A stream that starts from zeros and keeps its own state: the cheapest way to go step by step."""
        return Stream(self, batch)

    def handle(self, batch: int) -> object:
        """The C object for this batch, packed at first use."""
        single = batch == 1
        if single not in self._layers:
            layout, other = self.runs(batch), self._layers.get(not single)
            same = other is not None and layout == self.runs(native.BATCH_STEP if single else 1)
            self._layers[single] = other if same else self._prepare(layout)
        return self._layers[single]

    def _prepare(self, layout_hh: str) -> object:
        w = self.weights
        kind = f"rnn:{w.nonlinearity}" if w.kind == "rnn" else w.kind
        layout_ih = native.resolve_layout(self.layouts.weight_ih, self.input_size, native.BATCH_STEP)
        layout_hr = native.resolve_layout(self.layouts.weight_hr, self.hidden_size, native.BATCH_STEP)
        layouts = (layout_ih, layout_hh, layout_hr)
        matrices = [native.arrays(csr) for csr in (w.weight_ih, w.weight_hh, w.weight_hr) if csr is not None]
        biases = [None if bias is None else native.float32(bias) for bias in (w.bias_ih, w.bias_hh)]
        return _native.layer_new(
            self.threads, self.isa, _KINDS[kind], self.input_size, self.hidden_size, self.proj_size,
            *(field for name in layouts for field in native.LAYOUTS[name]),
            *(number for bias in biases for number in native.array(bias)),
            *(number for matrix in matrices for number in matrix.args),
        )  # fmt: skip

    def _checked(self, x: Tensor, name: str, features: int) -> Tensor:
        if x.dtype != torch.float32 or not x.is_cpu or x.ndim != 3 or x.shape[2] != features:
            raise UsageError(
                f"{name} is {x.dtype} {list(x.shape)} on {x.device}, expected float32 [T, B, {features}] on cpu"
            )
        return x if x.stride(2) == 1 else x.contiguous()

    def _checked_state(self, state: State, batch: int) -> tuple[Tensor, Tensor | None]:
        sizes = (self.output_size, self.hidden_size)[: 2 if self.weights.kind == "lstm" else 1]
        if tuple(tuple(part.shape) for part in state) != tuple((batch, size) for size in sizes):
            found = [list(part.shape) for part in state]
            raise UsageError(f"state has shapes {found}, expected {[[batch, size] for size in sizes]}")
        h, c = native.float32(state[0]), native.float32(state[1]) if len(state) > 1 else None
        return h, c


class Stream:
    """Step-by-step use of a layer with all buffers made beforehand."""

    def __init__(self, layer: NativeLayer, batch: int) -> None:
        self.layer, self.batch = layer, batch
        self.h = torch.zeros(batch, layer.output_size, dtype=torch.float32)
        self.c = torch.zeros(batch, layer.hidden_size, dtype=torch.float32) if layer.weights.kind == "lstm" else None
        self._shape = (batch, layer.input_size)
        self._before = (layer.handle(batch), native.pool(layer.threads), 0, 1, batch)
        states = (*native.array(self.h), *native.array(self.c))
        self._after = (0, layer.input_size, *native.array(self.h), 0, layer.output_size, *states, *states)

    def step(self, x: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch outputs"]:
        """Advance by one step. The result is the stream's own `h`: the next step overwrites it."""
        if x.shape != self._shape or x.dtype != torch.float32 or not x.is_contiguous():
            raise UsageError(f"x is {x.dtype} {list(x.shape)}, expected contiguous float32 {list(self._shape)}")
        _native.layer_run(*self._before, x.data_ptr(), x.numel(), *self._after)
        return self.h


def _span(x: Tensor) -> tuple[int, int, int, int]:
    """Address, floats from the first element to the last, and the strides of T and B."""
    time, batch, features = x.shape
    span = (time - 1) * x.stride(0) + (batch - 1) * x.stride(1) + features
    return x.data_ptr(), span, x.stride(0), x.stride(1)

"""Whole recurrent layers on the triton engine: one direction of one layer, packed once, run many times.

T time, B batch, P the batch padded to a power of two, I input, H hidden, G gates, W steps of a window. Sequences are
[T, B, I], states [B, H], as in torch; there is no projection.

A sequence runs window by window. The input product of a window comes first, as one product, dense or sparse, whichever
a measurement at first use finds faster. Then one launch per time step, in CUDA graphs of 1, 2, 4 ... W steps that find
their place through a counter in device memory, so that they serve any length. The buffers of a batch size belong to the
layer: use it on one stream at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from rnnprune.architecture import GATES
from rnnprune.errors import UsageError
from rnnprune.kernels.csr import Csr, csr_to_dense
from rnnprune.kernels.cuda_graph import Captured, Clock, clock_of
from rnnprune.kernels.native_layer import LayerWeights, State
from rnnprune.kernels.triton_engine import (
    Variant,
    arrays,
    constants,
    multiply,
    name_of,
    pack_matrix,
    padded_batch,
    power_of_two,
    require_triton,
    tile_of,
)

LONGEST_WINDOW = 256  # steps, also of a graph
WINDOW_BYTES = 64 * 2**20  # of the buffers of a window: more than that falls out of the L2 cache
FEWEST_DENSE_COLUMNS = 16  # below, a dense input product cannot win, and its weights need not be there
MOST_ELEMENTS = 2**31 - 1  # of one frame: the kernels count them in int32


class InputProduct:
    """gates_x [G H, columns] = W_ih x + bias, sparse or dense; `choices` tells which, by columns."""

    def __init__(self, csr: Csr, bias: Tensor, variant: Variant, device: torch.device) -> None:
        self.csr, self.variant = csr, variant
        self.packed, self.bias = pack_matrix(csr, 1, variant, device), bias
        self.choices: dict[int, str] = {}
        self._weight: Tensor | None = None

    def __call__(self, x: Float[Tensor, "inputs n"], out: Float[Tensor, "gates n"], clock: Clock | None) -> None:
        """Without a clock: what was chosen before, else sparse."""
        bucket = power_of_two(x.shape[1])
        if bucket not in self.choices and clock is not None and bucket >= FEWEST_DENSE_COLUMNS:
            self.choices[bucket] = self._faster(x, out, clock)
        if self.choices.get(bucket) == "dense":
            self.dense(x, out)
        else:
            self.sparse(x, out)

    def sparse(self, x: Tensor, out: Tensor) -> None:
        """With the triton kernel."""
        multiply(self.packed, x, out, self.bias, self.variant.warps)

    def dense(self, x: Tensor, out: Tensor) -> None:
        """With torch, in float32; torch's own settings decide about tf32."""
        if self._weight is None:
            self._weight = csr_to_dense(self.csr).to(self.bias)
        torch.addmm(self.bias.unsqueeze(1), self._weight, x, out=out)

    def _faster(self, x: Tensor, out: Tensor, clock: Clock) -> str:
        sparse, dense = clock(lambda: self.sparse(x, out)), clock(lambda: self.dense(x, out))
        if dense < sparse:
            return "dense"
        if "dense" not in self.choices.values():
            self._weight = None
        return "sparse"


class Workspace:
    """The buffers of one padded batch, and the graphs that work on them.

    frames [W + 1, H, P]: h before the window and after each step; cell [H, P]; inputs [I, W P]; gates_x [G H, W P].
    """

    def __init__(self, layer: TritonLayer, batch: int) -> None:
        self.layer, self.batch = layer, batch
        per_step = 4 * batch * (layer.input_size + layer.gates * layer.hidden_size + layer.hidden_size)
        self.window = 1 << (min(LONGEST_WINDOW, max(1, WINDOW_BYTES // per_step)).bit_length() - 1)
        if max(layer.hidden_size, layer.input_size) * batch * self.window > MOST_ELEMENTS:
            raise UsageError(f"a batch of {batch} with {layer.hidden_size} units is too large for the triton engine")
        zeros, columns = partial(torch.zeros, device=layer.device), self.window * batch
        self.inputs = zeros(layer.input_size, columns)
        self.gates_x = zeros(layer.gates * layer.hidden_size, columns)
        self.frames = zeros(self.window + 1, layer.hidden_size, batch)
        self.cell = zeros(layer.hidden_size, batch) if layer.weights.kind == "lstm" else None
        self.counter = zeros(1, dtype=torch.int32)
        self._graphs: dict[int, Captured] = {}
        self._single: Captured | None = None

    def graph(self, steps: int) -> Captured:
        """So many steps from where the counter stands."""
        if steps not in self._graphs:
            self._graphs[steps] = Captured(partial(self._advance, steps), self._whole_step, self.layer.device)
        return self._graphs[steps]

    def single(self) -> Captured:
        """Input product and one step, from the beginning of the window: all that a stream needs."""
        if self._single is None:
            self._single = Captured(self._whole_step, self._whole_step, self.layer.device)
        return self._single

    def _whole_step(self) -> None:
        self.counter.zero_()  # also because a warm-up may find it at the end of the window
        self.layer.input_product.sparse(self.inputs[:, : self.batch], self.gates_x[:, : self.batch])
        self.layer.launch(self, 0)

    def _advance(self, steps: int) -> None:
        for step in range(steps):
            self.layer.launch(self, step)
        self.counter.add_(steps)


class TritonLayer:
    """A prepared layer on a GPU. UsageError for a projection, without triton or without a GPU."""

    def __init__(
        self, weights: LayerWeights, device: torch.device, variant: Variant | None = None, clock: Clock | None = None
    ) -> None:
        require_triton(device)
        if weights.weight_hr is not None:
            raise UsageError("the triton engine has no LSTM with a projection; use another engine")
        self.weights, self.variant = weights, variant or Variant()
        self.gates, self.hidden_size = len(GATES[weights.kind]), weights.weight_hh.shape[1]
        self.input_size = weights.weight_ih.shape[1]
        self.recurrent = pack_matrix(weights.weight_hh, self.gates, self.variant, device)
        self.device = self.recurrent.values.device  # cuda:0 where cuda was said
        self.input_product = InputProduct(weights.weight_ih, self._input_bias(), self.variant, device)
        self._bias_n = self._bias(weights.bias_hh)[-self.hidden_size :].contiguous()
        self._clock, self._workspaces = clock, dict[int, Workspace]()
        self._launch = self._launcher()

    def runs(self, batch: int) -> str:  # noqa: ARG002 - one layout serves every batch
        """The layout and the values of weight_hh, as a benchmark row names them."""
        return name_of(self.recurrent)

    @property
    def nbytes(self) -> int:
        """Bytes of the packed matrices."""
        return self.recurrent.nbytes + self.input_product.packed.nbytes

    def run(
        self,
        x: Float[Tensor, "time batch inputs"],
        state: State | None = None,
        reverse: bool = False,
        out: Float[Tensor, "time batch hidden"] | None = None,
    ) -> tuple[Float[Tensor, "time batch hidden"], State]:
        """The outputs of every step, in the order of x, and the final state. `out` may be half of a wider tensor."""
        self._check(x)
        time, batch, _ = x.shape
        y = x.new_empty(time, batch, self.hidden_size) if out is None else out
        with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
            space = self.workspace(batch)
            lengths = _windows(time, space.window)
            calls = {length: self._calls(space, length) for length in dict.fromkeys(lengths)}  # captured before use
            self._load(space, state, batch)
            x, ordered = (x.flip(0), y.new_empty(y.shape)) if reverse else (x, y)
            first = 0
            for length in lengths:
                last = first + length
                self._fill(space, x[first:last])
                for call in calls[length]:
                    call()
                ordered[first:last] = space.frames[1 : length + 1, :, :batch].transpose(1, 2)
                space.frames[0] = space.frames[length]
                first = last
            if reverse:
                y.copy_(ordered.flip(0))
            return y, self._state(space, batch)

    def workspace(self, batch: int) -> Workspace:
        """The buffers for this batch and those that are padded alike, made at first use."""
        padded = padded_batch(batch)
        if padded not in self._workspaces:
            with torch.inference_mode(False):  # or the buffers could not be written outside inference mode
                self._workspaces[padded] = Workspace(self, padded)
        return self._workspaces[padded]

    def launch(self, space: Workspace, step: int) -> None:
        """One kernel: step `step` after where the counter stands."""
        tile = tile_of(self.recurrent, space.batch, self.variant.warps)
        tiles = space.batch // tile.batch
        self._launch(
            (len(self.recurrent.owned), tiles), (space.counter, step, space.gates_x, space.frames), space.cell,
            (*arrays(self.recurrent), self.hidden_size, tiles, space.gates_x.stride(0)),
            constants(self.recurrent, tile),
        )  # fmt: skip

    def _launcher(self) -> Callable[..., None]:
        """What starts the kernel of this kind of layer."""
        from rnnprune.kernels import triton_kernels as kernels  # here, because triton is optional and slow to import

        if self.weights.kind == "lstm":
            return lambda grid, head, cell, tail, sizes: kernels.lstm_step[grid](*head, cell, *tail, **sizes)
        if self.weights.kind == "gru":
            return lambda grid, head, _, tail, sizes: kernels.gru_step[grid](*head, self._bias_n, *tail, **sizes)
        relu = self.weights.nonlinearity == "relu"
        return lambda grid, head, _, tail, sizes: kernels.rnn_step[grid](*head, *tail, RELU=relu, **sizes)

    def _calls(self, space: Workspace, length: int) -> list[Callable[[], object]]:
        """The work of a window of this length, its inputs being there."""
        if length == 1:
            return [space.single()]
        columns = length * space.batch
        x, gates = space.inputs[:, :columns], space.gates_x[:, :columns]
        steps = [space.graph(1 << bit) for bit in reversed(range(length.bit_length())) if length >> bit & 1]
        return [space.counter.zero_, lambda: self.input_product(x, gates, self._clock or clock_of(self.device)), *steps]

    def _fill(self, space: Workspace, x: Tensor) -> None:
        length, batch, _ = x.shape
        space.inputs.view(self.input_size, -1, space.batch)[:, :length, :batch] = x.permute(2, 0, 1)

    def _load(self, space: Workspace, state: State | None, batch: int) -> None:
        buffers, shape = _states(space), (batch, self.hidden_size)
        if state is not None and [tuple(part.shape) for part in state] != [shape] * len(buffers):
            found = [list(part.shape) for part in state]
            raise UsageError(f"state has shapes {found}, expected {len(buffers)} of {list(shape)}")
        for buffer, part in zip(buffers, state or [None] * len(buffers), strict=True):
            buffer[:, :batch] = 0.0 if part is None else part.T

    def _state(self, space: Workspace, batch: int) -> State:
        return tuple(buffer[:, :batch].T.clone(memory_format=torch.contiguous_format) for buffer in _states(space))

    def _check(self, x: Tensor) -> None:
        fits = x.dtype == torch.float32 and x.device == self.device and x.ndim == 3 and x.shape[2] == self.input_size
        if not fits or x.numel() == 0:
            found = f"x is {x.dtype} {list(x.shape)} on {x.device}"
            raise UsageError(f"{found}, expected float32 [T, B, {self.input_size}] on {self.device}, no size zero")

    def _bias(self, bias: Tensor | None) -> Tensor:
        zeros = torch.zeros(self.gates * self.hidden_size, device=self.device)
        return zeros if bias is None else zeros + bias.detach().to(zeros)

    def _input_bias(self) -> Tensor:
        """b_ih + b_hh, but for the part of b_hh that a GRU keeps inside the reset product."""
        bias_hh = self._bias(self.weights.bias_hh)
        if self.weights.kind == "gru":
            bias_hh[-self.hidden_size :] = 0.0
        return self._bias(self.weights.bias_ih) + bias_hh


def _states(space: Workspace) -> tuple[Tensor, ...]:
    return (space.frames[0],) if space.cell is None else (space.frames[0], space.cell)


def _windows(time: int, longest: int) -> list[int]:
    """300 -> 256, 44."""
    return [min(longest, time - first) for first in range(0, time, longest)]

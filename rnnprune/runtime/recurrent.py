"""The sparse twin of nn.RNN, nn.GRU and nn.LSTM: one class, because the kind matters to the engine alone.

T time, B batch, I input, H hidden, P projection, O output (P or H), L layers, D directions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from rnnprune.architecture import Kind
from rnnprune.errors import UsageError
from rnnprune.kernels.native_layer import LayerWeights, NativeLayer, State
from rnnprune.runtime.direct import DirectCall
from rnnprune.runtime.engines import Runner, layout_of, make_runner
from rnnprune.runtime.frames import Frames, run_direction, stretches_of
from rnnprune.runtime.twin import Choice, SparseTwin
from rnnprune.runtime.weights import SparseWeight

Hidden = Tensor | tuple[Tensor, Tensor] | None


class Stack(NamedTuple):
    """The runners of each layer, one per direction, and the short way in where the engine has one."""

    runners: list[list[Runner]]
    direct: DirectCall | None


class SparseRecurrent(SparseTwin[Stack]):
    """Called as the layer it stands in for, and answering in the same shapes; its attributes have torch's names.

    Input: float32 [T, B, I], [B, T, I] with batch_first, [T, I] without a batch, or a PackedSequence. Hidden state: h
    [L D, B, O], for an LSTM (h, c) with c [L D, B, H]; zeros when None. Raises UsageError for anything else, in
    training mode, and for an input that requires a gradient. Dropout between layers is that of eval mode: none.
    """

    def __init__(
        self,
        dense: nn.RNNBase,
        tensors: Mapping[str, SparseWeight | nn.Parameter | None],
        choice: Choice,
        threads: int,
    ) -> None:
        super().__init__(dense, choice, threads)
        self.mode, self.input_size, self.hidden_size = dense.mode, dense.input_size, dense.hidden_size
        self.num_layers, self.bias, self.batch_first = dense.num_layers, dense.bias, dense.batch_first
        self.dropout, self.bidirectional, self.proj_size = dense.dropout, dense.bidirectional, dense.proj_size
        self.kind: Kind = {"LSTM": "lstm", "GRU": "gru"}.get(dense.mode, "rnn")  # type: ignore[assignment]
        self.nonlinearity: Literal["tanh", "relu"] = "relu" if dense.mode == "RNN_RELU" else "tanh"
        self.output_size: int = dense.proj_size or dense.hidden_size
        self.hold(tensors)

    def pack(self) -> Stack:
        """One runner per layer and direction."""
        ends = ("", "_reverse") if self.bidirectional else ("",)
        runners = [
            [
                make_runner(self._weights(f"_l{layer}{end}"), self.choice.engine, self.threads, self.device)
                for end in ends
            ]
            for layer in range(self.num_layers)
        ]
        layers = [[runner for runner in layer if isinstance(runner, NativeLayer)] for layer in runners]
        return Stack(runners, DirectCall(layers, self.batch_first) if self.choice.engine == "native" else None)

    @property
    def layout(self) -> str:
        """Of the first layer's recurrent matrix."""
        return layout_of(self.packed.runners[0][0])

    def forward(self, input: Tensor | PackedSequence, hx: Hidden = None) -> tuple[Any, Any]:
        """Output and final state, as torch.nn.LSTM, GRU or RNN give them."""
        direct = self.packed.direct
        if direct is not None and not self.training and (found := direct(input, hx)) is not None:
            return found
        if isinstance(input, PackedSequence):
            return self._forward_packed(input, hx)
        self.check_input(input, self.input_size)
        if input.ndim not in (2, 3) or input.numel() == 0:
            raise UsageError(
                f"{self.name}: input has shape {list(input.shape)}, expected [T, B, I], [B, T, I] with "
                "batch_first, or [T, I], no size of them zero"
            )
        has_batch = input.ndim == 3
        x = (input if has_batch else input.unsqueeze(1)).float()
        frames = Frames(x.transpose(0, 1) if has_batch and self.batch_first else x)
        output, state = self._run(frames, self._state(hx, frames.batch, has_batch))
        if not has_batch:
            return output.squeeze(1), self._hidden(tuple(part.squeeze(1) for part in state))
        return output.transpose(0, 1) if self.batch_first else output, self._hidden(state)

    def flatten_parameters(self) -> None:
        """Nothing to flatten; here because models call it."""

    def extra_repr(self) -> str:
        """Sizes and engine, for print(module)."""
        label = f"{self.mode}, {self.input_size}, {self.hidden_size}, num_layers={self.num_layers}"
        return f"{label}, bidirectional={self.bidirectional}, engine={self.choice.engine}"

    def _forward_packed(self, input: PackedSequence, hx: Hidden) -> tuple[PackedSequence, Any]:
        data, batch_sizes, sorted_indices, unsorted_indices = input
        self.check_input(data, self.input_size)
        frames = Frames(data.float(), stretches_of(batch_sizes.tolist()))
        state = self._state(hx, frames.batch, has_batch=True)
        if hx is not None and sorted_indices is not None:
            state = tuple(part.index_select(1, sorted_indices) for part in state)
        output, state = self._run(frames, state)
        if unsorted_indices is not None:
            state = tuple(part.index_select(1, unsorted_indices) for part in state)
        return PackedSequence(output, batch_sizes, sorted_indices, unsorted_indices), self._hidden(state)

    def _run(self, frames: Frames, state: State) -> tuple[Tensor, State]:
        """All layers. `state` and the state returned: each part [L D, B, ...]."""
        ends: list[State] = []
        for runners in self.packed.runners:
            outputs = frames.empty_like(self.output_size * len(runners))
            xs = frames.pieces()
            for direction, runner in enumerate(runners):
                ys = outputs.pieces(direction * self.output_size, self.output_size)
                before = tuple(part[len(ends)] for part in state)
                ends.append(run_direction(runner, xs, ys, before, reverse=direction == 1))
            frames = outputs
        last = (torch.stack(parts).to(self.dtype) for parts in zip(*ends, strict=True))
        return frames.data.to(self.dtype), tuple(last)

    def _weights(self, end: str) -> LayerWeights:
        return LayerWeights(
            kind=self.kind,
            weight_ih=self.csr_of(f"weight_ih{end}"),
            weight_hh=self.csr_of(f"weight_hh{end}"),
            bias_ih=self.bias_of(f"bias_ih{end}"),
            bias_hh=self.bias_of(f"bias_hh{end}"),
            weight_hr=self.csr_of(f"weight_hr{end}") if self.proj_size else None,
            nonlinearity=self.nonlinearity,
        )

    def _state(self, hx: Hidden, batch: int, has_batch: bool) -> State:
        """The caller's state with a batch dimension, checked; zeros where there is none."""
        count = self.num_layers * (1 + self.bidirectional)
        sizes = (self.output_size, self.hidden_size) if self.kind == "lstm" else (self.output_size,)
        if hx is None:
            return tuple(torch.zeros(count, batch, size, device=self.device) for size in sizes)
        shapes = [(count, batch, size) if has_batch else (count, size) for size in sizes]
        state = self.check_state(hx, shapes)
        return tuple((part if has_batch else part.unsqueeze(1)).float().contiguous() for part in state)

    def _hidden(self, state: State) -> Any:
        return state if self.kind == "lstm" else state[0]

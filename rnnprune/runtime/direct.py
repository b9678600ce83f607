"""The short way into the native engine for plain tensors: what a streaming caller pays at every step.

A step of an LSTM with 256 units is about 10 us of work and an operation of torch costs about 1 us, so this path makes
the tensors it returns and nothing else: the parts of a stacked state and the halves of a wider output are reached by
their addresses, which follow from shapes that have been checked.

T time, B batch, I input, O output (P with a projection, else H), H hidden, L layers, D directions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rnnprune.kernels import native
from rnnprune.kernels.native_layer import NativeLayer

if native.unavailable_reason() is None:
    from rnnprune.kernels import _native

FLOAT_BYTES = 4


class Sizes(NamedTuple):
    """Of one call."""

    time: int
    batch: int
    batch_first: bool

    def strides(self, features: int) -> tuple[int, int]:
        """Floats from step to step and from sequence to sequence in a contiguous tensor."""
        return (features, self.time * features) if self.batch_first else (self.batch * features, features)


class DirectCall:
    """Runs whole calls whose tensors are plain: contiguous float32 on the CPU, no gradient, shapes that fit."""

    def __init__(self, layers: Sequence[Sequence[NativeLayer]], batch_first: bool = False) -> None:
        first = layers[0][0]
        self.layers, self.batch_first = layers, batch_first
        self.input_size, self.output_size, self.hidden_size = first.input_size, first.output_size, first.hidden_size
        self.is_lstm = first.weights.kind == "lstm"
        self.directions, self.parts = len(layers[0]), sum(len(layer) for layer in layers)
        self.threads = first.threads
        self._handles: dict[int, list[list[object]]] = {}

    def sequence(self, x: Any, hx: Any) -> tuple[Tensor, Any] | None:
        """Output and state for x [T, B, I] (or batch first); None for any other call, and then nothing was done."""
        if type(x) is not Tensor or x.ndim != 3 or not _is_plain(x):
            return None
        outer, inner, features = x.shape
        sizes = Sizes(inner, outer, True) if self.batch_first else Sizes(outer, inner, False)
        h, c = hx if self.is_lstm and type(hx) is tuple and len(hx) == 2 else (hx, None)
        if features != self.input_size or not outer or not inner or not self._fits(h, c, (self.parts, sizes.batch)):
            return None
        h_n = torch.empty(self.parts, sizes.batch, self.output_size)
        c_n = torch.empty(self.parts, sizes.batch, self.hidden_size) if self.is_lstm else None
        handles = self._handles.get(sizes.batch) or self._prepare(sizes.batch)
        done = 0
        for layer in handles:
            y = torch.empty(outer, inner, self.output_size * self.directions)
            for handle in layer:
                self._run(handle, sizes, (x, y), (h, c, h_n, c_n), done)
                done += 1
            x = y
        return x, h_n if c_n is None else (h_n, c_n)

    def step(self, x: Any, hx: Any) -> Any:
        """The new state of a cell for x [B, I]; None for any other call, and then nothing was done."""
        if type(x) is not Tensor or x.ndim != 2 or not _is_plain(x):
            return None
        batch, features = x.shape
        h, c = hx if self.is_lstm and type(hx) is tuple and len(hx) == 2 else (hx, None)
        if features != self.input_size or not batch or not self._fits(h, c, (batch,)):
            return None
        h_n = torch.empty(batch, self.output_size)
        c_n = torch.empty(batch, self.hidden_size) if self.is_lstm else None
        handles = self._handles.get(batch) or self._prepare(batch)
        self._run(handles[0][0], Sizes(1, batch, False), (x, h_n), (h, c, h_n, c_n), 0)
        return h_n if c_n is None else (h_n, c_n)

    def _run(
        self, handle: object, sizes: Sizes, frames: tuple[Tensor, Tensor], state: tuple[Any, ...], done: int
    ) -> None:
        """One direction of one layer, the one after `done` others."""
        (time, batch, _), (x, y), (h, c, h_n, c_n) = sizes, frames, state
        direction = done % self.directions
        first, per_h, per_c = direction * self.output_size, batch * self.output_size, batch * self.hidden_size
        _native.layer_run(
            handle, native.pool(self.threads), direction, time, batch,
            x.data_ptr(), x.numel(), *sizes.strides(x.shape[-1]),
            y.data_ptr() + FLOAT_BYTES * first, y.numel() - first, *sizes.strides(y.shape[-1]),
            *_part(h, per_h, done), *_part(c, per_c, done), *_part(h_n, per_h, done), *_part(c_n, per_c, done),
        )  # fmt: skip

    def _prepare(self, batch: int) -> list[list[object]]:
        self._handles[batch] = [[layer.handle(batch) for layer in directions] for directions in self.layers]
        return self._handles[batch]

    def _fits(self, h: Any, c: Any, lead: tuple[int, ...]) -> bool:
        if h is None:
            return c is None
        if not _is_state(h, (*lead, self.output_size)):
            return False
        return _is_state(c, (*lead, self.hidden_size)) if self.is_lstm else True


def _part(stacked: Tensor | None, length: int, done: int) -> tuple[int, int]:
    """Address and length of one layer's part of a stacked state; nothing for None, which means zeros."""
    return (0, 0) if stacked is None else (stacked.data_ptr() + FLOAT_BYTES * length * done, length)


def _is_plain(x: Tensor) -> bool:
    if x.requires_grad and torch.is_grad_enabled():
        return False
    return x.dtype is torch.float32 and x.is_cpu and x.is_contiguous()


def _is_state(part: Any, shape: tuple[int, ...]) -> bool:
    return type(part) is Tensor and part.shape == shape and _is_plain(part)

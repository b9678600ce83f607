"""The short way into the native engine for plain tensors: what a streaming caller pays at every step.

A step of an LSTM with 256 units is about 10 us of work and an operation of torch costs about 1 us, so this path makes
the tensors it returns and nothing else: the parts of a stacked state and the halves of a wider output are reached by
their addresses, which follow from shapes that have been checked. What the shapes decide is kept for the next call.

T time, B batch, I input, O output (P with a projection, else H), H hidden, L layers, D directions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rnnprune.kernels import native
from rnnprune.kernels.native_layer import NativeLayer

if native.unavailable_reason() is None:
    from rnnprune.kernels import _native

FLOAT = torch.float32
FLOAT_BYTES = 4
new = partial(torch.empty, dtype=FLOAT, device=torch.device("cpu"))  # torch's defaults may be others

Span = tuple[int, int, int]  # a sequence: its length, floats to the next step, floats to the next batch entry
# One direction of one layer: its handle; direction, T, B; x; the first byte of its half of y, that half; the first byte
# of its part of h and the length of that; the same of c. A plain tuple, because named ones take long to unpack.
Pass = tuple[object, tuple[int, int, int], Span, int, Span, int, int, int, int]


class Plan(NamedTuple):
    """Calls of one shape: those of their tensors (`y`: of each layer's output), and their passes layer by layer."""

    x: tuple[int, ...]
    y: tuple[int, ...]
    h: tuple[int, ...]
    c: tuple[int, ...]
    layers: list[list[Pass]]


class DirectCall:
    """Runs whole calls whose tensors are plain: contiguous float32 on the CPU, no gradient, shapes that fit.

    x is [T, B, I] (or batch first) with states [L D, B, O or H]; of a cell [B, I] with states [B, H].
    """

    def __init__(self, layers: Sequence[Sequence[NativeLayer]], batch_first: bool = False, cell: bool = False) -> None:
        self.layers, self.batch_first, self.cell = layers, batch_first, cell
        self.is_lstm, self.threads = layers[0][0].weights.kind == "lstm", layers[0][0].threads
        self._plan = Plan((-1,), (), (), (), [])  # of the last call; no input has such a shape

    def __call__(self, x: Any, hx: Any) -> tuple[Tensor, Any] | None:
        """Output and state, one tensor for a cell's h; None for any other call, and then nothing was done."""
        last = self._plan  # read once: another thread may call with other shapes
        plan = last if _is_plain(x, last.x) else self._planned(x)
        h, c = hx if self.is_lstm and type(hx) is tuple and len(hx) == 2 else (hx, None)
        if plan is None or not self._is_state(h, c, plan):
            return None
        if h is None:
            h_n, c_n = new(*plan.h), new(*plan.c) if self.is_lstm else None
        else:  # the same, in less time
            h_n, c_n = torch.empty_like(h), None if c is None else torch.empty_like(c)
        states = (_address(h), _address(c), h_n.data_ptr(), _address(c_n))
        for layer in plan.layers:
            y = h_n if self.cell else new(*plan.y)
            self._run(layer, x.data_ptr(), y.data_ptr(), states)
            x = y
        return x, h_n if c_n is None else (h_n, c_n)

    def _run(self, layer: list[Pass], x: int, y: int, states: tuple[int, int, int, int]) -> None:
        """Everything by address; to C, a state at 0 is zeros, whatever its length."""
        pool, (h, c, h_n, c_n) = native.pool(self.threads), states
        for handle, (direction, time, batch), x_span, y_at, y_span, h_at, h_length, c_at, c_length in layer:
            (x_length, x_step, x_batch), (y_length, y_step, y_batch) = x_span, y_span
            _native.layer_run(
                handle, pool, direction, time, batch,
                x, x_length, x_step, x_batch, y + y_at, y_length, y_step, y_batch,
                h and h + h_at, h_length, c and c + c_at, c_length,
                h_n + h_at, h_length, c_n and c_n + c_at, c_length,
            )  # fmt: skip

    def _is_state(self, h: Any, c: Any, plan: Plan) -> bool:
        if h is None:
            return c is None
        return _is_plain(h, plan.h) and (not self.is_lstm or _is_plain(c, plan.c))

    def _planned(self, x: Any) -> Plan | None:
        """The plan for calls like this one, kept for the next; None for a call that is not plain."""
        first = self.layers[0][0]
        if type(x) is not Tensor or x.ndim != (2 if self.cell else 3) or x.shape[-1] != first.input_size:
            return None
        lead = tuple(x.shape[:-1])
        if x.numel() == 0 or not _is_plain(x, (*lead, first.input_size)):
            return None
        batch = lead[0] if self.batch_first or self.cell else lead[1]
        directions = len(self.layers[0])
        ends = (batch,) if self.cell else (len(self.layers) * directions, batch)
        plan = Plan(
            x=(*lead, first.input_size),
            y=(*lead, first.output_size * directions),
            h=(*ends, first.output_size),
            c=(*ends, first.hidden_size),
            layers=[self._passes(number, math.prod(lead) // batch, batch) for number in range(len(self.layers))],
        )
        self._plan = plan
        return plan

    def _passes(self, number: int, time: int, batch: int) -> list[Pass]:
        """Of the layer of this number."""
        passes: list[Pass] = []
        directions = len(self.layers[number])
        for direction, layer in enumerate(self.layers[number]):
            done, first = number * directions + direction, direction * layer.output_size
            h, c = batch * layer.output_size, batch * layer.hidden_size
            x, y = (self._span(time, batch, width) for width in (layer.input_size, directions * layer.output_size))
            passes.append((
                layer.handle(batch), (direction, time, batch), x, FLOAT_BYTES * first, (y[0] - first, y[1], y[2]),
                FLOAT_BYTES * done * h, h, FLOAT_BYTES * done * c, c,
            ))  # fmt: skip
        return passes

    def _span(self, time: int, batch: int, features: int) -> Span:
        """Of a contiguous tensor."""
        strides = (features, time * features) if self.batch_first else (batch * features, features)
        return (time * batch * features, *strides)


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _is_plain(x: Any, shape: tuple[int, ...]) -> bool:
    return (
        type(x) is Tensor
        and x.shape == shape
        and x.dtype is FLOAT
        and x.is_cpu
        and x.is_contiguous()
        and not (x.requires_grad and torch.is_grad_enabled())
    )

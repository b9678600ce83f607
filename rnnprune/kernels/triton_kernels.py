"""The Triton kernels: a sparse product, and one time step of a recurrent layer in one launch.

U units per program, K entries of a row at a time, B columns of the batch per program. Tiles are [U, K] at B = 1, else
[U, K, B]; sums are [U, B]. All sizes of tiles are powers of two. C: columns of a block, 0 for single weights. WORDS:
how a value shares 32 bits with its column: 0 not at all, 1 as float16, 2 as bfloat16. The arrays are those of
triton_pack.py. Import this module only where triton is installed.

What holds on hardware and no interpreter shows:

- A launch sees what the launches before it wrote, and nothing orders the programs of one launch. So a step reads h from
  frame t and writes frame t + 1; c is read and written in place, each element by the program that owns its unit.
- t is a counter in device memory plus `step`, which a CUDA graph fixes; the counter moves on by a launch of its own.
- Entries fit in int32 (checked when packing); offsets that grow with time or columns are int64.
- uint16 columns become int32 before any arithmetic. tanh comes from exp, which all versions of Triton have.
- There is no tl.dot: its smallest tiles are larger than a thin batch.
- Triton reads the source of these functions, so no tool may wrap them: hence `no_type_check`.
"""
# ruff: noqa: N803, PLR0917, RET505
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, import-not-found, import-untyped"

from __future__ import annotations

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def _tanh(x):
    """Below 0.625 a polynomial, so that small values keep their digits; above, from exp. 9e-8 relative."""
    s = x * x
    p = (((-0.00610495 * s + 0.02100366) * s - 0.0538525) * s + 0.13332782) * s - 0.33333329
    e = tl.exp(-2.0 * tl.abs(x))
    far = (1.0 - e) / (1.0 + e)
    return tl.where(tl.abs(x) < 0.625, x + x * s * p, tl.where(x < 0, -far, far))


@triton.jit
@no_type_check
def _sigmoid(x):
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
@no_type_check
def _span(spans, index, U: tl.constexpr, C: tl.constexpr):
    """Where the spans of a gate begin, and their widths: [U, 1], of blocks one for all.

    Multiplied out here, so that the compiler knows what divides them.
    """
    if C > 0:
        return tl.load(spans + 2 * index) * (8 * U), tl.load(spans + 2 * index + 1) * 8
    else:  # the compiler wants it, or both branches have to agree in their shapes
        at = 2 * (index * U + tl.arange(0, U))[:, None]
        return tl.load(spans + at) * 8, tl.load(spans + at + 1) * 8


@triton.jit
@no_type_check
def _entries(
    values, columns, start, width, first, U: tl.constexpr, K: tl.constexpr, C: tl.constexpr, WORDS: tl.constexpr
):
    """K entries of U rows from `first` on: values, columns, and which of them are there."""
    k = first + tl.arange(0, K)[None, :]
    there = k < width
    if C > 0:
        u = tl.arange(0, U)[:, None]
        block = tl.load(columns + start // (U * C) + k // C, mask=there, other=0).to(tl.int32)
        column = block * C + k % C
        value = tl.load(values + start + k * U + u, mask=there, other=0.0).to(tl.float32)
    elif WORDS == 0:
        column = tl.load(columns + start + k, mask=there, other=0).to(tl.int32)
        value = tl.load(values + start + k, mask=there, other=0.0).to(tl.float32)
    else:
        word = tl.load(values + start + k, mask=there, other=0)
        if WORDS == 1:
            column = (word >> 16) & 0xFFFF
            value = (word & 0xFFFF).to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
        else:
            column = word & 0xFFFF
            value = (word & -65536).to(tl.float32, bitcast=True)
    return value, column, there


@triton.jit
@no_type_check
def _times(value, column, there, x, stride, B: tl.constexpr):
    """value x[column], for x with rows of B numbers, `stride` apart."""
    if B == 1:
        return value * tl.load(x + column * stride, mask=there, other=0.0)
    else:
        at = (column * stride)[:, :, None] + tl.arange(0, B)[None, None, :]
        return value[:, :, None] * tl.load(x + at, mask=there[:, :, None], other=0.0)


@triton.jit
@no_type_check
def _part(
    values, columns, start, width, first, x, stride,
    U: tl.constexpr, K: tl.constexpr, B: tl.constexpr, C: tl.constexpr, WORDS: tl.constexpr,
):  # fmt: skip
    """K entries of U rows from `first` on, times x with rows of B numbers, `stride` apart."""
    value, column, there = _entries(values, columns, start, width, first, U, K, C, WORDS)
    return _times(value, column, there, x, stride, B)


@triton.jit
@no_type_check
def _nothing(U: tl.constexpr, K: tl.constexpr, B: tl.constexpr):
    if B == 1:
        return tl.zeros((U, K), tl.float32)
    else:
        return tl.zeros((U, K, B), tl.float32)


@triton.jit
@no_type_check
def _total(sums, B: tl.constexpr):
    """[U, B]."""
    if B == 1:
        return tl.sum(sums, 1)[:, None]
    else:
        return tl.sum(sums, 1)


@triton.jit
@no_type_check
def product(
    x, y, bias, values, columns, spans, longest, owned, rows, n, x_stride, y_stride,
    U: tl.constexpr, K: tl.constexpr, B: tl.constexpr, C: tl.constexpr, WORDS: tl.constexpr, BIAS: tl.constexpr,
):  # fmt: skip
    """y [rows, n] = A x [cols, n] + bias [rows]; rows of x and y are `stride` apart."""
    part = tl.program_id(0)
    b = tl.program_id(1).to(tl.int64) * B + tl.arange(0, B)
    start, width = _span(spans, part, U, C)
    sums = _nothing(U, K, B)
    for first in range(0, tl.load(longest + part) * 8, K):
        value, column, there = _entries(values, columns, start, width, first, U, K, C, WORDS)
        if B == 1:
            sums += _times(value, column, there, x, x_stride, B)
        else:
            at = column.to(tl.int64)[:, :, None] * x_stride + b[None, None, :]
            inside = there[:, :, None] & (b < n)[None, None, :]
            sums += value[:, :, None] * tl.load(x + at, mask=inside, other=0.0)
    row = tl.load(owned + part * U + tl.arange(0, U))
    total = _total(sums, B)
    if BIAS:
        total += tl.load(bias + row, mask=row < rows, other=0.0)[:, None]
    at = row.to(tl.int64)[:, None] * y_stride + b[None, :]
    tl.store(y + at, total, mask=(row < rows)[:, None] & (b < n)[None, :])


@triton.jit
@no_type_check
def _place(counter, step, frames, owned, hidden, tiles, U: tl.constexpr, B: tl.constexpr):
    """This program's time step, its units [U], which are real [U, 1], its elements [U, B] of a frame [H, tiles B], the
    frame to read, and where in it this program's columns begin."""
    t = tl.load(counter).to(tl.int64) + step
    unit = tl.load(owned + tl.program_id(0) * U + tl.arange(0, U))
    b = tl.program_id(1) * B + tl.arange(0, B)
    mine = unit[:, None] * (tiles * B) + b[None, :]
    before = frames + t * hidden * (tiles * B)
    return t, unit, (unit < hidden)[:, None], mine, before, before + tl.program_id(1) * B


@triton.jit
@no_type_check
def _input(gates_x, gate, unit, hidden, stride, t, tiles, real, B: tl.constexpr):
    """[U, B]: what the input gives to this gate at time t, from [G H, stride]."""
    b = tl.program_id(1) * B + tl.arange(0, B)
    at = (gate * hidden + unit).to(tl.int64)[:, None] * stride + t * (tiles * B) + b[None, :]
    return tl.load(gates_x + at, mask=real, other=0.0)


@triton.jit(do_not_specialize=["step"])
@no_type_check
def rnn_step(
    counter, step, gates_x, frames, values, columns, spans, longest, owned, hidden, tiles, stride,
    U: tl.constexpr, K: tl.constexpr, B: tl.constexpr, C: tl.constexpr, WORDS: tl.constexpr, RELU: tl.constexpr,
):  # fmt: skip
    """h' = act(x + W_hh h); frames [T + 1, H, tiles B] hold h before and after each step."""
    t, unit, real, mine, before, h = _place(counter, step, frames, owned, hidden, tiles, U, B)
    gate = _input(gates_x, 0, unit, hidden, stride, t, tiles, real, B)
    start, width = _span(spans, tl.program_id(0), U, C)
    sums = _nothing(U, K, B)
    for first in range(0, tl.load(longest + tl.program_id(0)) * 8, K):
        sums += _part(values, columns, start, width, first, h, tiles * B, U, K, B, C, WORDS)
    gate += _total(sums, B)
    new = tl.where(gate < 0, 0.0, gate) if RELU else _tanh(gate)  # NaN stays NaN
    tl.store(before + hidden * (tiles * B) + mine, new, mask=real)


@triton.jit(do_not_specialize=["step"])
@no_type_check
def gru_step(
    counter, step, gates_x, frames, bias_n, values, columns, spans, longest, owned, hidden, tiles, stride,
    U: tl.constexpr, K: tl.constexpr, B: tl.constexpr, C: tl.constexpr, WORDS: tl.constexpr,
):  # fmt: skip
    """r, z = sigmoid(x + W_hh h); n = tanh(x_n + r (W_hn h + b_hn)); h' = (1 - z) n + z h."""
    t, unit, real, mine, before, h = _place(counter, step, frames, owned, hidden, tiles, U, B)
    x_r = _input(gates_x, 0, unit, hidden, stride, t, tiles, real, B)
    x_z = _input(gates_x, 1, unit, hidden, stride, t, tiles, real, B)
    x_n = _input(gates_x, 2, unit, hidden, stride, t, tiles, real, B)
    b_n = tl.load(bias_n + unit, mask=unit < hidden, other=0.0)[:, None]
    old = tl.load(before + mine, mask=real, other=0.0)
    start_r, width_r = _span(spans, tl.program_id(0) * 3, U, C)
    start_z, width_z = _span(spans, tl.program_id(0) * 3 + 1, U, C)
    start_n, width_n = _span(spans, tl.program_id(0) * 3 + 2, U, C)
    r, z, n = _nothing(U, K, B), _nothing(U, K, B), _nothing(U, K, B)
    for first in range(0, tl.load(longest + tl.program_id(0)) * 8, K):
        r += _part(values, columns, start_r, width_r, first, h, tiles * B, U, K, B, C, WORDS)
        z += _part(values, columns, start_z, width_z, first, h, tiles * B, U, K, B, C, WORDS)
        n += _part(values, columns, start_n, width_n, first, h, tiles * B, U, K, B, C, WORDS)
    reset, update = _sigmoid(x_r + _total(r, B)), _sigmoid(x_z + _total(z, B))
    new = _tanh(x_n + reset * (_total(n, B) + b_n))
    tl.store(before + hidden * (tiles * B) + mine, (1.0 - update) * new + update * old, mask=real)


@triton.jit(do_not_specialize=["step"])
@no_type_check
def lstm_step(
    counter, step, gates_x, frames, cell, values, columns, spans, longest, owned, hidden, tiles, stride,
    U: tl.constexpr, K: tl.constexpr, B: tl.constexpr, C: tl.constexpr, WORDS: tl.constexpr,
):  # fmt: skip
    """c' = f c + i g; h' = o tanh(c'); cell [H, tiles B] holds c."""
    t, unit, real, mine, before, h = _place(counter, step, frames, owned, hidden, tiles, U, B)
    x_i = _input(gates_x, 0, unit, hidden, stride, t, tiles, real, B)
    x_f = _input(gates_x, 1, unit, hidden, stride, t, tiles, real, B)
    x_g = _input(gates_x, 2, unit, hidden, stride, t, tiles, real, B)
    x_o = _input(gates_x, 3, unit, hidden, stride, t, tiles, real, B)
    old = tl.load(cell + mine, mask=real, other=0.0)
    start_i, width_i = _span(spans, tl.program_id(0) * 4, U, C)
    start_f, width_f = _span(spans, tl.program_id(0) * 4 + 1, U, C)
    start_g, width_g = _span(spans, tl.program_id(0) * 4 + 2, U, C)
    start_o, width_o = _span(spans, tl.program_id(0) * 4 + 3, U, C)
    i, f, g, o = _nothing(U, K, B), _nothing(U, K, B), _nothing(U, K, B), _nothing(U, K, B)
    for first in range(0, tl.load(longest + tl.program_id(0)) * 8, K):
        i += _part(values, columns, start_i, width_i, first, h, tiles * B, U, K, B, C, WORDS)
        f += _part(values, columns, start_f, width_f, first, h, tiles * B, U, K, B, C, WORDS)
        g += _part(values, columns, start_g, width_g, first, h, tiles * B, U, K, B, C, WORDS)
        o += _part(values, columns, start_o, width_o, first, h, tiles * B, U, K, B, C, WORDS)
    enter, keep = _sigmoid(x_i + _total(i, B)), _sigmoid(x_f + _total(f, B))
    new = keep * old + enter * _tanh(x_g + _total(g, B))
    tl.store(cell + mine, new, mask=real)
    tl.store(before + hidden * (tiles * B) + mine, _sigmoid(x_o + _total(o, B)) * _tanh(new), mask=real)

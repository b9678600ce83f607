"""One bit for each weight, and the nonzeros: with up to 94 % of zeros less than the indices of CSR take.

For a matrix of shape [rows, cols], neither of them 0, with nnz nonzeros

    bits      [ceil(rows * cols / 8)]  uint8    element i, row by row, is bit i % 8 of byte i // 8, the lowest first;
                                                1 where it is stored; the last byte ends in zeros
    values    [nnz]                    float16, bfloat16, float32 or float64, finite; or int8, -127 up to 127; no zero
    scales    [rows]                   float32, with int8 values alone: value = int8 * scale of its row

Nothing runs in this form: `bitmask_to_csr` gives what the engines take. The form is canonical: one matrix in one dtype
has exactly one `Bitmask`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Shaped, UInt8
from torch import Tensor

from rnnprune.errors import InputRefused
from rnnprune.kernels.csr import VALUE_DTYPES, Array, Csr, csr_from_dense, shape_problem, value_problem
from rnnprune.kernels.int8 import in_int8, int8_problem, largest_of_rows

BITS = 8
COUNTED_AT_ONCE = 2**22  # bytes of bits that are unpacked at a time


@dataclass(frozen=True, eq=False)
class Bitmask:
    """A sparse matrix; build it with `bitmask_from_dense` or `bitmask_int8`, check foreign arrays with
    `bitmask_problem`."""

    bits: UInt8[Tensor, " bytes"]
    values: Shaped[Tensor, " nnz"]
    shape: tuple[int, int]
    scales: Float32[Tensor, " rows"] | None = None

    @property
    def dtype(self) -> torch.dtype:
        """Of the dense matrix: float32 where the values are int8."""
        return self.values.dtype if self.scales is None else self.scales.dtype

    @property
    def nnz(self) -> int:
        """Number of nonzeros."""
        return self.values.numel()

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays, in memory and in the file alike."""
        arrays = (self.bits, self.values, self.scales)
        return sum(array.numel() * array.element_size() for array in arrays if array is not None)

    @cached_property
    def begins(self) -> Array:
        """[rows + 1]: where each row's values begin. It is not stored."""
        return _begins(self.bits.numpy(), self.shape)


def bitmask_nbytes(shape: tuple[int, ...], nnz: int, value_itemsize: int, *, scaled: bool = False) -> int:
    """Bytes of the arrays of such a matrix, without building it; `scaled` with a float32 scale per row."""
    return -(-math.prod(shape) // BITS) + nnz * value_itemsize + (shape[0] * torch.float32.itemsize if scaled else 0)


def bitmask_from_dense(weight: Float[Tensor, "rows cols"]) -> Bitmask:
    """The nonzeros of a dense matrix on the CPU, row by row; -0.0 is a zero."""
    return _from_values(weight.detach())


def bitmask_int8(weight: Float32[Tensor, "rows cols"]) -> Bitmask:
    """The nearest matrix of int8 values with one scale per row, see `in_int8`; what rounds to zero is not stored."""
    values, scales = in_int8(weight)
    return _from_values(values, scales)


def bitmask_to_dense(bitmask: Bitmask) -> Float[Tensor, "rows cols"]:
    """The dense matrix, its int8 values multiplied out in float32; entries that are not stored are +0.0."""
    dense = torch.zeros(bitmask.shape, dtype=bitmask.values.dtype)
    stored = _unpacked(bitmask.bits.numpy(), 0, dense.numel()).view(bool)
    dense.view(-1)[torch.from_numpy(stored)] = bitmask.values
    return dense if bitmask.scales is None else dense * bitmask.scales.unsqueeze(1)


def bitmask_rows(bitmask: Bitmask, begin: int, end: int) -> Bitmask:
    """The rows from `begin` up to `end` as a matrix of their own."""
    cols = bitmask.shape[1]
    stored = _unpacked(bitmask.bits.numpy(), begin * cols, end * cols)
    first, last = int(bitmask.begins[begin]), int(bitmask.begins[end])
    scales = None if bitmask.scales is None else bitmask.scales[begin:end]
    return Bitmask(_packed(stored), bitmask.values[first:last], (end - begin, cols), scales)


def bitmask_to_csr(bitmask: Bitmask) -> Csr:
    """The same matrix for the engines."""
    return csr_from_dense(bitmask_to_dense(bitmask))


def validate_bitmask(bitmask: Bitmask, name: str = "matrix") -> None:
    """Raise InputRefused, naming the matrix and the broken invariant, unless every invariant holds."""
    problem = bitmask_problem(bitmask.bits, bitmask.values, bitmask.scales, bitmask.shape)
    if problem is not None:
        raise InputRefused(f"{name}: {problem}; the file is corrupt or was not written by rnnprune, export it again")


def bitmask_problem(bits: Tensor, values: Tensor, scales: Tensor | None, shape: tuple[Any, ...]) -> str | None:
    """The first broken invariant of tensors that claim to be such a matrix, or None."""
    problem = shape_problem(shape) or _layout_problem(bits, values, shape)
    if problem is not None:
        return problem
    array, count = bits.numpy(), math.prod(shape)
    if count % BITS and array[-1] >> (count % BITS):
        return "the last byte of bits does not end in zeros"
    if (ones := _ones(array)) != values.numel():
        return f"{ones} bits are 1, and there are {values.numel()} values"
    if values.dtype != torch.int8:
        return "scales without int8 values" if scales is not None else value_problem(values)
    if not values.numpy().all():
        return "a stored value is zero"

    def largest(magnitudes: Array) -> Array:
        return largest_of_rows(_begins(array, (shape[0], shape[1])), magnitudes)

    return int8_problem(values, scales, shape[0], largest)


def _layout_problem(bits: Tensor, values: Tensor, shape: tuple[int, ...]) -> str | None:
    count = math.prod(shape)
    if not count:  # its rows would cost memory and no byte of the file
        return f"shape {list(shape)} holds nothing, expected at least one row and one column"
    if bits.dtype != torch.uint8 or tuple(bits.shape) != (-(-count // BITS),):
        found = f"{str(bits.dtype).removeprefix('torch.')} {list(bits.shape)}"
        return f"bits are {found}, expected uint8 [{-(-count // BITS)}], one bit for each of {count} elements"
    if values.ndim != 1:
        return f"values has shape {list(values.shape)}, expected one dimension"
    if values.dtype not in (*VALUE_DTYPES, torch.int8):
        found = str(values.dtype).removeprefix("torch.")
        return f"values are {found}, expected int8, float16, bfloat16, float32 or float64"
    return None


def _from_values(values: Tensor, scales: Tensor | None = None) -> Bitmask:
    rows, cols = values.shape
    stored = values != 0
    return Bitmask(_packed(stored.numpy().reshape(-1)), values[stored], (rows, cols), scales)


def _packed(stored: Array) -> Tensor:
    return torch.from_numpy(np.packbits(stored, bitorder="little"))


def _unpacked(bits: Array, begin: int, end: int) -> Array:
    """Elements `begin` up to `end`, 0 or 1 each."""
    low = begin // BITS
    return np.unpackbits(bits[low : -(-end // BITS)], bitorder="little")[begin - low * BITS : end - low * BITS]


def _ones(bits: Array) -> int:
    looks = (bits[begin : begin + COUNTED_AT_ONCE] for begin in range(0, len(bits), COUNTED_AT_ONCE))
    return sum(int(np.bitwise_count(look).sum()) for look in looks)


def _begins(bits: Array, shape: tuple[int, int]) -> Array:
    rows, cols = shape
    begins = np.zeros(rows + 1, dtype=np.int64)
    step = max(1, COUNTED_AT_ONCE * BITS // max(cols, 1))
    for row in range(0, rows, step):
        last = min(row + step, rows)
        stored = _unpacked(bits, row * cols, last * cols).reshape(last - row, cols)
        begins[row + 1 : last + 1] = stored.sum(axis=1, dtype=np.int64)
    return begins.cumsum(out=begins)

"""Blocked compressed rows: how a matrix that was pruned in blocks is stored, and every invariant it has to keep.

For a matrix of shape [rows, cols], both divisible by its blocks of R x C, with some blocks that hold a nonzero

    block_crow_indices  [rows / R + 1]    int32, int64 from 2**31 blocks    block row r: crow[r] up to crow[r + 1]
    block_col_indices   [blocks]          uint16 up to 65,536 block columns, int32 above; increasing in a block row
    values              [blocks, R, C]    float16, bfloat16, float32 or float64, finite; or int8, -127 up to 127
    scales              [rows]            float32, with int8 values alone: value = int8 * scale of its row

Nothing runs in this form: `bsr_to_csr` gives what the engines take, and they find the blocks again. The form is
canonical: one matrix in one dtype and block size has exactly one `Bsr`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Integer, Shaped
from torch import Tensor

from rnnprune.errors import InputRefused
from rnnprune.kernels.csr import (
    MAX_DIM,
    MAX_ELEMENTS,
    VALUE_DTYPES,
    Array,
    Csr,
    csr_from_dense,
    csr_problem,
    index_dtype,
    nonzero_count,
    pointer_dtype,
)
from rnnprune.kernels.int8 import in_int8, int8_problem, largest_of_rows

Block = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Bsr:
    """A block-sparse matrix; build it with `bsr_from_dense` or `bsr_int8`, check foreign arrays with `bsr_problem`."""

    block_crow_indices: Integer[Tensor, " pointers"]
    block_col_indices: Integer[Tensor, " blocks"]
    values: Shaped[Tensor, "blocks block_rows block_cols"]
    shape: tuple[int, int]
    scales: Float32[Tensor, " rows"] | None = None

    @property
    def block(self) -> Block:
        """Rows and columns of one block."""
        return self.values.shape[1], self.values.shape[2]

    @property
    def dtype(self) -> torch.dtype:
        """Of the dense matrix: float32 where the values are int8."""
        return self.values.dtype if self.scales is None else self.scales.dtype

    @property
    def nnz(self) -> int:
        """Number of nonzeros; zeros inside a block do not count."""
        return nonzero_count(self.values)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays, in memory and in the file alike."""
        arrays = (self.block_crow_indices, self.block_col_indices, self.values, self.scales)
        return sum(array.numel() * array.element_size() for array in arrays if array is not None)


def block_counts(weight: Shaped[Tensor, "rows cols"], block: Block) -> Integer[Tensor, "block_rows block_cols"]:
    """Nonzeros in every block of a matrix whose sizes the block divides."""
    return _grid(weight != 0, block).sum((2, 3))


def bsr_nbytes(shape: tuple[int, int], blocks: int, block: Block, value_itemsize: int, *, scaled: bool) -> int:
    """Bytes of the arrays of such a matrix, without building it; `scaled` with a float32 scale per row."""
    (rows, cols), (high, wide) = shape, block
    pointers = (rows // high + 1) * pointer_dtype(blocks).itemsize
    scales = rows * torch.float32.itemsize if scaled else 0
    return pointers + scales + blocks * (index_dtype(cols // wide).itemsize + high * wide * value_itemsize)


def bsr_from_dense(weight: Float[Tensor, "rows cols"], block: Block) -> Bsr:
    """The blocks that hold a nonzero, block row by block row; -0.0 is a zero and becomes +0.0."""
    return _from_grid(weight.detach() + 0.0, block)


def bsr_int8(weight: Float32[Tensor, "rows cols"], block: Block) -> Bsr:
    """The nearest matrix of int8 values with one scale per row, the row's largest |w| / 127.

    A weight below half a step of its row becomes zero, and a block of nothing else is dropped; so is a row whose scale
    would be no normal float32.
    """
    values, scales = in_int8(weight)
    return _from_grid(values, block, scales)


def bsr_to_dense(bsr: Bsr) -> Float[Tensor, "rows cols"]:
    """The dense matrix, its int8 values multiplied out in float32; entries that are not stored are +0.0."""
    (rows, cols), (high, wide) = bsr.shape, bsr.block
    row_of = torch.repeat_interleave(bsr.block_crow_indices.long().diff())
    grid = torch.zeros(rows // high, cols // wide, high, wide, dtype=bsr.values.dtype, device=bsr.values.device)
    grid[row_of, bsr.block_col_indices.long()] = bsr.values
    dense = grid.transpose(1, 2).reshape(rows, cols)
    return dense if bsr.scales is None else dense * bsr.scales.unsqueeze(1)


def bsr_rows(bsr: Bsr, begin: int, end: int) -> Bsr:
    """The rows from `begin` up to `end`, both at the edge of a block, as a matrix of their own."""
    high = bsr.block[0]
    crow_indices = bsr.block_crow_indices[begin // high : end // high + 1]
    first, last = int(crow_indices[0]), int(crow_indices[-1])
    shape = ((len(crow_indices) - 1) * high, bsr.shape[1])
    scales = None if bsr.scales is None else bsr.scales[begin:end]
    return Bsr(crow_indices - first, bsr.block_col_indices[first:last], bsr.values[first:last], shape, scales)


def bsr_to_csr(bsr: Bsr) -> Csr:
    """The same matrix for the engines; zeros inside a block are not stored any more."""
    return csr_from_dense(bsr_to_dense(bsr))


def validate_bsr(bsr: Bsr, name: str = "matrix") -> None:
    """Raise InputRefused, naming the matrix and the broken invariant, unless every invariant holds."""
    arrays = (bsr.block_crow_indices, bsr.block_col_indices, bsr.values, bsr.scales)
    problem = bsr_problem(*arrays, bsr.shape)
    if problem is not None:
        raise InputRefused(f"{name}: {problem}; the file is corrupt or was not written by rnnprune, export it again")


def bsr_problem(
    block_crow_indices: Tensor,
    block_col_indices: Tensor,
    values: Tensor,
    scales: Tensor | None,
    shape: tuple[Any, ...],
) -> str | None:
    """The first broken invariant of tensors that claim to be a block-sparse matrix of this shape, or None.

    Checked in numpy before anything indexes with these arrays; the pointers and indices of the blocks are those of a
    CSR matrix of one value per block, and checked as such.
    """
    if values.ndim != 3 or 0 in values.shape[1:]:
        return f"values has shape {list(values.shape)}, expected [blocks, rows, columns of a block]"
    block = (values.shape[1], values.shape[2])
    problem = _shape_problem(shape, block)
    if problem is not None:
        return problem
    grid = (shape[0] // block[0], shape[1] // block[1])
    one_each = torch.ones(len(values), dtype=torch.float32)
    problem = csr_problem(block_crow_indices, block_col_indices, one_each, grid)
    if problem is not None:
        return f"of the blocks, {problem}"
    if values.dtype == torch.int8:
        return _int8_problem(block_crow_indices, values, scales, shape[0])
    return "scales without int8 values" if scales is not None else _float_problem(values)


def _shape_problem(shape: tuple[Any, ...], block: Block) -> str | None:
    if len(shape) != 2 or not all(type(size) is int and 0 <= size <= MAX_DIM for size in shape):
        return f"shape {list(shape)}: expected 2 dimensions, each in 0..{MAX_DIM}"
    if math.prod(shape) > MAX_ELEMENTS:
        return f"shape {list(shape)} has {math.prod(shape)} elements, more than the limit of {MAX_ELEMENTS}"
    if any(size % part for size, part in zip(shape, block, strict=True)):
        return f"shape {list(shape)} is not divisible by blocks of {block[0]}x{block[1]}"
    return None


def _float_problem(values: Tensor) -> str | None:
    if values.dtype not in VALUE_DTYPES:
        found = str(values.dtype).removeprefix("torch.")
        return f"values are {found}, expected int8, float16, bfloat16, float32 or float64"
    array: Array = (values.float() if values.dtype == torch.bfloat16 else values).detach().cpu().numpy()
    if not np.isfinite(array).all():
        return "a stored value is NaN or infinite"
    if (np.signbit(array) & (array == 0)).any():
        return "a zero inside a block is -0.0, expected +0.0"
    return _empty_block_problem(array)


def _int8_problem(crow: Tensor, values: Tensor, scales: Tensor | None, rows: int) -> str | None:
    def largest(magnitudes: Array) -> Array:
        return largest_of_rows(crow.detach().cpu().numpy(), magnitudes.max(axis=2)).reshape(rows)

    return _empty_block_problem(values.detach().cpu().numpy()) or int8_problem(values, scales, rows, largest)


def _empty_block_problem(array: Array) -> str | None:
    return None if array.any(axis=(1, 2)).all() else "a stored block holds nothing but zeros"


def _grid(weight: Tensor, block: Block) -> Tensor:
    """[rows, cols] seen as [block rows, block columns, R, C]."""
    (rows, cols), (high, wide) = weight.shape, block
    return weight.reshape(rows // high, high, cols // wide, wide).transpose(1, 2)


def _from_grid(weight: Tensor, block: Block, scales: Tensor | None = None) -> Bsr:
    rows, cols = weight.shape
    row_of, col_of = torch.nonzero(block_counts(weight, block), as_tuple=True)  # row-major, so block rows come sorted
    crow_indices = torch.zeros(rows // block[0] + 1, dtype=pointer_dtype(len(row_of)), device=weight.device)
    crow_indices[1:] = torch.bincount(row_of, minlength=rows // block[0]).cumsum(0)
    col_indices = col_of.to(index_dtype(cols // block[1]))
    return Bsr(crow_indices, col_indices, _grid(weight, block)[row_of, col_of], (rows, cols), scales)

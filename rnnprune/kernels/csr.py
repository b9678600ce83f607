"""Compressed sparse rows: the one in-memory form of a pruned matrix, and every invariant it has to keep.

For a matrix of shape [rows, cols] with nnz nonzeros

    crow_indices  [rows + 1]  int32, int64 from 2**31 nonzeros    row r holds entries crow[r] up to crow[r + 1]
    col_indices   [nnz]       uint16 up to 65,536 columns, int32 above     strictly increasing inside a row
    values        [nnz]       float16, bfloat16, float32 or float64        finite and never zero

Names follow torch.sparse_csr. The form is canonical: one matrix of one dtype has exactly one `Csr`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Integer
from numpy.typing import NDArray
from torch import Tensor

from rnnprune.errors import InputRefused

VALUE_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
WIDEST_UINT16_COLS = 65_536
FIRST_INT64_NNZ = 2**31
SIGNED_TWIN = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}
MAX_DIM = 2**31 - 1
MAX_ELEMENTS = 2**32  # 16 GiB once dense in float32: a larger claim is an attack or a mistake

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Csr:
    """A sparse matrix; build it with `csr_from_dense`, or check foreign arrays with `csr_problem` first."""

    crow_indices: Integer[Tensor, " pointers"]
    col_indices: Integer[Tensor, " nnz"]
    values: Float[Tensor, " nnz"]
    shape: tuple[int, int]

    @property
    def nnz(self) -> int:
        """Number of nonzeros."""
        return self.values.numel()

    @property
    def nbytes(self) -> int:
        """Bytes of the three arrays, in memory and in the file alike."""
        return sum(array.numel() * array.element_size() for array in (self.crow_indices, self.col_indices, self.values))


def pointer_dtype(nnz: int) -> torch.dtype:
    """The dtype of `crow_indices` for this many nonzeros."""
    return torch.int32 if nnz < FIRST_INT64_NNZ else torch.int64


def index_dtype(cols: int) -> torch.dtype:
    """The dtype of `col_indices` for this many columns."""
    return torch.uint16 if cols <= WIDEST_UINT16_COLS else torch.int32


def csr_from_dense(weight: Float[Tensor, "rows cols"]) -> Csr:
    """The nonzeros of a dense matrix, row by row; -0.0 is a zero. Works on CPU and GPU, result on the same device."""
    rows, cols = weight.shape
    weight = weight.detach()
    row_of, col_of = torch.nonzero(weight, as_tuple=True)  # row-major, so rows come sorted
    nnz = row_of.numel()
    crow_indices = torch.zeros(rows + 1, dtype=pointer_dtype(nnz), device=weight.device)
    crow_indices[1:] = torch.bincount(row_of, minlength=rows).cumsum(0)
    return Csr(crow_indices, col_of.to(index_dtype(cols)), weight[row_of, col_of], (rows, cols))


def csr_to_dense(csr: Csr) -> Float[Tensor, "rows cols"]:
    """The dense matrix, dtype of the values; entries that are not stored are +0.0."""
    rows, cols = csr.shape
    row_of = torch.repeat_interleave(csr.crow_indices.long().diff())
    dense = torch.zeros(rows, cols, dtype=csr.values.dtype, device=csr.values.device)
    dense[row_of, csr.col_indices.long()] = csr.values
    return dense


def csr_rows(csr: Csr, begin: int, end: int) -> Csr:
    """The rows from `begin` up to `end` as a matrix of their own; its indices and values are views."""
    crow_indices = csr.crow_indices[begin : end + 1]
    first, last = int(crow_indices[0]), int(crow_indices[-1])
    shape = (len(crow_indices) - 1, csr.shape[1])
    return Csr(crow_indices - first, csr.col_indices[first:last], csr.values[first:last], shape)


def nonzero_count(tensor: Tensor) -> int:
    """Number of elements that are not zero, for the dtypes too that torch itself does not count; -0.0 is a zero."""
    if tensor.dtype in SIGNED_TWIN:
        tensor = tensor.view(SIGNED_TWIN[tensor.dtype])
    elif tensor.is_floating_point() and tensor.element_size() == 1:
        tensor = tensor.float()
    return int(tensor.count_nonzero())


def csr_nbytes(shape: tuple[int, int], nnz: int, value_itemsize: int) -> int:
    """Bytes of the three CSR arrays of such a matrix, without building it."""
    rows, cols = shape
    pointers = (rows + 1) * pointer_dtype(nnz).itemsize
    return pointers + nnz * (index_dtype(cols).itemsize + value_itemsize)


def validate_csr(csr: Csr, name: str = "matrix") -> None:
    """Raise InputRefused, naming the matrix and the broken invariant, unless every invariant holds."""
    problem = csr_problem(csr.crow_indices, csr.col_indices, csr.values, csr.shape)
    if problem is not None:
        raise InputRefused(f"{name}: {problem}; the file is corrupt or was not written by rnnprune, export it again")


def csr_problem(crow_indices: Tensor, col_indices: Tensor, values: Tensor, shape: tuple[Any, ...]) -> str | None:
    """The first broken invariant of three tensors that claim to be a CSR matrix of this shape, or None.

    Checked in numpy before anything indexes with these arrays: an index out of range is a write out of bounds in
    native code (CVE-2025-62164), and torch does not check by default.
    """
    problem = shape_problem(shape) or _layout_problem(crow_indices, col_indices, values, shape)
    if problem is not None:
        return problem
    crow, col = crow_indices.detach().cpu().numpy(), col_indices.detach().cpu().numpy()
    return _pointer_problem(crow, len(col)) or _index_problem(crow, col, shape[1]) or value_problem(values)


def shape_problem(shape: tuple[Any, ...]) -> str | None:
    if len(shape) != 2:
        return f"shape {list(shape)} has {len(shape)} dimensions, expected 2"
    if not all(type(size) is int and 0 <= size <= MAX_DIM for size in shape):
        return f"shape {list(shape)}: every dimension must lie in 0..{MAX_DIM}"
    if math.prod(shape) > MAX_ELEMENTS:
        return f"shape {list(shape)} has {math.prod(shape)} elements, more than the limit of {MAX_ELEMENTS}"
    return None


def _layout_problem(crow: Tensor, col: Tensor, values: Tensor, shape: tuple[int, ...]) -> str | None:
    """Rank, dtype and length of each array."""
    rows, cols = shape
    for name, array in (("crow_indices", crow), ("col_indices", col), ("values", values)):
        if array.ndim != 1:
            return f"{name} has shape {list(array.shape)}, expected one dimension"
    if values.dtype not in VALUE_DTYPES:
        return f"values are {_dtype_name(values)}, expected float16, bfloat16, float32 or float64"
    for name, array, expected in (
        ("crow_indices", crow, pointer_dtype(len(values))),
        ("col_indices", col, index_dtype(cols)),
    ):
        if array.dtype != expected:
            return f"{name} are {_dtype_name(array)}, expected {str(expected).removeprefix('torch.')}"
    if len(crow) != rows + 1:
        return f"crow_indices has {len(crow)} entries, expected rows + 1 = {rows + 1}"
    if len(col) != len(values):
        return f"{len(col)} col_indices for {len(values)} values"
    return None


def _pointer_problem(crow: Array, nnz: int) -> str | None:
    if crow[0] != 0:
        return f"crow_indices starts at {crow[0]}, expected 0"
    if crow[-1] != nnz:
        return f"crow_indices ends at {crow[-1]}, expected the number of values, {nnz}"
    if (falls := crow[1:] < crow[:-1]).any():
        return f"crow_indices decreases after row {int(falls.argmax())}"
    return None


def _index_problem(crow: Array, col: Array, cols: int) -> str | None:
    """Range first; then each index must exceed the one before it, except where a row starts."""
    if len(col) == 0:
        return None
    if col.min() < 0 or col.max() >= cols:
        return f"a column index of {col.min() if col.min() < 0 else col.max()} lies outside 0..{cols - 1}"
    not_above = col[1:] <= col[:-1]
    row_starts = crow[1:-1]
    not_above[row_starts[(row_starts > 0) & (row_starts < len(col))] - 1] = False
    if not_above.any():
        row = int(np.searchsorted(crow, not_above.argmax(), side="right")) - 1
        return f"col_indices of row {row} are not strictly increasing (unsorted or repeated)"
    return None


def value_problem(values: Tensor) -> str | None:
    array: Array = (values.float() if values.dtype == torch.bfloat16 else values).detach().cpu().numpy()
    if not np.isfinite(array).all():
        return "a stored value is NaN or infinite"
    if not array.all():
        return "a stored value is zero"
    return None


def _dtype_name(array: Tensor) -> str:
    return str(array.dtype).removeprefix("torch.")

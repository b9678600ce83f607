"""How one tensor will lie in a file: decided in one look at all of its slabs, written in another.

Nothing here holds more than a slab and the pointers of the rows, so that a tensor may be as large as the memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Shaped
from torch import Tensor

from rnnprune.errors import UsageError
from rnnprune.formats.container import Array
from rnnprune.formats.lazy import Item, LazyTensor, lazy
from rnnprune.kernels.csr import (
    VALUE_DTYPES,
    Csr,
    csr_from_dense,
    csr_nbytes,
    index_dtype,
    nonzero_count,
    pointer_dtype,
)

BINSPARSE_VERSION = "0.1"
CSR = "CSR"
PARTS = ("pointers_to_1", "indices_1", "values")  # the names of binsparse; in memory: crow_indices, col_indices, values


Arrays = dict[str, Item | Array]


class Layout(NamedTuple):
    """arrays: name of the part -> array, "" for the one of a dense tensor; descriptor: of a sparse one, for binsparse.

    block: rows and columns of one, where the tensor is stored in blocks.
    """

    arrays: Arrays
    descriptor: dict[str, Any] | None = None
    block: tuple[int, int] | None = None


class Cast(NamedTuple):
    """A tensor in another float dtype, and how many nonzeros became zero on the way."""

    tensor: Tensor
    underflowed: int


def dtype_name(dtype: torch.dtype) -> str:
    """`float32`, as the file calls it."""
    return str(dtype).removeprefix("torch.")


def described(arrays: Arrays, shape: list[int], form: Mapping[str, Any]) -> dict[str, Any]:
    """The binsparse descriptor of these parts."""
    values = arrays["values"]
    return {
        "version": BINSPARSE_VERSION,
        **form,
        "shape": shape,
        "number_of_stored_values": torch.Size(values.shape).numel(),
        "data_types": {part: dtype_name(array.dtype) for part, array in arrays.items()},
    }


def dense_layout(tensor: Item) -> Layout:
    """The tensor as it is."""
    return Layout({"": tensor})


def layout_of_csr(csr: Csr) -> Layout:
    """Of one in memory."""
    arrays: Arrays = dict(zip(PARTS, (csr.crow_indices, csr.col_indices, csr.values), strict=True))
    return Layout(arrays, described(arrays, list(csr.shape), {"format": CSR}))


def csr_layout(tensor: LazyTensor) -> Layout | None:
    """CSR for a finite float matrix when that takes fewer bytes than dense, else None."""
    if len(tensor.shape) != 2 or tensor.dtype not in VALUE_DTYPES:
        return None
    rows, cols = tensor.shape
    counts, begin = torch.zeros(rows, dtype=torch.int64), 0
    for slab in tensor.slabs():
        if not slab.isfinite().all():
            return None
        counts[begin : begin + len(slab)] = _counts_of_rows(slab)
        begin += len(slab)
    pointers = pointers_of(counts)
    nnz = int(pointers[-1])
    if csr_nbytes((rows, cols), nnz, tensor.dtype.itemsize) >= tensor.nbytes:
        return None

    def indices() -> Iterator[Tensor]:
        return (csr_from_dense(slab).col_indices for slab in tensor.slabs())

    def values() -> Iterator[Tensor]:
        return (slab[slab != 0] for slab in tensor.slabs())

    held = pointers, Array(index_dtype(cols), (nnz,), indices), Array(tensor.dtype, (nnz,), values)
    arrays: Arrays = dict(zip(PARTS, held, strict=True))
    return Layout(arrays, described(arrays, [rows, cols], {"format": CSR}))


def _counts_of_rows(slab: Shaped[Tensor, "rows cols"]) -> Shaped[Tensor, " rows"]:
    return torch.from_numpy((slab != 0).numpy().sum(axis=1, dtype="int64"))  # torch would copy the mask as int64


def pointers_of(counts: Shaped[Tensor, " rows"]) -> Shaped[Tensor, " pointers"]:
    """[rows + 1]: where each row begins, from the number of entries in each."""
    pointers = torch.cat([torch.zeros(1, dtype=torch.int64), counts]).cumsum(0)
    return pointers.to(pointer_dtype(int(pointers[-1])))


def csr_or_dense(
    tensor: Shaped[Tensor, " ..."], values_dtype: torch.dtype | None = None, *, name: str = "tensor"
) -> Csr | Tensor:
    """What the file will hold for one tensor in memory: CSR where that takes fewer bytes, else dense.

    `values_dtype` applies to float tensors of two dimensions or more; biases and norms, small and delicate,
    keep their own.
    """
    if values_dtype is not None and tensor.is_floating_point() and tensor.ndim >= 2:
        tensor = cast_values(tensor, values_dtype, name=name).tensor
    return tensor if csr_layout(lazy(tensor)) is None else csr_from_dense(tensor)


def cast_values(tensor: Shaped[Tensor, " ..."], dtype: torch.dtype, *, name: str = "tensor") -> Cast:
    """`tensor` in `dtype`; UsageError when a finite value would become infinite, names the largest."""
    return Cast(tensor.to(dtype), underflow(lazy(tensor), dtype, name))


def underflow(tensor: LazyTensor, dtype: torch.dtype, name: str) -> int:
    """How many nonzeros become zero in `dtype`; UsageError when a finite value would become infinite."""
    lost = 0
    for slab in map(_wide, tensor.slabs()):
        cast = slab.to(dtype)
        if bool((cast.isinf() & ~slab.isinf()).any()):
            wider = "bf16 or fp32" if dtype == torch.float16 else "keep"
            raise UsageError(
                f"{name}: {_largest(tensor):g} is beyond {dtype_name(dtype)}, which ends at "
                f"{torch.finfo(dtype).max:g}; export with --values {wider}"
            )
        lost += nonzero_count(slab) - nonzero_count(cast)
    return lost


def _wide(slab: Tensor) -> Tensor:
    return slab.float() if slab.element_size() == 1 else slab  # torch asks no float8 whether it is infinite


def _largest(tensor: LazyTensor) -> float:
    finite = (slab[slab.isfinite()].abs() for slab in map(_wide, tensor.slabs()))
    return max(float(part.max()) for part in finite if part.numel())

"""How a sparse file holds a matrix as a bitmask: its arrays, its descriptor, and when that is worth it.

binsparse 0.1 has no such format, so the descriptor bears a name of ours. docs/format.md is the specification.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from rnnprune.formats.container import Array
from rnnprune.formats.int8 import SCALES, as_float32
from rnnprune.formats.layout import Arrays, Layout, described
from rnnprune.formats.lazy import LazyTensor
from rnnprune.kernels.bitmask import (
    BITS,
    Bitmask,
    bitmask_from_dense,
    bitmask_int8,
    bitmask_nbytes,
    bitmask_problem,
)
from rnnprune.kernels.csr import VALUE_DTYPES, csr_nbytes, nonzero_count

FORMAT: Mapping[str, Any] = {"format": "bitmask"}
PARTS = ("bits", "values")
INT8_FROM = 0.1  # an embedding of a few symbols may have a row of zeros for its padding


def bitmask_layout(tensor: LazyTensor, *, int8: bool = False) -> Layout | None:
    """A finite float matrix as a bitmask where that takes fewer bytes than CSR and dense do, else None.

    int8: values of one byte, only from INT8_FROM zeros on: a matrix that nobody pruned keeps its dtype.
    UsageError where a weight is beyond float32, that of the scales.
    """
    if len(tensor.shape) != 2 or tensor.dtype not in VALUE_DTYPES:
        return None
    nnz = 0
    for slab in tensor.slabs():
        if not slab.isfinite().all():
            return None
        nnz += nonzero_count(slab)
    shape, itemsize, stored, more = (tensor.shape[0], tensor.shape[1]), tensor.dtype.itemsize, nnz, Arrays()
    if int8:
        if nnz > (1 - INT8_FROM) * math.prod(shape):
            return None
        found = [(each.nnz, each.scales) for each in _slabs(tensor, int8=True)]
        stored = sum(count for count, _ in found)
        more[SCALES] = torch.cat([scales for _, scales in found if scales is not None])
    size = bitmask_nbytes(shape, stored, 1 if int8 else itemsize, scaled=int8)
    if size >= min(csr_nbytes(shape, nnz, itemsize), tensor.nbytes):
        return None

    def chunks(part: Callable[[Bitmask], Tensor]) -> Callable[[], Iterator[Tensor]]:
        return lambda: map(part, _slabs(tensor, int8=int8))

    arrays: Arrays = {
        "bits": Array(torch.uint8, (bitmask_nbytes(shape, 0, 0),), chunks(lambda each: each.bits)),
        "values": Array(torch.int8 if int8 else tensor.dtype, (stored,), chunks(lambda each: each.values)),
        **more,
    }
    return Layout(arrays, described(arrays, list(shape), FORMAT))


def layout_of_bitmask(bitmask: Bitmask) -> Layout:
    """Of one in memory."""
    arrays: Arrays = {"bits": bitmask.bits, "values": bitmask.values}
    arrays |= {} if bitmask.scales is None else {SCALES: bitmask.scales}
    return Layout(arrays, described(arrays, list(bitmask.shape), FORMAT))


def bitmask_of_parts(claimed: object, parts: Mapping[str, Tensor]) -> Bitmask | str:
    """The matrix of a described shape, or the first broken invariant."""
    shape = tuple(claimed) if isinstance(claimed, list) else ()
    bits, values, scales = parts["bits"], parts["values"], parts.get(SCALES)
    return bitmask_problem(bits, values, scales, shape) or Bitmask(bits, values, (shape[0], shape[1]), scales)


def _slabs(tensor: LazyTensor, *, int8: bool) -> Iterator[Bitmask]:
    """Of so many rows that each but the last ends with a whole byte."""
    for slab in tensor.slabs(BITS):
        yield bitmask_int8(as_float32(slab)) if int8 else bitmask_from_dense(slab)

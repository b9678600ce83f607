"""How a sparse file holds a matrix in blocks: its arrays, its descriptor, and when blocks are worth it.

To binsparse a block-sparse matrix is a tensor of four dimensions, [block rows, block columns, rows and columns of a
block]: dense block rows, sparse block columns, dense blocks. docs/format.md is the specification.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Shaped
from torch import Tensor

from rnnprune.formats.container import Array
from rnnprune.formats.int8 import SCALES, as_float32
from rnnprune.formats.layout import PARTS, Arrays, Layout, described, pointers_of
from rnnprune.formats.lazy import LazyTensor, lazy
from rnnprune.kernels.bsr import (
    Block,
    Bsr,
    block_counts,
    bsr_from_dense,
    bsr_int8,
    bsr_nbytes,
    bsr_problem,
)
from rnnprune.kernels.csr import VALUE_DTYPES, csr_nbytes, index_dtype, nonzero_count

FORMAT: Mapping[str, Any] = {
    "format": "custom",
    "custom": {
        "level": {
            "level_desc": "dense",
            "rank": 1,
            "level": {
                "level_desc": "sparse",
                "rank": 1,
                "level": {"level_desc": "dense", "rank": 2, "level": {"level_desc": "element"}},
            },
        }
    },
}
BLOCKS: tuple[Block, ...] = ((8, 4), (16, 1), (4, 4), (8, 1))  # those of the native engine, largest first


def bsr_or_none(tensor: Shaped[Tensor, " ..."], block: Block | None = None, *, int8: bool = False) -> Bsr | None:
    """What `bsr_layout` would store, of a tensor in memory; None where that is nothing."""
    layout = bsr_layout(lazy(tensor), block, int8=int8)
    if layout is None or layout.block is None:
        return None
    return bsr_int8(tensor.to(torch.float32), layout.block) if int8 else bsr_from_dense(tensor, layout.block)


def full_block(weight: Shaped[Tensor, "rows cols"]) -> Block | None:
    """The largest of BLOCKS of which the matrix has only full ones and empty ones; None where there is no such."""
    return _survey(lazy(weight), BLOCKS).full


def bsr_layout(tensor: LazyTensor, block: Block | None = None, *, int8: bool = False) -> Layout | None:
    """A finite float matrix in blocks where those take fewer bytes than CSR and dense do, else None.

    block: None for the largest of BLOCKS that stores no zero. int8: values of one byte, only where blocks pay without
    it: a matrix that nobody pruned keeps its dtype. UsageError where a weight is beyond float32, that of the scales.
    """
    if len(tensor.shape) != 2 or tensor.dtype not in VALUE_DTYPES:
        return None
    found = _survey(tensor, BLOCKS if block is None else (block,))
    block = block or found.full
    if not found.is_finite or block is None or block not in found.counts:
        return None
    shape, itemsize = (tensor.shape[0], tensor.shape[1]), tensor.dtype.itemsize
    counts = found.counts[block]
    kept = bsr_nbytes(shape, int(counts.sum()), block, itemsize, scaled=False)
    stored = bsr_nbytes(shape, int(counts.sum()), block, 1, scaled=True) if int8 else kept
    if kept >= tensor.nbytes or stored >= csr_nbytes(shape, found.nnz, itemsize):
        return None
    if int8:
        counts = torch.cat([bsr.block_crow_indices.long().diff() for bsr in _slabs(tensor, block, int8=True)])
    return _layout(tensor, block, pointers_of(counts), int8=int8)


class _Survey(NamedTuple):
    """counts: block -> in each block row, how many blocks hold a nonzero; full: see `full_block`."""

    nnz: int
    is_finite: bool
    counts: dict[Block, Tensor]
    full: Block | None


def _survey(tensor: LazyTensor, blocks: tuple[Block, ...]) -> _Survey:
    rows, cols = tensor.shape
    fitting = [block for block in blocks if rows % block[0] == cols % block[1] == 0]
    counts = {block: torch.zeros(rows // block[0], dtype=torch.int64) for block in fitting}
    holed: set[Block] = set()
    nnz, begin, is_finite = 0, 0, True
    for slab in tensor.slabs(math.lcm(*(block[0] for block in counts))):
        nnz += nonzero_count(slab)
        is_finite = is_finite and bool(slab.isfinite().all())
        for block, told in counts.items():
            in_blocks = block_counts(slab, block)
            told[begin // block[0] :][: len(in_blocks)] = (in_blocks != 0).sum(1)
            if not ((in_blocks == 0) | (in_blocks == math.prod(block))).all():
                holed.add(block)
        begin += len(slab)
    full = next((block for block in counts if block not in holed and nnz), None)
    return _Survey(nnz, is_finite, counts, full)


def _slabs(tensor: LazyTensor, block: Block, *, int8: bool) -> Iterator[Bsr]:
    for slab in tensor.slabs(block[0]):
        yield bsr_int8(as_float32(slab), block) if int8 else bsr_from_dense(slab, block)


def _layout(tensor: LazyTensor, block: Block, pointers: Tensor, *, int8: bool) -> Layout:
    (rows, cols), (high, wide), stored = tensor.shape, block, int(pointers[-1])

    def chunks(part: Callable[[Bsr], Tensor]) -> Callable[[], Iterator[Tensor]]:
        return lambda: map(part, _slabs(tensor, block, int8=int8))

    arrays: Arrays = {
        "pointers_to_1": pointers,
        "indices_1": Array(index_dtype(cols // wide), (stored,), chunks(lambda bsr: bsr.block_col_indices)),
        "values": Array(torch.int8 if int8 else tensor.dtype, (stored, high, wide), chunks(lambda bsr: bsr.values)),
    }
    if int8:
        scales = torch.cat([bsr.scales for bsr in _slabs(tensor, block, int8=True) if bsr.scales is not None])
        arrays[SCALES] = scales
    return Layout(arrays, described(arrays, [rows // high, cols // wide, high, wide], FORMAT), block)


def layout_of_bsr(bsr: Bsr) -> Layout:
    """Of one in memory."""
    arrays: Arrays = dict(zip(PARTS, (bsr.block_crow_indices, bsr.block_col_indices, bsr.values), strict=True))
    arrays |= {} if bsr.scales is None else {SCALES: bsr.scales}
    (rows, cols), (high, wide) = bsr.shape, bsr.block
    return Layout(arrays, described(arrays, [rows // high, cols // wide, high, wide], FORMAT), bsr.block)


def bsr_of_parts(shape: object, parts: Mapping[str, Tensor]) -> Bsr | str:
    """The matrix of a described shape, or the first broken invariant: everything is checked before the Bsr exists."""
    crow_indices, col_indices, values = (parts[part] for part in PARTS)
    if not isinstance(shape, list) or len(shape) != 4 or not all(type(size) is int for size in shape):
        return f"shape {shape}, expected four whole numbers: block rows, block columns, rows and columns of a block"
    if shape[2:] != list(values.shape[1:]):
        return f"shape {shape} does not fit values of shape {list(values.shape)}"
    rows, cols = shape[0] * shape[2], shape[1] * shape[3]
    problem = bsr_problem(crow_indices, col_indices, values, parts.get(SCALES), (rows, cols))
    return problem or Bsr(crow_indices, col_indices, values, (rows, cols), parts.get(SCALES))

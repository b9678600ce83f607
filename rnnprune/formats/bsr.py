"""How a sparse file holds a matrix in blocks: its arrays, its descriptor, and when blocks are worth it.

To binsparse a block-sparse matrix is a tensor of four dimensions, [block rows, block columns, rows and columns of a
block]: dense block rows, sparse block columns, dense blocks. docs/format.md is the specification.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

from rnnprune.errors import UsageError
from rnnprune.kernels.bsr import Block, Bsr, block_counts, bsr_from_dense, bsr_int8, bsr_nbytes, bsr_problem
from rnnprune.kernels.csr import VALUE_DTYPES, csr_nbytes, nonzero_count

PARTS = ("pointers_to_1", "indices_1", "values")
SCALES = "scales"
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
    """A float matrix in blocks where those take fewer bytes than CSR and dense do, else None.

    block: None for the largest of BLOCKS that stores no zero. int8: values of one byte, only where blocks pay without
    it: a matrix that nobody pruned keeps its dtype.
    """
    if tensor.ndim != 2 or tensor.dtype not in VALUE_DTYPES or not tensor.isfinite().all():
        return None
    block = block or full_block(tensor)
    if block is None or _is_indivisible(tensor, block):
        return None
    shape, itemsize = (tensor.shape[0], tensor.shape[1]), tensor.element_size()
    blocks = nonzero_count(block_counts(tensor, block))
    kept = bsr_nbytes(shape, blocks, block, itemsize, scaled=False)
    stored = bsr_nbytes(shape, blocks, block, 1, scaled=True) if int8 else kept
    if kept >= tensor.numel() * itemsize or stored >= csr_nbytes(shape, nonzero_count(tensor), itemsize):
        return None
    return bsr_int8(_float32(tensor), block) if int8 else bsr_from_dense(tensor, block)


def full_block(weight: Shaped[Tensor, "rows cols"]) -> Block | None:
    """The largest of BLOCKS of which the matrix has only full ones and empty ones; None where there is no such."""
    for block in BLOCKS:
        if not _is_indivisible(weight, block):
            counts = block_counts(weight, block)
            if counts.any() and bool(((counts == 0) | (counts == block[0] * block[1])).all()):
                return block
    return None


def stored_parts(bsr: Bsr) -> dict[str, Tensor]:
    """Name of the part -> array, in the order in which the file lists their dtypes."""
    parts = dict(zip(PARTS, (bsr.block_crow_indices, bsr.block_col_indices, bsr.values), strict=True))
    return parts if bsr.scales is None else parts | {SCALES: bsr.scales}


def shape_described(bsr: Bsr) -> list[int]:
    """[block rows, block columns, rows and columns of a block]."""
    (rows, cols), (high, wide) = bsr.shape, bsr.block
    return [rows // high, cols // wide, high, wide]


def part_names(descriptor: Mapping[str, Any]) -> tuple[str, ...]:
    """The arrays that this descriptor speaks of."""
    types = descriptor.get("data_types")
    return (*PARTS, SCALES) if isinstance(types, dict) and SCALES in types else PARTS


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


def _is_indivisible(weight: Tensor, block: Block) -> bool:
    return bool(weight.shape[0] % block[0] or weight.shape[1] % block[1])


def _float32(tensor: Tensor) -> Tensor:
    cast = tensor.to(torch.float32)
    if not cast.isfinite().all():
        raise UsageError(
            "a weight is beyond float32, in which the scales of int8 values are; export with --values keep"
        )
    return cast

"""Which native layout a matrix takes: blocks where its nonzeros come in blocks, whatever the file says about them."""

from __future__ import annotations

import numpy as np
import torch

from rnnprune.kernels.csr import Csr

# Rows x columns of a block, and how many stored entries per nonzero still pay. A block costs a third of the time of
# single weights per entry (1760 x 1760 at 90 %, batch 1: 29 us against 72 us), so half as many entries again still pay.
BLOCKS = {"16x1": (16, 1), "8x4": (8, 4), "8x1": (8, 1), "4x4": (4, 4)}
MOST_PADDING = 1.5
FIRST_LOOK = 1024  # rows: enough to turn most matrices down in milliseconds


def best_layout(csr: Csr, unstructured: str) -> str:
    """The block layout with the least padding, if that is little enough; else `unstructured` (`auto`, `sell8`)."""
    few = _first_rows(csr, FIRST_LOOK)
    stored = {name: _stored(few, *block) for name, block in BLOCKS.items()}
    name = min(stored, key=lambda each: stored[each])
    is_promising = 0 < stored[name] <= MOST_PADDING * few.nnz
    return name if is_promising and _stored(csr, *BLOCKS[name]) <= MOST_PADDING * csr.nnz else unstructured


def _first_rows(csr: Csr, rows: int) -> Csr:
    crow_indices = csr.crow_indices[: rows + 1]
    nnz = int(crow_indices[-1])
    return Csr(crow_indices, csr.col_indices[:nnz], csr.values[:nnz], (len(crow_indices) - 1, csr.shape[1]))


def _stored(csr: Csr, rows: int, cols: int) -> int:
    """Entries that blocks of rows x cols would hold, zeros included."""
    row_of = torch.repeat_interleave(csr.crow_indices.long().diff())
    blocks = (row_of // rows) * (csr.shape[1] // cols + 1) + csr.col_indices.long() // cols
    return len(np.unique(blocks.numpy())) * rows * cols

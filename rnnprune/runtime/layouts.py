"""Which native layout a matrix takes: blocks where its nonzeros come in blocks, bytes where its values are those of a
byte, whatever the file says about them."""

from __future__ import annotations

import numpy as np
import torch

from rnnprune.kernels.csr import WIDEST_UINT16_COLS, Csr, csr_rows
from rnnprune.kernels.int8 import LARGEST_INT8

# Rows x columns of a block, and how many stored entries per nonzero still pay. A block costs a third of the time of
# single weights per entry (1760 x 1760 at 90 %, batch 1: 29 us against 72 us), so half as many entries again still pay.
BLOCKS = {"16x1": (16, 1), "8x4": (8, 4), "8x1": (8, 1), "4x4": (4, 4)}
MOST_PADDING = 1.5
FIRST_LOOK = 1024  # rows: enough to turn most matrices down in milliseconds

ROUNDING = 5e-5  # of a step, or 4e-7 of a row's largest value: what float32 makes of int8 * scale and back


def best_layout(csr: Csr, unstructured: str) -> str:
    """The block layout with the least padding, if that is little enough; else `unstructured` (`auto`, `sell8`).

    With `:int8` where that loses nothing: each value is a whole multiple of its row's largest / 127, as in a file that
    was exported with `--values int8`.
    """
    few = csr_rows(csr, 0, FIRST_LOOK)
    fitting = {name: block for name, block in BLOCKS.items() if block[1] <= csr.shape[1] <= WIDEST_UINT16_COLS}
    if not fitting:
        return unstructured
    stored = {name: _stored(few, *block) for name, block in fitting.items()}
    name = min(stored, key=lambda each: stored[each])
    is_promising = 0 < stored[name] <= MOST_PADDING * few.nnz
    if not is_promising or _stored(csr, *BLOCKS[name]) > MOST_PADDING * csr.nnz:
        return unstructured
    return f"{name}:int8" if _is_int8(few) and _is_int8(csr) else name


def _is_int8(csr: Csr) -> bool:
    row_of, values = torch.repeat_interleave(csr.crow_indices.long().diff()), csr.values.detach().double()
    largest = torch.zeros(csr.shape[0], dtype=torch.float64).scatter_reduce_(0, row_of, values.abs(), "amax")
    multiples = values * LARGEST_INT8 / largest[row_of]
    return bool(((multiples - multiples.round()).abs() <= ROUNDING).all())


def _stored(csr: Csr, rows: int, cols: int) -> int:
    """Entries that blocks of rows x cols would hold, zeros included."""
    row_of = torch.repeat_interleave(csr.crow_indices.long().diff())
    blocks = (row_of // rows) * (csr.shape[1] // cols + 1) + csr.col_indices.long() // cols
    return len(np.unique(blocks.numpy())) * rows * cols

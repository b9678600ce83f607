"""Sliced ELL for the Triton engine: which program of a kernel owns which rows, and where their nonzeros lie.

A matrix has G gates of H units each (a matrix of a linear layer: one gate, its rows are the units). A slice is U units
with all their gate rows; one program of the kernel owns it. Its single weights lie row by row, each row a span; blocks
lie gate by gate, the U rows of a gate being one span. A span is filled up to a multiple of 8 with zeros, in a column
that it has anyway.

    spans     [slices, G, U, 2]  int32    of a row: where it begins and how wide it is, in units of 8 entries
              [slices, G, 1, 2]           of blocks: the same in units of 8 U entries
    longest   [slices]           int32    the widest span, in units of 8 columns
    owned     [slices, U]        int32    the units of each slice; H and more: nobody's, in one slice
    values    [entries]          as `Values` says; a span of blocks is [width, U]
    columns   [entries]          uint16 up to 65,536 columns, else int32
              [entries / U C]    of blocks: which C columns, once for all U rows; [0] with words

Single weights that are float16 or bfloat16 share a 32-bit word with their column: the upper half holds the column, or
with bfloat16 the value, since a bfloat16 is the upper half of a float32. Slices come longest first, and units of like
length lie together, so that uneven rows (some gates keep ten times as many weights as others) keep all warps busy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rnnprune.errors import UsageError
from rnnprune.kernels.csr import WIDEST_UINT16_COLS, Array, Csr

STEP = 8  # entries; every span is a multiple of it, so that 16 bytes load at once
MOST_ENTRIES = 2**31 - 1  # the kernels count entries in int32

Values = Literal["fp32", "fp16", "bf16"]
VALUE_DTYPES: dict[Values, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class Layout(NamedTuple):
    """Blocks of rows x cols, or single weights (1, 0); units: of a slice, a divisor of `rows` for blocks."""

    rows: int
    cols: int
    units: int

    @property
    def name(self) -> str:
        """`sell`, or the block: `16x1`."""
        return f"{self.rows}x{self.cols}" if self.cols else "sell"


@dataclass(frozen=True, eq=False)
class SlicedEll:
    """A packed matrix on its device; see the module. `words`: values and columns share `values`."""

    spans: Tensor
    longest: Tensor
    owned: Tensor
    values: Tensor
    columns: Tensor
    layout: Layout
    kind: Values
    words: bool
    shape: tuple[int, int]
    gates: int

    @property
    def units(self) -> int:
        """H."""
        return self.shape[0] // self.gates

    @property
    def nbytes(self) -> int:
        """Bytes that a product reads, activations not counted."""
        arrays = (self.spans, self.longest, self.owned, self.values, self.columns)
        return sum(array.numel() * array.element_size() for array in arrays)

    @property
    def mean_width(self) -> float:
        """Entries per row, zeros of the filling included."""
        return float(self.spans[..., 1].double().mean()) * STEP


class _Places(NamedTuple):
    """For every nonzero its slice G + gate, and its lane there; the units of each slice."""

    gate: Array
    lane: Array
    owned: Array


def pack_sliced(csr: Csr, gates: int, layout: Layout, kind: Values, device: torch.device) -> SlicedEll:
    """Pack on the CPU in numpy and move to the device. UsageError for a matrix too large for 32-bit entries."""
    rows, cols = csr.shape
    if layout.cols and cols % layout.cols:
        raise UsageError(f"layout {layout.name}: {cols} columns are no multiple of {layout.cols}; use sell")
    crow, col = csr.crow_indices.cpu().numpy().astype(np.int64), csr.col_indices.cpu().numpy().astype(np.int64)
    places = _places(crow, rows // gates, gates, layout)
    if layout.cols:
        spans, at, columns = _pack_blocks(col, places, gates, layout)
    else:
        spans, at, columns = _pack_rows(crow, col, places, gates, layout)
    lanes = 1 if layout.cols else layout.units
    entries = int(spans[:, 1].sum()) * STEP * layout.units // lanes
    if entries > MOST_ENTRIES:
        raise UsageError(f"{entries:,} packed entries are more than the {MOST_ENTRIES:,} that triton kernels count")
    values = torch.zeros(entries, dtype=VALUE_DTYPES[kind])
    values[torch.from_numpy(at)] = csr.values.detach().cpu().to(values.dtype)
    if not values.isfinite().all():
        raise UsageError(f"a weight is too large for {kind}; use bf16 or fp32 values")
    words = not layout.cols and kind != "fp32" and cols <= WIDEST_UINT16_COLS
    if words:
        values, columns = _in_words(values, columns, kind), columns[:0]
    narrow = torch.from_numpy(columns.astype(np.uint16 if cols <= WIDEST_UINT16_COLS else np.int32))
    return SlicedEll(
        spans=torch.from_numpy(spans.astype(np.int32)).reshape(-1, gates, lanes, 2).to(device),
        longest=torch.from_numpy(spans[:, 1].reshape(-1, gates * lanes).max(1).astype(np.int32)).to(device),
        owned=torch.from_numpy(places.owned.astype(np.int32)).to(device),
        values=values.to(device),
        columns=narrow.to(device),
        layout=layout,
        kind=kind,
        words=words,
        shape=csr.shape,
        gates=gates,
    )


def stored_entries(csr: Csr, gates: int, block: tuple[int, int]) -> int:
    """Entries that blocks of rows x cols inside each gate would hold, zeros included."""
    (rows, cols), units = csr.shape, csr.shape[0] // gates
    row = np.repeat(np.arange(rows), np.diff(csr.crow_indices.cpu().numpy()))
    group = (row // units) * (-(-units // block[0])) + (row % units) // block[0]
    keys = group * (-(-cols // block[1])) + csr.col_indices.cpu().numpy().astype(np.int64) // block[1]
    return len(np.unique(keys)) * block[0] * block[1]


def _places(crow: Array, units: int, gates: int, layout: Layout) -> _Places:
    """Single weights: units sorted by length, then cut into slices. Blocks: neighbours stay together."""
    lengths = np.diff(crow).reshape(gates, units)
    slices = -(-units // layout.units)
    order = np.arange(slices * layout.units)
    if not layout.cols:
        order[:units] = np.argsort(-lengths.max(0), kind="stable")
    owned = order.reshape(slices, layout.units)
    totals = np.append(lengths.sum(0), np.zeros(owned.size - units, np.int64))[owned].sum(1)
    owned = owned[np.argsort(-totals, kind="stable")]
    place_of = np.empty(owned.size, np.int64)
    place_of[owned.ravel()] = np.arange(owned.size)
    row = np.repeat(np.arange(gates * units), np.diff(crow))
    place = place_of[row % units]
    return _Places(place // layout.units * gates + row // units, place % layout.units, owned)


def _spans(widths: Array) -> Array:
    """[spans, 2]: where each begins and its width, in units of 8."""
    steps = -(-widths // STEP)
    return np.stack([np.cumsum(steps) - steps, steps], 1)


def _pack_rows(crow: Array, col: Array, places: _Places, gates: int, layout: Layout) -> tuple[Array, Array, Array]:
    """Spans, the entry of every nonzero, the column of every entry."""
    span_of, count = places.gate * layout.units + places.lane, places.owned.size * gates
    spans = _spans(np.bincount(span_of, minlength=count))
    at = spans[span_of, 0] * STEP + np.arange(len(col)) - np.repeat(crow[:-1], np.diff(crow))
    filler = np.zeros(count, np.int64)
    filler[span_of] = col  # a row's last column is the one that stays
    columns = np.repeat(filler, spans[:, 1] * STEP)
    columns[at] = col
    return spans, at, columns


def _pack_blocks(col: Array, places: _Places, gates: int, layout: Layout) -> tuple[Array, Array, Array]:
    """Spans, the entry of every nonzero, the block column of every U C entries."""
    count, wide = len(places.owned) * gates, layout.cols
    block_cols = int(col.max()) // wide + 1 if len(col) else 1
    keys, block_of = np.unique(places.gate * block_cols + col // wide, return_inverse=True)
    span_of = keys // block_cols
    blocks = np.bincount(span_of, minlength=count)
    spans = _spans(blocks * wide)
    rank = np.arange(len(keys)) - (np.cumsum(blocks) - blocks)[span_of]
    at = spans[places.gate, 0] * STEP + rank[block_of] * wide + col % wide
    filler = np.zeros(count, np.int64)
    filler[span_of] = keys % block_cols
    columns = np.repeat(filler, spans[:, 1] * STEP // wide)
    columns[spans[span_of, 0] * STEP // wide + rank] = keys % block_cols
    return spans, at * layout.units + places.lane, columns


def _in_words(values: Tensor, columns: Array, kind: Values) -> Tensor:
    """int32: the column above a float16, or below a bfloat16."""
    bits = values.view(torch.int16).numpy().view(np.uint16).astype(np.uint32)
    column = columns.astype(np.uint32)
    words = (bits << 16) | column if kind == "bf16" else (column << 16) | bits
    return torch.from_numpy(words.view(np.int32))

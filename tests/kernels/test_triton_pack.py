"""The packing of the triton engine, read back by a slow walk over its documented arrays: no triton needed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rnnprune.errors import UsageError
from rnnprune.kernels import triton_pack
from rnnprune.kernels.csr import Csr, csr_from_dense
from rnnprune.kernels.triton_pack import Layout, SlicedEll, Values, pack_sliced, stored_entries
from tests.kernels.triton_cases import in_blocks, uneven

CPU = torch.device("cpu")
LAYOUTS = [Layout(1, 0, 1), Layout(1, 0, 4), Layout(16, 1, 16), Layout(16, 1, 4), Layout(8, 4, 8), Layout(4, 4, 2)]


def entry(packed: SlicedEll, at: int, column_at: int) -> tuple[float, int]:
    """Value and column of one entry, out of a word where they share one."""
    if not packed.words:
        return float(packed.values[at]), int(packed.columns[column_at])
    word = int(packed.values[at]) & 0xFFFFFFFF
    high, low = word >> 16, word & 0xFFFF
    if packed.kind == "fp16":
        return float(np.uint16(low).view(np.float16)), high
    return float(np.uint32(high << 16).view(np.float32)), low


def unpacked(packed: SlicedEll) -> Tensor:
    """The dense matrix in float64; entries of the same place add up, as in a product."""
    units, hidden, wide = packed.layout.units, packed.units, packed.layout.cols
    dense = torch.zeros(packed.shape, dtype=torch.float64)
    for part, gate, lane in itertools.product(range(len(packed.spans)), range(packed.gates), range(units)):
        start, width = packed.spans[part, gate, 0 if wide else lane].tolist()
        assert width <= packed.longest[part]
        start, width = start * 8 * (units if wide else 1), width * 8
        for k in range(width):
            at = start + (k * units + lane if wide else k)
            value, column = entry(packed, at, start // (units * wide) + k // wide if wide else at)
            column = column * wide + k % wide if wide else column
            if int(packed.owned[part, lane]) < hidden:
                dense[gate * hidden + int(packed.owned[part, lane]), column] += value
            else:
                assert value == 0.0
    return dense


@settings(max_examples=60)
@given(
    layout=st.sampled_from(LAYOUTS),
    gates=st.integers(1, 4),
    hidden=st.integers(1, 19),
    cols=st.integers(1, 9),
    density=st.sampled_from([0.0, 0.1, 0.6]),
    kind=st.sampled_from(["fp32", "fp16", "bf16"]),
)
def test_every_weight_is_where_the_documentation_says(
    layout: Layout, gates: int, hidden: int, cols: int, density: float, kind: Values
) -> None:
    cols *= max(1, layout.cols)
    weight = in_blocks(gates * hidden, cols, (1, 1), density, hidden).to(triton_pack.VALUE_DTYPES[kind]).float()
    packed = pack_sliced(csr_from_dense(weight), gates, layout, kind, CPU)
    assert torch.equal(unpacked(packed), weight.double())
    assert sorted(packed.owned.ravel().tolist()) == list(range(packed.owned.numel()))
    assert packed.words == (layout.cols == 0 and kind != "fp32")


def test_uneven_rows_are_filled_to_eight_and_the_longest_slice_comes_first() -> None:
    weight = uneven(3 * 64, 200)
    packed = pack_sliced(csr_from_dense(weight), 3, Layout(1, 0, 4), "fp32", CPU)
    assert torch.equal(unpacked(packed), weight.double())
    assert packed.values.numel() == sum(-(-int(count) // 8) * 8 for count in (weight != 0).sum(1))
    by_rows = (weight != 0).sum(1).reshape(3, 64)
    totals = by_rows.sum(0)[packed.owned.long()].sum(1).tolist()
    assert totals == sorted(totals, reverse=True)
    longest = by_rows.amax(0)[packed.owned.long()]
    assert float((longest.amax(1) - longest.amin(1)).float().mean()) < 20, "neighbours lie 100 apart"


def test_the_filling_reads_a_column_that_the_row_has() -> None:
    weight = torch.zeros(4, 50)
    weight[:, 40:43] = 1.0
    for layout in (Layout(1, 0, 4), Layout(4, 1, 4)):
        columns = pack_sliced(csr_from_dense(weight), 1, layout, "fp32", CPU).columns
        assert set(columns.tolist()) == {40, 41, 42}


@pytest.mark.parametrize(("cols", "dtype"), [(65_536, torch.uint16), (65_537, torch.int32)])
def test_wide_matrices_have_wide_columns_and_no_words(cols: int, dtype: torch.dtype) -> None:
    weight = torch.zeros(2, cols)
    weight[1, -1] = 0.5
    packed = pack_sliced(csr_from_dense(weight), 1, Layout(1, 0, 1), "fp32", CPU)
    assert packed.columns.dtype == dtype
    assert torch.equal(unpacked(packed), weight.double())
    narrow = pack_sliced(csr_from_dense(weight), 1, Layout(1, 0, 1), "bf16", CPU)
    assert narrow.words == (cols <= 65_536)
    assert torch.equal(unpacked(narrow), weight.double())


def test_bytes_per_nonzero_are_six_then_four_and_blocks_save_the_columns() -> None:
    weight = in_blocks(64, 64, (16, 1), 0.5)
    csr = csr_from_dense(weight)
    wide, narrow, blocks = (
        pack_sliced(csr, 1, layout, kind, CPU)
        for layout, kind in ((Layout(1, 0, 1), "fp32"), (Layout(1, 0, 1), "fp16"), (Layout(16, 1, 16), "fp16"))
    )
    assert wide.values.element_size() + wide.columns.element_size() == 6
    assert narrow.values.element_size() == 4
    assert narrow.columns.numel() == 0
    assert blocks.columns.numel() * 16 == blocks.values.numel()
    assert blocks.nbytes < narrow.nbytes < wide.nbytes


def test_stored_entries_count_blocks_inside_each_gate() -> None:
    weight = torch.zeros(2 * 6, 4)
    weight[5, 0] = weight[6, 0] = 1.0  # the last row of one gate and the first of the next: two blocks
    assert stored_entries(csr_from_dense(weight), 2, (4, 1)) == 8
    assert stored_entries(csr_from_dense(weight), 2, (4, 4)) == 32
    assert stored_entries(csr_from_dense(weight), 1, (4, 1)) == 4, "without gates both lie in rows 4 to 7"


def test_what_cannot_be_packed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    csr = csr_from_dense(torch.ones(8, 6))
    with pytest.raises(UsageError, match="layout 8x4: 6 columns are no multiple of 4; use sell"):
        pack_sliced(csr, 1, Layout(8, 4, 8), "fp32", CPU)
    huge = Csr(csr.crow_indices, csr.col_indices, csr.values * 1e5, csr.shape)
    with pytest.raises(UsageError, match="too large for fp16; use bf16 or fp32"):
        pack_sliced(huge, 1, Layout(1, 0, 1), "fp16", CPU)
    monkeypatch.setattr(triton_pack, "MOST_ENTRIES", 63)
    with pytest.raises(UsageError, match="64 packed entries are more than the 63"):
        pack_sliced(csr, 1, Layout(1, 0, 1), "fp32", CPU)

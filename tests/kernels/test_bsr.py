"""The block type against plain loops and CSR, its int8 values, and every invariant broken one at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rnnprune.errors import InputRefused
from rnnprune.kernels.bsr import (
    Bsr,
    bsr_from_dense,
    bsr_int8,
    bsr_nbytes,
    bsr_problem,
    bsr_to_csr,
    bsr_to_dense,
    validate_bsr,
)
from rnnprune.kernels.csr import csr_to_dense
from rnnprune.kernels.int8 import SMALLEST_SCALE
from tests.kernels.changed import at

BLOCKS = [(16, 1), (8, 4), (8, 1), (4, 4), (1, 1), (3, 5)]
WEIGHT = torch.tensor([[0.0, 0.0, 1.5, -0.0], [0, 0, -127, 1], [0, 0, 0, 0], [0, 0, 0, 0], [2, 0, 0, 4], [0, 0, 0, 1]])


def in_blocks(rows: int, cols: int, block: tuple[int, int], density: float, seed: int) -> Tensor:
    """rows x cols blocks of normal numbers, of which a share is kept."""
    generator = torch.Generator().manual_seed(seed)
    keep = torch.rand(rows, cols, generator=generator) < density
    keep = keep.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)
    return torch.randn(keep.shape, generator=generator) * keep


def test_a_small_matrix_has_these_arrays() -> None:
    bsr = bsr_from_dense(WEIGHT, (2, 2))
    assert bsr.block_crow_indices.tolist() == [0, 1, 1, 3]
    assert bsr.block_col_indices.tolist() == [1, 0, 1]
    assert bsr.values.tolist() == [[[1.5, 0.0], [-127, 1]], [[2, 0], [0, 0]], [[0, 4], [0, 1]]]
    assert not bsr.values.signbit()[0, 0, 1]
    assert (bsr.block_crow_indices.dtype, bsr.block_col_indices.dtype) == (torch.int32, torch.uint16)
    assert (bsr.block, bsr.dtype, bsr.nnz, bsr.nbytes) == ((2, 2), torch.float32, 6, 4 * 4 + 3 * 2 + 12 * 4)


def test_a_small_matrix_has_these_bytes_of_values() -> None:
    bsr = bsr_int8(WEIGHT, (2, 2))
    assert bsr.values.tolist() == [[[127, 0], [-127, 1]], [[64, 0], [0, 0]], [[0, 127], [0, 127]]]  # 63.5 to even
    assert bsr.scales is not None
    torch.testing.assert_close(bsr.scales, torch.tensor([1.5, 127, 0, 0, 4, 1]) / 127)
    assert (bsr.dtype, bsr.nnz, bsr.nbytes) == (torch.float32, 6, 4 * 4 + 3 * 2 + 12 + 6 * 4)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(0, 6),
    cols=st.integers(0, 20),
    block=st.sampled_from(BLOCKS),
    density=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    seed=st.integers(0, 2**31),
)
def test_every_matrix_comes_back(
    rows: int, cols: int, block: tuple[int, int], density: float, dtype: torch.dtype, seed: int
) -> None:
    weight = in_blocks(rows, cols, block, density, seed).to(dtype)
    bsr = bsr_from_dense(weight, block)
    validate_bsr(bsr)
    assert torch.equal(bsr_to_dense(bsr), weight)
    assert torch.equal(csr_to_dense(bsr_to_csr(bsr)), weight)
    assert bsr.nbytes == bsr_nbytes(bsr.shape, len(bsr.values), block, dtype.itemsize, scaled=False)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(0, 6),
    cols=st.integers(0, 20),
    block=st.sampled_from(BLOCKS),
    exponent=st.integers(-44, 38),
    seed=st.integers(0, 2**31),
)
def test_int8_is_within_half_a_step_and_stays_where_it_is(
    rows: int, cols: int, block: tuple[int, int], exponent: int, seed: int
) -> None:
    weight = (in_blocks(rows, cols, block, 0.4, seed).double() * 10.0**exponent).clamp(-3e38, 3e38).float()
    bsr = bsr_int8(weight, block)
    validate_bsr(bsr)
    assert bsr.nbytes == bsr_nbytes(bsr.shape, len(bsr.values), block, 1, scaled=True)
    dense = bsr_to_dense(bsr)
    if weight.numel():
        half = (weight.double().abs().amax(1, keepdim=True) / 127 / 2).clamp(min=127 * SMALLEST_SCALE)
        assert ((dense.double() - weight.double()).abs() <= half * (1 + 1e-5)).all()
    again = bsr_int8(dense, block)
    assert torch.equal(again.values, bsr.values)
    assert again.scales is not None
    torch.testing.assert_close(again.scales, bsr.scales, rtol=2**-22, atol=0)


def test_the_largest_float_is_no_infinity() -> None:
    largest = torch.finfo(torch.float32).max
    bsr = bsr_int8(torch.tensor([[largest, -largest], [0.0, 1.0]]), (1, 1))
    validate_bsr(bsr)
    assert bsr_to_dense(bsr).isfinite().all()


GOOD = bsr_from_dense(WEIGHT, (2, 2))
GOOD8 = bsr_int8(WEIGHT, (2, 2))
assert GOOD8.scales is not None


def i32(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int32)


def u16(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.uint16)


INT8_NEEDS = r"int8 values need scales, float32 \[6\]; found "
BROKEN: dict[str, tuple[Bsr, dict[str, Any], str]] = {
    "pointers start at 1": (GOOD, {"block_crow_indices": i32(1, 1, 1, 3)}, "of the blocks, crow_indices starts at 1"),
    "pointers fall": (GOOD, {"block_crow_indices": i32(0, 2, 1, 3)}, "of the blocks, crow_indices decreases"),
    "pointers end elsewhere": (GOOD, {"block_crow_indices": i32(0, 1, 1, 4)}, "of the blocks, crow_indices ends at 4"),
    "pointers too few": (GOOD, {"block_crow_indices": i32(0, 1, 3)}, "of the blocks, crow_indices has 3 entries"),
    "pointers int64": (GOOD, {"block_crow_indices": torch.tensor([0, 1, 1, 3])}, "crow_indices are int64"),
    "index out of range": (GOOD, {"block_col_indices": u16(1, 0, 2)}, r"column index of 2 lies outside 0\.\.1"),
    "index repeated": (GOOD, {"block_col_indices": u16(1, 1, 1)}, "col_indices of row 2 are not strictly increasing"),
    "index unsorted": (GOOD, {"block_col_indices": u16(1, 1, 0)}, "col_indices of row 2 are not strictly increasing"),
    "index int32": (GOOD, {"block_col_indices": i32(1, 0, 1)}, "col_indices are int32, expected uint16"),
    "indices too few": (GOOD, {"block_col_indices": u16(1, 0)}, "2 col_indices for 3 values"),
    "values flat": (GOOD, {"values": torch.ones(12)}, r"values has shape \[12\], expected \[blocks, rows, columns"),
    "values of no size": (GOOD, {"values": torch.ones(3, 0, 2)}, r"values has shape \[3, 0, 2\]"),
    "values integer": (GOOD, {"values": GOOD.values.int()}, "values are int32, expected int8"),
    "value NaN": (GOOD, {"values": at(GOOD.values, (0, 0, 0), float("nan"))}, "a stored value is NaN or infinite"),
    "value infinite": (GOOD, {"values": at(GOOD.values, (0, 0, 0), float("inf"))}, "a stored value is NaN or infinite"),
    "zero below zero": (GOOD, {"values": at(GOOD.values, (0, 0, 1), -0.0)}, r"a zero inside a block is -0\.0"),
    "block of zeros": (GOOD, {"values": at(GOOD.values, 1, 0)}, "a stored block holds nothing but zeros"),
    "shape of one dimension": (GOOD, {"shape": (24,)}, "expected 2 dimensions"),
    "shape negative": (GOOD, {"shape": (6, -4)}, "each in 0"),
    "shape of strings": (GOOD, {"shape": ("6", "4")}, "each in 0"),
    "shape too large": (GOOD, {"shape": (2**31 - 2, 2**31 - 2)}, "more than the limit"),
    "shape not divisible": (GOOD, {"shape": (6, 5)}, r"shape \[6, 5\] is not divisible by blocks of 2x2"),
    "scales without int8": (GOOD, {"scales": torch.ones(6)}, "scales without int8 values"),
    "int8 without scales": (GOOD8, {"scales": None}, INT8_NEEDS + "none"),
    "scales too few": (GOOD8, {"scales": torch.ones(5)}, INT8_NEEDS + r"float32 \[5\]"),
    "scales float16": (GOOD8, {"scales": torch.ones(6).half()}, INT8_NEEDS + "float16"),
    "int8 of -128": (GOOD8, {"values": at(GOOD8.values, (0, 0, 0), -128)}, r"an int8 value is -128"),
    "int8 block of zeros": (GOOD8, {"values": at(GOOD8.values, 1, 0)}, "a stored block holds nothing but zeros"),
    "scale negative": (GOOD8, {"scales": at(GOOD8.scales, 0, -1)}, "a scale is negative, NaN"),
    "scale of -0.0": (GOOD8, {"scales": at(GOOD8.scales, 2, -0.0)}, "a scale is negative, NaN"),
    "scale NaN": (GOOD8, {"scales": at(GOOD8.scales, 0, float("nan"))}, "a scale is negative, NaN"),
    "scale too large": (GOOD8, {"scales": at(GOOD8.scales, 0, 1e38)}, "infinite or too large"),
    "scale zero": (GOOD8, {"scales": at(GOOD8.scales, 0, 0)}, "row 0 has the scale 0 and int8 values up to 127"),
    "scale of an empty row": (
        GOOD8,
        {"scales": at(GOOD8.scales, 2, 1)},
        "row 2 has the scale 1 and int8 values up to 0",
    ),
    "scale denormal": (GOOD8, {"scales": at(GOOD8.scales, 0, 1e-40)}, "row 0 has the scale"),
    "range not used": (GOOD8, {"values": at(GOOD8.values, (0, 0, 0), 126)}, "row 0 .* int8 values up to 126"),
}


@pytest.mark.parametrize(("good", "change", "text"), BROKEN.values(), ids=BROKEN.keys())
def test_each_broken_invariant_is_named(good: Bsr, change: dict[str, Any], text: str) -> None:
    broken = {name: change.get(name, getattr(good, name)) for name in (*ARRAYS, "shape")}
    with pytest.raises(AssertionError, match=text):
        raise AssertionError(bsr_problem(*(broken[name] for name in ARRAYS), broken["shape"]))


ARRAYS = ("block_crow_indices", "block_col_indices", "values", "scales")


def test_a_refusal_names_the_matrix_and_the_remedy() -> None:
    validate_bsr(GOOD)
    validate_bsr(GOOD8)
    with pytest.raises(InputRefused, match=r"^w: of the blocks, a column index of 7 .* export it again$"):
        validate_bsr(replace(GOOD, block_col_indices=u16(1, 0, 7)), "w")

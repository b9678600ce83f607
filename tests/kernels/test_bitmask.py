"""The bitmask against plain loops and CSR, its int8 values, and every invariant broken one at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rnnprune.errors import InputRefused
from rnnprune.kernels.bitmask import (
    Bitmask,
    bitmask_from_dense,
    bitmask_int8,
    bitmask_nbytes,
    bitmask_problem,
    bitmask_rows,
    bitmask_to_csr,
    bitmask_to_dense,
    validate_bitmask,
)
from rnnprune.kernels.csr import csr_to_dense
from rnnprune.kernels.int8 import SMALLEST_SCALE
from tests.kernels.changed import at

WEIGHT = torch.tensor([[0.0, 1.5, -0.0], [0, -127, 1], [0, 0, 0], [4, 0, 2]])


def pruned(rows: int, cols: int, density: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    keep = torch.rand(rows, cols, generator=generator) < density
    return torch.randn(rows, cols, generator=generator) * keep


def test_a_small_matrix_has_these_arrays() -> None:
    bitmask = bitmask_from_dense(WEIGHT)
    # .x. / .xx / ... / x.x, the lowest bit first: 0100 1100 | 0x.x -> 010 011 00 = bits 1, 4, 5; then 0 101
    assert bitmask.bits.tolist() == [0b0011_0010, 0b0000_1010]
    assert bitmask.values.tolist() == [1.5, -127, 1, 4, 2]
    assert bitmask.begins.tolist() == [0, 1, 3, 3, 5]
    assert (bitmask.dtype, bitmask.nnz, bitmask.nbytes) == (torch.float32, 5, 2 + 5 * 4)


def test_a_small_matrix_has_these_bytes_of_values() -> None:
    bitmask = bitmask_int8(WEIGHT)
    assert bitmask.values.tolist() == [127, -127, 1, 127, 64]  # 63.5 to even
    assert bitmask.scales is not None
    torch.testing.assert_close(bitmask.scales, torch.tensor([1.5, 127, 0, 4]) / 127)
    assert (bitmask.dtype, bitmask.nnz, bitmask.nbytes) == (torch.float32, 5, 2 + 5 + 4 * 4)


def test_bytes_are_counted_by_hand() -> None:
    assert bitmask_nbytes((768, 256), 19_661, 4) == 24_576 + 19_661 * 4
    assert bitmask_nbytes((3, 3), 2, 2) == 2 + 4
    assert bitmask_nbytes((3, 3), 2, 1, scaled=True) == 2 + 2 + 3 * 4


@settings(max_examples=80, deadline=None)
@given(
    rows=st.integers(1, 20),
    cols=st.integers(1, 20),
    density=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    seed=st.integers(0, 2**31),
    data=st.data(),
)
def test_every_matrix_comes_back_whole_and_in_rows(
    rows: int, cols: int, density: float, dtype: torch.dtype, seed: int, data: st.DataObject
) -> None:
    weight = pruned(rows, cols, density, seed).to(dtype)
    bitmask = bitmask_from_dense(weight)
    validate_bitmask(bitmask)
    assert torch.equal(bitmask_to_dense(bitmask), weight)
    assert torch.equal(csr_to_dense(bitmask_to_csr(bitmask)), weight)
    assert bitmask.nbytes == bitmask_nbytes(bitmask.shape, bitmask.nnz, dtype.itemsize)
    begin = data.draw(st.integers(0, rows))
    end = data.draw(st.integers(begin, rows))
    part = bitmask_rows(bitmask, begin, end)
    assert torch.equal(bitmask_to_dense(part), weight[begin:end])


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 9), cols=st.integers(1, 20), exponent=st.integers(-44, 38), seed=st.integers(0, 2**31)
)  # fmt: skip
def test_int8_is_within_half_a_step_and_stays_where_it_is(rows: int, cols: int, exponent: int, seed: int) -> None:
    weight = (pruned(rows, cols, 0.4, seed).double() * 10.0**exponent).clamp(-3e38, 3e38).float()
    bitmask = bitmask_int8(weight)
    validate_bitmask(bitmask)
    dense = bitmask_to_dense(bitmask)
    if weight.numel():
        half = (weight.double().abs().amax(1, keepdim=True) / 127 / 2).clamp(min=127 * SMALLEST_SCALE)
        assert ((dense.double() - weight.double()).abs() <= half * (1 + 1e-5)).all()
    again = bitmask_int8(dense)
    assert torch.equal(again.bits, bitmask.bits)
    assert torch.equal(again.values, bitmask.values)


def test_rows_are_counted_over_more_than_one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = pruned(50, 13, 0.3, 0)
    truth = np.concatenate([[0], (weight.numpy() != 0).sum(1).cumsum()])
    monkeypatch.setattr("rnnprune.kernels.bitmask.COUNTED_AT_ONCE", 5)
    np.testing.assert_array_equal(bitmask_from_dense(weight).begins, truth)


GOOD, GOOD8 = bitmask_from_dense(WEIGHT), bitmask_int8(WEIGHT)
assert GOOD8.scales is not None


INT8_NEEDS = r"int8 values need scales, float32 \[4\]; found "
BROKEN: dict[str, tuple[Bitmask, dict[str, Any], str]] = {
    "bits too few": (
        GOOD,
        {"bits": GOOD.bits[:1]},
        r"bits are uint8 \[1\], expected uint8 \[2\], one bit for each of 12",
    ),
    "bits too many": (GOOD, {"bits": at(GOOD.bits, 0, 0).repeat(2)}, r"bits are uint8 \[4\]"),
    "bits of two dimensions": (GOOD, {"bits": GOOD.bits[None]}, r"bits are uint8 \[1, 2\]"),
    "bits int8": (GOOD, {"bits": GOOD.bits.view(torch.int8)}, "bits are int8"),
    "a bit more": (GOOD, {"bits": at(GOOD.bits, 0, 0b0011_0011)}, "6 bits are 1, and there are 5 values"),
    "a value less": (GOOD, {"values": GOOD.values[:-1]}, "5 bits are 1, and there are 4 values"),
    "bits after the end": (
        GOOD,
        {"bits": at(GOOD.bits, 1, 0b0001_1010)},
        "the last byte of bits does not end in zeros",
    ),
    "values in rows": (GOOD, {"values": GOOD.values[None]}, r"values has shape \[1, 5\], expected one dimension"),
    "values integer": (GOOD, {"values": GOOD.values.int()}, "values are int32, expected int8"),
    "value NaN": (GOOD, {"values": at(GOOD.values, 0, float("nan"))}, "a stored value is NaN or infinite"),
    "value infinite": (GOOD, {"values": at(GOOD.values, 0, float("inf"))}, "a stored value is NaN or infinite"),
    "value zero": (GOOD, {"values": at(GOOD.values, 0, 0)}, "a stored value is zero"),
    "value below zero": (GOOD, {"values": at(GOOD.values, 0, -0.0)}, "a stored value is zero"),
    "shape of one dimension": (GOOD, {"shape": (12,)}, "expected 2"),
    "shape of nothing": (
        GOOD,
        {"shape": (2**31 - 1, 0), "bits": GOOD.bits[:0], "values": GOOD.values[:0]},
        r"shape \[2147483647, 0\] holds nothing, expected at least one row",
    ),
    "shape negative": (GOOD, {"shape": (4, -3)}, "every dimension must lie in 0"),
    "shape of strings": (GOOD, {"shape": ("4", "3")}, "every dimension must lie in 0"),
    "shape too large": (GOOD, {"shape": (2**31 - 2, 2**31 - 2)}, "more than the limit"),
    "scales without int8": (GOOD, {"scales": torch.ones(4)}, "scales without int8 values"),
    "int8 without scales": (GOOD8, {"scales": None}, INT8_NEEDS + "none"),
    "scales too few": (GOOD8, {"scales": torch.ones(3)}, INT8_NEEDS + r"float32 \[3\]"),
    "int8 of -128": (GOOD8, {"values": at(GOOD8.values, 0, -128)}, r"an int8 value is -128"),
    "int8 of zero": (GOOD8, {"values": at(GOOD8.values, 2, 0)}, "a stored value is zero"),
    "scale negative": (GOOD8, {"scales": at(GOOD8.scales, 0, -1)}, "a scale is negative, NaN"),
    "scale of an empty row": (
        GOOD8,
        {"scales": at(GOOD8.scales, 2, 1)},
        "row 2 has the scale 1 and int8 values up to 0",
    ),
    "range not used": (GOOD8, {"values": at(GOOD8.values, 0, 126)}, "row 0 .* int8 values up to 126"),
}


@pytest.mark.parametrize(("good", "change", "text"), BROKEN.values(), ids=BROKEN.keys())
def test_each_broken_invariant_is_named(good: Bitmask, change: dict[str, Any], text: str) -> None:
    broken = {name: change.get(name, getattr(good, name)) for name in ("bits", "values", "scales", "shape")}
    with pytest.raises(AssertionError, match=text):
        raise AssertionError(bitmask_problem(**broken))


def test_a_refusal_names_the_matrix_and_the_remedy() -> None:
    validate_bitmask(GOOD)
    validate_bitmask(GOOD8)
    with pytest.raises(InputRefused, match=r"^w: a stored value is zero; .* export it again$"):
        validate_bitmask(replace(GOOD, values=at(GOOD.values, 0, 0)), "w")

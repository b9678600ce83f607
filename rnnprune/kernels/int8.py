"""Values of one byte with one float32 scale to a row: how they are made, and what they have to keep."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float32, Int8
from torch import Tensor

from rnnprune.kernels.csr import Array

LARGEST_INT8 = 127
SMALLEST_SCALE = torch.finfo(torch.float32).smallest_normal  # below, a float32 is no longer exact to 24 bits


def in_int8(weight: Float32[Tensor, "rows cols"]) -> tuple[Int8[Tensor, "rows cols"], Float32[Tensor, " rows"]]:
    """The nearest values and their scales, the row's largest |w| / 127; value * scale is the weight again.

    A weight below half a step of its row becomes zero, and so does a row whose scale would be no normal float32.
    """
    weight = weight.detach()
    largest = weight.abs().amax(1) if weight.shape[1] else weight.new_zeros(len(weight))
    scales = largest / LARGEST_INT8
    scales = torch.where((scales * LARGEST_INT8).isfinite(), scales, scales.nextafter(torch.zeros_like(scales)))
    scales = torch.where(scales >= SMALLEST_SCALE, scales, 0.0)
    steps = torch.where(scales > 0, scales, torch.inf).unsqueeze(1)
    return (weight / steps).round().clamp(-LARGEST_INT8, LARGEST_INT8).to(torch.int8), scales


def int8_problem(
    values: Tensor, scales: Tensor | None, rows: int, largest_of_rows: Callable[[Array], Array]
) -> str | None:
    """The first broken rule, or None. Every row uses its whole range, -127 or 127 somewhere in it: whoever takes its
    largest value finds the scale.

    largest_of_rows: from |values|, the largest in each row, 0 where it has none.
    """
    if scales is None or scales.dtype != torch.float32 or tuple(scales.shape) != (rows,):
        found = "none" if scales is None else f"{str(scales.dtype).removeprefix('torch.')} {list(scales.shape)}"
        return f"int8 values need scales, float32 [{rows}]; found {found}"
    array, scale = values.detach().cpu().numpy(), scales.detach().cpu().numpy()
    if (array == -128).any():
        return "an int8 value is -128, expected -127..127"
    with np.errstate(over="ignore"):
        if not np.isfinite(scale * np.float32(LARGEST_INT8)).all() or np.signbit(scale).any():
            return "a scale is negative, NaN, infinite or too large"
    largest = largest_of_rows(np.abs(array))
    wrong = np.where(largest == 0, scale != 0, (largest != LARGEST_INT8) | (scale < SMALLEST_SCALE))
    if wrong.any():
        row = int(wrong.argmax())
        found = f"row {row} has the scale {scale[row]:g} and int8 values up to {largest[row]}"
        return f"{found}, expected a scale that makes them 127, or 0 for none"
    return None


def largest_of_rows(crow: Array, magnitudes: Array) -> Array:
    """Of entries [n, ...] that are sorted by row, row r from crow[r] up to crow[r + 1]: [rows, ...]."""
    largest = np.zeros((len(crow) - 1, *magnitudes.shape[1:]), magnitudes.dtype)
    held = np.flatnonzero(np.diff(crow))
    if len(held):
        largest[held] = np.maximum.reduceat(magnitudes, crow[held], axis=0)
    return largest

"""Values of one byte in a file: what a matrix becomes by them."""

from __future__ import annotations

import torch
from torch import Tensor

from rnnprune.errors import UsageError
from rnnprune.formats.lazy import LazyTensor
from rnnprune.kernels.int8 import in_int8

SCALES = "scales"  # the array beside the values


def as_float32(tensor: Tensor) -> Tensor:
    """The tensor in the dtype of the scales; UsageError where a weight is beyond it."""
    cast = tensor.to(torch.float32)
    if not cast.isfinite().all():
        raise UsageError(
            "a weight is beyond float32, in which the scales of int8 values are; export with --values keep"
        )
    return cast


def rounded_to_int8(tensor: LazyTensor) -> LazyTensor:
    """A matrix in float32 as its int8 values and their scales give it back."""

    def rounded(part: Tensor) -> Tensor:
        values, scales = in_int8(as_float32(part))
        return values * scales.unsqueeze(1)

    return LazyTensor(
        tensor.shape, torch.float32, lambda: rounded(tensor.whole()), lambda rows: map(rounded, tensor.parts(rows))
    )

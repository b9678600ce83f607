"""When two tensors are one and the same: the single answer for tied weights, wherever the question comes up."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def view_key(tensor: Tensor) -> tuple[Any, ...] | None:
    """Equal for two strided tensors that show the same elements of one storage in the same order; None where that
    means nothing: empty tensors share an address without being tied, and a meta tensor has none.

    A transposed view of a weight, or a part of it, has another key.
    """
    if tensor.numel() == 0 or tensor.is_meta:
        return None
    steps = tuple(step for size, step in zip(tensor.shape, tensor.stride(), strict=True) if size > 1)
    place = (tensor.device, tensor.untyped_storage().data_ptr(), tensor.storage_offset())
    return (*place, tensor.dtype, tuple(tensor.shape), steps, tensor.is_conj(), tensor.is_neg())

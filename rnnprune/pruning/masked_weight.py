"""Weights with their masks, one to a storage."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rnnprune.architecture import Role
from rnnprune.errors import UsageError
from rnnprune.pruning.masks import block_scores, expand_blocks
from rnnprune.pruning.options import Block

SPARSE_ALREADY = 0.5  # from this share of exact zeros on a weight counts as pruned before

_BITS_OF_ITEMSIZE = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class MaskedWeight:
    """One storage with its mask, and every tensor that views it whole (tied weights share one mask).

    name, role: of the first tensor; names: of all. tensors: [rows, cols] each. mask: bool [rows, cols], True = keep.
    """

    def __init__(self, name: str, role: Role, tensors: Sequence[Tensor], more_names: Sequence[str] = ()) -> None:
        self.name, self.role, self.tensors = name, role, tuple(tensors)
        self.names = (name, *more_names)
        self.mask = torch.ones_like(tensors[0], dtype=torch.bool)

    @property
    def weight(self) -> Tensor:
        """The tensor whose values are masked."""
        return self.tensors[0]

    @property
    def mask(self) -> Tensor:
        """True = keep."""
        return self._mask

    @mask.setter
    def mask(self, mask: Tensor) -> None:
        self._mask = mask
        self._made_for = (self.weight.dtype, mask.device, mask.shape)
        # All ones or all zeros, as wide as a weight: a bitwise AND is several times faster than masked_fill.
        self._bits = mask.to(_BITS_OF_ITEMSIZE[self.weight.element_size()]).neg_()

    @torch.no_grad()
    def apply_to(self, tensor: Tensor) -> None:
        """Zero what is dropped, in place: exactly +0.0, whatever stood there, NaN included."""
        if tensor.itemsize == self._bits.itemsize:
            tensor.view(self._bits.dtype).bitwise_and_(self._bits)
        else:
            tensor.masked_fill_(~self._mask, 0.0)

    def require_fit(self, tensor: Tensor) -> None:
        """Raise UsageError when the weight was moved or converted since its mask was made."""
        found = (tensor.dtype, tensor.device, tensor.shape)
        if found != self._made_for:
            raise UsageError(
                f"{self.name} is now {_kind(*found)}, and was {_kind(*self._made_for)} when its Pruner was built; "
                "build the Pruner after moving or converting the model"
            )

    @property
    def zeros(self) -> int:
        """How many exact ones the weight holds; none where it holds nothing else, which is an initial value."""
        zeros = int((self.weight.detach() == 0).sum())
        return zeros if zeros < self.weight.numel() else 0

    def start_from_zeros(self, block: Block) -> None:
        """Drop what is zero already. A block is kept when any of its weights is not zero."""
        rows, cols = self.weight.shape
        nonzero = self.weight.detach() != 0
        self.mask = expand_blocks(block_scores(nonzero.float(), block) > 0, block, (rows, cols))


def _kind(dtype: torch.dtype, device: torch.device, shape: torch.Size) -> str:
    return f"{dtype} {list(shape)} on {device}"


def start_from_zeros(weights: Sequence[MaskedWeight], block: Block) -> None:
    """Zeros that were shared out over a model leave some of its weights less than half empty."""
    count = sum(weight.weight.numel() for weight in weights)
    pruned_model = sum(weight.zeros for weight in weights) >= SPARSE_ALREADY * count
    for weight in weights:
        if weight.zeros and (pruned_model or weight.zeros >= SPARSE_ALREADY * weight.weight.numel()):
            weight.start_from_zeros(block)


def sparsity_of(weights: Sequence[MaskedWeight]) -> float:
    """Share of dropped weights over all of them together."""
    total = sum(weight.mask.numel() for weight in weights)
    return 1.0 - sum(int(weight.mask.sum()) for weight in weights) / total

"""What the tests of the triton engine share: where it runs here, and the matrices that break kernels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rnnprune.kernels import triton_engine

REASON = triton_engine.unavailable_reason()
needs_triton = pytest.mark.skipif(REASON is not None, reason=f"triton: {REASON}")
DEVICE = triton_engine.default_device()  # the CPU under the interpreter
TOLERANCE = {"fp32": 1e-6, "fp16": 2e-3, "bf16": 2e-2}  # of the largest output, after rounding every weight


def in_blocks(rows: int, cols: int, block: tuple[int, int], density: float, seed: int = 0) -> Tensor:
    """Random weights in aligned blocks."""
    generator = torch.Generator().manual_seed(seed)
    tiles = torch.rand(-(-rows // block[0]), -(-cols // block[1]), generator=generator) < density
    mask = tiles.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)[:rows, :cols]
    return torch.randn(rows, cols, generator=generator) * mask


def uneven(rows: int, cols: int, seed: int = 0) -> Tensor:
    """One full row, empty rows, and everything between, as Fisher saliency leaves them."""
    generator = torch.Generator().manual_seed(seed)
    share = torch.rand(rows, 1, generator=generator) ** 4
    share[0], share[rows // 2 :: 5] = 1.1, 0.0
    return torch.randn(rows, cols, generator=generator) * (torch.rand(rows, cols, generator=generator) < share)

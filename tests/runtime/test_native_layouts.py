"""Which native layout a matrix takes, by the shape of its nonzeros alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rnnprune.errors import UsageError
from rnnprune.kernels import native
from rnnprune.kernels.csr import csr_from_dense
from rnnprune.runtime.layouts import best_layout


def blocks(rows: int, cols: int, high: int, wide: int, density: float = 0.1) -> Tensor:
    keep = torch.rand(-(-rows // high), -(-cols // wide)) < density
    keep[0, 0] = True
    return torch.randn(rows, cols) * keep.repeat_interleave(high, 0).repeat_interleave(wide, 1)[:rows, :cols]


@pytest.mark.parametrize(("high", "wide"), [(16, 1), (8, 4), (4, 4)])
@pytest.mark.parametrize("shape", [(256, 64), (250, 61), (3000, 40)])
def test_blocks_are_recognised(high: int, wide: int, shape: tuple[int, int]) -> None:
    layout = best_layout(csr_from_dense(blocks(*shape, high, wide)), "sell8")
    assert layout in {(16, 1): {"16x1", "8x1"}, (8, 4): {"8x4", "8x1", "4x4"}, (4, 4): {"4x4"}}[high, wide]


def test_single_weights_stay_single() -> None:
    weight = torch.randn(512, 128) * (torch.rand(512, 128) < 0.1)
    assert best_layout(csr_from_dense(weight), "sell8") == "sell8"
    assert best_layout(csr_from_dense(weight), "auto") == "auto"


def test_blocks_in_the_first_rows_alone_do_not_mislead() -> None:
    weight = torch.randn(4096, 32) * (torch.rand(4096, 32) < 0.1)
    weight[:1024] = blocks(1024, 32, 16, 1)
    assert best_layout(csr_from_dense(weight), "auto") == "auto"


def test_the_edges() -> None:
    assert best_layout(csr_from_dense(torch.zeros(5, 9)), "auto") == "auto"
    assert best_layout(csr_from_dense(torch.randn(64, 64)), "auto") in {"16x1", "8x1", "8x4", "4x4"}
    assert best_layout(csr_from_dense(torch.ones(1, 1)), "auto") == "auto"


@pytest.mark.parametrize(("cols", "expected"), [(3, {"8x1"}), (4, {"8x4"}), (65_536, {"8x4"}), (65_540, {"sell8"})])
def test_blocks_are_taken_where_the_engine_has_them(cols: int, expected: set[str]) -> None:
    """A block as wide as the engine's, and columns that 16 bits number; elsewhere it would refuse to pack."""
    weight = torch.zeros(8, cols)
    weight[:, -4:] = torch.randn(8, min(4, cols))
    csr = csr_from_dense(weight)
    assert best_layout(csr, "sell8") in expected
    if native.unavailable_reason() is None:
        native.pack(csr, best_layout(csr, "sell8"))
        for layout in () if 4 <= cols <= 65_536 else ("8x4", "4x4:int8"):
            with pytest.raises(
                UsageError, match=f"layout '{layout}' needs 4 to 65536 columns, found {cols}; use sell8"
            ):
                native.pack(csr, layout)

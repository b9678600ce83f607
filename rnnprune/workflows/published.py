"""Speed-ups that others published for the matrices of the paper, batch 1, to stand beside what is measured here.

DeepBench, by the paper's own laboratory: a sparse against a dense product on the device named. The ratios of the paper
itself are not listed: they compare matrices of different sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Published(NamedTuple):
    """Times as fast as dense, and where it was measured."""

    ratio: float
    source: str


_TITAN = "DeepBench, cuSPARSE against cuBLAS, Titan X Pascal"
PUBLISHED: Mapping[tuple[str, int], Published] = {  # shape, percent of zeros
    ("7680x2560", 90): Published(2.52, _TITAN),
    ("7680x2560", 95): Published(6.25, _TITAN),
    ("10752x3584", 90): Published(4.1, _TITAN),
    ("10752x3584", 95): Published(6.7, _TITAN),
}


def published_for(shape: str, sparsity: float, batch: int) -> Published | None:
    """What was published for this product, if anything."""
    return PUBLISHED.get((shape, round(100 * sparsity))) if batch == 1 else None

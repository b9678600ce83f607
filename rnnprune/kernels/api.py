"""The contract of every engine: a matrix is packed once and multiplied many times.

Sizes: rows x cols of the matrix, B columns of the right-hand side (batch). Activations are [features, B], so that a
sparse product walks contiguous memory. Engines are compared with `reference`, the truth, in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from rnnprune.kernels.csr import Csr

Product = Callable[[Tensor], Tensor]  # [cols, B] -> [rows, B]


class Engine(NamedTuple):
    """An engine's name, as it stands in every benchmark row, and how it packs a matrix."""

    name: str
    pack: Callable[[Csr], Product]

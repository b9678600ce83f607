"""Where a dense layer wins on a GPU whatever its zeros: the rules of `auto` that depend on the batch.

Computed from the limits of an H100, not measured (docs/benchmarks_gpu.md states them and has the place for figures):

- cuDNN has a persistent algorithm, about 2 us per step, for float16, a vanilla RNN or an LSTM of one direction and one
  layer with at most 1024 units and sizes that are multiples of 128, at a batch that is a multiple of 8.
- From batch 32 on, a product of single weights gathers more than a tensor core multiplies; blocks are not better off.
"""

from __future__ import annotations

import torch
from torch import nn

DENSE_FROM_BATCH = 32
PERSISTENT_HIDDEN, PERSISTENT_SIZES, PERSISTENT_BATCH = 1024, 128, 8


def dense_because(layer: nn.Module, batch: int) -> str | None:
    """Why this layer stays dense at this batch, in one sentence; None where the zeros decide."""
    if batch >= DENSE_FROM_BATCH:
        return f"batch {batch}: dense wins from batch {DENSE_FROM_BATCH} on"
    if isinstance(layer, nn.RNN | nn.LSTM) and _is_persistent(layer) and batch >= PERSISTENT_BATCH:
        return f"batch {batch}: cuDNN keeps a float16 layer of {layer.hidden_size} units on the chip, and dense wins"
    return None


def _is_persistent(layer: nn.RNNBase) -> bool:
    sizes = (layer.input_size, layer.hidden_size)
    return (
        layer.weight_hh_l0.dtype == torch.float16
        and layer.hidden_size <= PERSISTENT_HIDDEN
        and all(size % PERSISTENT_SIZES == 0 for size in sizes)
        and layer.num_layers == 1
        and not layer.bidirectional
    )

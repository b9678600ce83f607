"""From saliency to masks: exact counts, stable ties, single weights or blocks. True keeps a weight.

A block is a rectangle of the torch weight (rows x columns) that is kept or dropped whole; its score is its largest
saliency, as in Block-Sparse Recurrent Neural Networks (Narang, Undersander, Diamos, 2017), or its L2 norm. Blocks at
the edges of a shape that the block does not divide are cut off there.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from rnnprune.architecture import KIND_OF_GATE_COUNT
from rnnprune.errors import Diverged
from rnnprune.pruning.options import SINGLE_WEIGHT, Block, BlockNorm, NOfM


def drop_count(target: float, count: int) -> int:
    """How many of `count` weights (or blocks) a sparsity of `target` drops: round(target * count)."""
    return round(target * count)


def block_scores(
    scores: Float[Tensor, "rows cols"], block: Block, norm: BlockNorm = "max"
) -> Float[Tensor, "block_rows block_cols"]:
    """One score per block."""
    if block == SINGLE_WEIGHT:
        return scores
    rows, cols = scores.shape
    # Scores are never negative, so padding with zeros changes neither the largest nor the norm.
    padded = F.pad(scores, (0, -cols % block.cols, 0, -rows % block.rows))
    blocks = padded.reshape(-(-rows // block.rows), block.rows, -(-cols // block.cols), block.cols)
    return blocks.amax(dim=(1, 3)) if norm == "max" else blocks.square().sum(dim=(1, 3)).sqrt()


def expand_blocks(
    block_mask: Bool[Tensor, "block_rows block_cols"], block: Block, shape: tuple[int, int]
) -> Bool[Tensor, "rows cols"]:
    """The mask of the weights, from the mask of the blocks."""
    if block == SINGLE_WEIGHT:
        return block_mask
    rows, cols = shape
    return block_mask.repeat_interleave(block.rows, 0).repeat_interleave(block.cols, 1)[:rows, :cols].contiguous()


def recurrent_diagonal(rows: int, cols: int, device: torch.device | None = None) -> Bool[Tensor, "{rows} {cols}"]:
    """True where a unit feeds itself, in each gate of a recurrent matrix [G * H, H]; nowhere in any other shape."""
    gates_are_square = rows % cols == 0 and rows // cols in KIND_OF_GATE_COUNT
    row, col = torch.arange(rows, device=device), torch.arange(cols, device=device)
    return (row[:, None] % cols == col) & gates_are_square


def refuse_nan(scores: Float[Tensor, " count"], name: str = "a weight") -> None:
    """Raise Diverged when a score is NaN: no order exists then, and no threshold would catch it."""
    if torch.isnan(scores).any():
        raise Diverged(f"{name}: its saliency is NaN, the weights or the optimizer's moments have diverged")


def keep_most_salient(
    scores: Float[Tensor, " count"], keep: int, tie_break: Float[Tensor, " count"] | None = None
) -> Bool[Tensor, " count"]:
    """Keep exactly `keep` entries: the largest scores, among equals the largest `tie_break`, among equals the first.

    Same on every device.

    Raises Diverged when a score is NaN.
    """
    refuse_nan(scores)
    if keep == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    # Not topk: which of several equal scores it returns differs between devices (pytorch#127196).
    threshold = scores.kthvalue(scores.numel() - keep + 1).values
    mask = scores > threshold
    ties = (scores == threshold).nonzero().squeeze(1)
    if tie_break is not None:
        ties = ties[tie_break[ties].argsort(descending=True, stable=True)]
    mask[ties[: keep - int(mask.sum())]] = True
    return mask


def best_of_columns(
    scores: Float[Tensor, "rows cols"], tie_break: Float[Tensor, "rows cols"], n_of_m: NOfM
) -> Bool[Tensor, "rows cols"]:
    """True for the `keep` best of every `of` neighbouring columns of a row: the largest scores, ties as above."""
    rows, cols = scores.shape
    of = min(n_of_m.of, max(cols, 1))

    def windows(of_columns: Tensor) -> Tensor:
        return F.pad(of_columns, (0, -cols % of), value=-torch.inf).reshape(rows, -(-cols // of), of)

    order = windows(tie_break).argsort(dim=2, descending=True, stable=True)
    by_score = windows(scores).gather(2, order).argsort(dim=2, descending=True, stable=True)
    best = order.gather(2, by_score)[..., : n_of_m.keep]
    kept = torch.zeros(rows, -(-cols // of), of, dtype=torch.bool, device=scores.device)
    return kept.scatter_(2, best, True).flatten(1)[:, :cols]


def quantile(scores: Float[Tensor, " count"], share: float) -> float:
    """The score below which `share` of all scores lie (torch.quantile refuses more than 16 million elements)."""
    refuse_nan(scores)
    rank = min(drop_count(share, scores.numel()) + 1, scores.numel())
    return float(scores.kthvalue(rank).values)

"""The groups of weights that share one target: the arithmetic between a cut and the masks."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import NamedTuple

import torch
from torch import Tensor

from rnnprune.architecture import Shape, find_stacks
from rnnprune.errors import UsageError
from rnnprune.pruning.gates import WHOLE, gates_of
from rnnprune.pruning.masked_weight import MaskedWeight, start_from_zeros
from rnnprune.pruning.masks import (
    best_of_columns,
    block_scores,
    drop_count,
    expand_blocks,
    keep_most_salient,
    quantile,
    recurrent_diagonal,
    refuse_nan,
)
from rnnprune.pruning.options import SINGLE_WEIGHT, Block, BlockNorm, NOfM, Scope, Selection
from rnnprune.pruning.saliency import magnitude
from rnnprune.pruning.schedules import Cut
from rnnprune.pruning.selection import require_match

ScoreOf = Callable[[MaskedWeight], Tensor]

SURPLUS = 0.005  # share of weights that may be zero beyond the target: a few kept ones may have become zero by chance


class GroupUpdate(NamedTuple):
    """What one cut did to one group."""

    threshold: float  # the schedule's own, or the smallest saliency an exact cut kept
    plain_sparsity: float  # where the schedule's threshold alone would have landed
    guarded: bool  # that was beyond the target, so the guard held it there
    revived: int  # weights (or blocks) that came back


class Part(NamedTuple):
    """What a group ranks of a weight: all of its rows, or those of one gate. protected: never dropped, [rows, cols]."""

    weight: MaskedWeight
    rows: slice
    protected: Tensor | None = None

    @property
    def mask(self) -> Tensor:
        """The present mask of these rows."""
        return self.weight.mask[self.rows]

    def scores(self, score_of: ScoreOf) -> Tensor:
        """Of these rows; infinite where protected."""
        scores = score_of(self.weight)[self.rows]
        return scores if self.protected is None else scores.masked_fill(self.protected[self.rows], torch.inf)

    def set_mask(self, mask: Tensor) -> None:
        """The mask of these rows; those of others stay."""
        whole = self.weight.mask.clone()
        whole[self.rows] = mask
        self.weight.mask = whole


@dataclass
class Group:
    """Weights that are ranked against one another and reach their target together."""

    name: str
    target: float
    members: list[Part]
    block: Block
    block_norm: BlockNorm
    n_of_m: NOfM | None = None
    count: int = field(init=False)  # of blocks
    dropped_at_start: int = field(init=False)
    protected: int = field(init=False)

    def __post_init__(self) -> None:
        kept = self.kept()
        self.count, self.dropped_at_start = kept.numel(), int((~kept).sum())
        ones = self.scores(lambda weight: torch.ones_like(weight.weight, dtype=torch.float32))
        self.protected = int(ones.isinf().sum())

    def require_reachable(self) -> None:
        """Raise UsageError when the target would drop everything, or less than what was zero from the start."""
        count, zero, target = self.count, self.dropped_at_start, self.target
        first = self.members[0].weight.name
        names = ", ".join(dict.fromkeys(member.weight.name for member in self.members))
        if drop_count(target, count) == count:
            single = self.block == SINGLE_WEIGHT
            pieces, smaller = ("weights", "") if single else (f"{self.block} blocks", "a smaller --block, ")
            raise UsageError(
                f"{names}: a target of {target:g} rounds to all {count} of the {pieces}, and nothing would be left; "
                f"choose {smaller}a lower target, or --exclude {first}"
            )
        if self.protected > count - drop_count(target, count):
            raise UsageError(
                f"{names}: --keep-diagonal keeps {self.protected} of {count}, more than a target of {target:g} leaves; "
                "choose a lower target, a smaller --block, or let the diagonal go"
            )
        if self.n_of_m and (most := self._most_of_columns) < count - drop_count(target, count):
            raise UsageError(
                f"{names}: --n-of-m {self.n_of_m} leaves {most} of {count} at most, and a target of {target:g} more; "
                f"choose a target of {math.ceil(1e6 * (1 - most / count)) / 1e6:g} or above"
            )
        if zero > drop_count(target, count) + SURPLUS * count:
            raise UsageError(
                f"{names}: {100 * zero / count:.1f} % is zero already, above the target of "
                f"{100 * target:g} %, and zeros stay; raise the target, or --exclude {first} (zeros that "
                "are only the initial value: take one training step first)"
            )

    def scores(self, score_of: ScoreOf) -> Tensor:
        """Every member's block scores, flattened into one vector in a fixed order."""
        return torch.cat(
            [block_scores(member.scores(score_of), self.block, self.block_norm).flatten() for member in self.members]
        )

    def kept(self) -> Tensor:
        """The present mask of the blocks, in the order of `scores`."""
        corners = [member.mask[:: self.block.rows, :: self.block.cols] for member in self.members]
        return torch.cat([corner.flatten() for corner in corners])

    def quantile(self, score_of: ScoreOf, share: float) -> float:
        """q of equation 1: the score below which `share` of the group lies; at most the largest that may be dropped."""
        highest = (self.count - self.protected - 1) / self.count
        scores = self.scores(score_of)
        self._refuse_nan(scores)
        return quantile(scores, max(0.0, min(share, highest)))

    def cut(self, cut: Cut, score_of: ScoreOf, *, revive: bool = False) -> GroupUpdate:
        """Make the cut; without `revive` what is dropped stays dropped. Among equal scores the larger |w| stays.

        Raises Diverged when a score is NaN.
        """
        was_kept, scores = self.kept(), self.scores(score_of)
        if not revive:
            scores = scores.masked_fill(~was_kept, -1.0)  # below every true score
        self._refuse_nan(scores)

        plain = None if cut.threshold is None else scores >= cut.threshold
        guarded = plain is not None and int(plain.sum()) < self.count - drop_count(self.target, self.count)
        exact = self.target if guarded and cut.sparsity is None else cut.sparsity
        if exact is not None:
            kept = self._most_salient(scores, exact)
        elif plain is not None:
            kept = plain
        if not revive:
            kept = kept & was_kept  # ties among dropped weights must not bring one back
        self._set_masks(kept)

        landed = kept if plain is None else plain
        smallest_kept = float(scores[kept].amin()) if kept.any() else float("inf")
        return GroupUpdate(
            threshold=smallest_kept if cut.threshold is None else cut.threshold,
            plain_sparsity=1.0 - int(landed.sum()) / landed.numel(),
            guarded=guarded,
            revived=int((kept & ~was_kept).sum()),
        )

    def _most_salient(self, scores: Tensor, sparsity: float) -> Tensor:
        keep = self.count - drop_count(sparsity, self.count)
        magnitudes = self.scores(lambda member: magnitude(member.weight, {}))
        if self.n_of_m is None:
            return keep_most_salient(scores, keep, magnitudes)
        # What a row may not keep goes first; only then does saliency alone decide.
        allowed = self._allowed_by_columns(scores, magnitudes, self.n_of_m)
        if keep > int(allowed.sum()):
            return keep_most_salient(scores.masked_fill(allowed, torch.inf), keep, magnitudes)
        return keep_most_salient(scores.masked_fill(~allowed, -torch.inf), keep, magnitudes)

    def _allowed_by_columns(self, scores: Tensor, magnitudes: Tensor, n_of_m: NOfM) -> Tensor:
        grids = zip(self._by_member(scores), self._by_member(magnitudes), strict=True)
        return torch.cat([best_of_columns(*pair, n_of_m).flatten() for pair in grids])

    @property
    def _most_of_columns(self) -> int:
        assert self.n_of_m is not None
        ones = torch.ones(self.count, device=self.members[0].mask.device)
        return int(self._allowed_by_columns(ones, ones, self.n_of_m).sum())

    def _set_masks(self, kept: Tensor) -> None:
        for member, part in zip(self.members, self._by_member(kept), strict=True):
            rows, cols = member.mask.shape
            member.set_mask(expand_blocks(part, self.block, (rows, cols)))

    def _refuse_nan(self, scores: Tensor) -> None:
        for member, part in zip(self.members, self._by_member(scores), strict=True):
            refuse_nan(part.flatten(), member.weight.name)

    def _by_member(self, flat: Tensor) -> list[Tensor]:
        """Every member's grid of blocks, out of one vector in the order of `scores`."""
        grids = [member.mask[:: self.block.rows, :: self.block.cols].shape for member in self.members]
        parts = torch.split(flat, [grid.numel() for grid in grids])
        return [part.reshape(grid) for part, grid in zip(parts, grids, strict=True)]


def group_weights(
    weights: Sequence[MaskedWeight], selection: Selection, shapes: Mapping[str, Shape], target: float
) -> list[Group]:
    """One group per gate, tensor, or type of layer (recurrent with its inputs, linear), or one for the whole model.

    What `selection.target_of` matches is a group of its own; all others reach `target`.

    What is at least half zeros already, a weight or all of them together, starts with these dropped, so that a pruned
    model is pruned further.
    selection: with a scope. shapes: of all parameters, pruned or not. Raises UsageError as `gates_of` does, for a
    target that cannot be reached, and for a pattern of `target_of` that matches nothing that is pruned.
    """
    assert selection.scope is not None
    members: dict[tuple[str, float], list[Part]] = {}
    names: set[str] = set()
    shared = False
    layers = find_stacks(shapes)
    start_from_zeros(weights, selection.block)
    for weight in weights:
        protected = None
        if selection.keep_diagonal and weight.role == "recurrent":
            rows, cols = weight.mask.shape
            protected = recurrent_diagonal(rows, cols, weight.mask.device)
        named = gates_of(weight.name, weight.role, layers, selection.block) if selection.scope == "gate" else WHOLE
        for gate, rows_of_gate in named.items():
            own = f"{weight.name}{gate}"
            told = {*weight.names, *(f"{name}{gate}" for name in weight.names)}
            names |= told
            own_target = _own_target(told, selection.target_of)
            shared |= own_target is None
            group = (own, own_target) if own_target else (f"{_group_name(weight, selection.scope)}{gate}", target)
            members.setdefault(group, []).append(Part(weight, rows_of_gate, protected))
    for pattern, _ in selection.target_of:
        require_match("target-of", pattern, names, "tensor that is pruned (and a gate only under --scope gate)")
    if not shared:
        raise UsageError("--target-of covers all that is pruned, and nothing is left for --target; say it by --target")
    groups = [
        Group(*key, parts, selection.block, selection.block_norm, selection.n_of_m) for key, parts in members.items()
    ]
    for each in groups:
        each.require_reachable()
    return groups


def _own_target(names: Collection[str], target_of: Sequence[tuple[str, float]]) -> float | None:
    matching = [target for pattern, target in target_of if any(fnmatchcase(name, pattern) for name in names)]
    return matching[-1] if matching else None


def _group_name(weight: MaskedWeight, scope: Scope) -> str:
    names: Mapping[Scope, str] = {
        "gate": weight.name,
        "tensor": weight.name,
        "type": weight.role if weight.role in ("linear", "unknown") else "recurrent",
        "model": "model",
    }
    return names[scope]

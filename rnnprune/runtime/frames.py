"""Sequences as the runners take them: a plain [T, B, F] tensor, or the runs of equal batch inside a PackedSequence.

A packed sequence holds its longest members first, so the batch only shrinks over time: each stretch of time with one
batch size is a contiguous [T, B, F] piece. Nothing is padded, and a direction that runs backwards picks each member
up at its own end.

T time, B batch, F features, N frames in a packed sequence.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from jaxtyping import Float
from torch import Tensor

from rnnprune.kernels.native_layer import State
from rnnprune.runtime.engines import Runner


@dataclass(frozen=True)
class Frames:
    """`data` is [T, B, F], or [N, F] where `stretches` gives (time, batch) of each piece, batches falling."""

    data: Tensor
    stretches: tuple[tuple[int, int], ...] = ()

    @property
    def batch(self) -> int:
        """The number of sequences."""
        return self.stretches[0][1] if self.stretches else self.data.shape[1]

    def pieces(self, first: int = 0, features: int | None = None) -> list[Float[Tensor, "time batch features"]]:
        """Views of the pieces, or of `features` columns of them from `first` on."""
        columns = self.data if features is None else self.data.narrow(-1, first, features)
        if not self.stretches:
            return [columns]
        parts = torch.split(columns, [time * batch for time, batch in self.stretches])
        return [part.view(*stretch, columns.shape[-1]) for part, stretch in zip(parts, self.stretches, strict=True)]

    def empty_like(self, features: int) -> Frames:
        """Frames of the same structure; a batch-first tensor stays batch first in memory."""
        if self.stretches:
            return Frames(self.data.new_empty(len(self.data), features), self.stretches)
        time, batch, _ = self.data.shape
        if self.data.stride(0) < self.data.stride(1):
            return Frames(self.data.new_empty(batch, time, features).transpose(0, 1))
        return Frames(self.data.new_empty(time, batch, features))


def stretches_of(batch_sizes: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """[3, 3, 2, 1] -> (2, 3), (1, 2), (1, 1)."""
    return tuple((len(list(same)), batch) for batch, same in groupby(batch_sizes))


def run_direction(runner: Runner, xs: Sequence[Tensor], ys: Sequence[Tensor], state: State, *, reverse: bool) -> State:
    """Run one direction over all pieces into `ys`; the state of every sequence after its own last frame."""
    if len(xs) == 1:
        return runner.run(xs[0], state, reverse, ys[0])[1]
    state = tuple(part.clone() for part in state)
    pieces = list(zip(xs, ys, strict=True))
    for x, y in reversed(pieces) if reverse else pieces:
        batch = x.shape[1]
        after = runner.run(x, tuple(part[:batch] for part in state), reverse, y)[1]
        for part, new in zip(state, after, strict=True):
            part[:batch] = new
    return state

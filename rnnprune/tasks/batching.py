"""Items of different lengths in batches of like lengths, shuffled: a pure function of epoch, seed and rank."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from rnnprune.errors import UsageError

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class Batches(Generic[Batch]):
    """Batches made one by one when they are asked for. Sized; may be iterated any number of times.

    indices: the items of every batch. collate: turns them into what the task's loss takes.
    """

    indices: Sequence[Sequence[int]]
    collate: Callable[[Sequence[int]], Batch]

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Batch]:
        return (self.collate(batch) for batch in self.indices)


def bucketed(
    lengths: Sequence[int], batch_size: int, *, epoch: int, seed: int, rank: int, world_size: int
) -> list[list[int]]:
    """One process's batches of item indices: neighbours in length share a batch, batches come in random order.

    Items of one length are shuffled among themselves, so that epochs differ. Every process gets equally many batches
    and no item twice; what is left over (others in every epoch) is skipped. Raises UsageError for an impossible rank,
    or fewer items than processes.
    """
    if not 0 <= rank < world_size:
        raise UsageError(f"rank {rank} of {world_size}: expected 0 <= rank < world_size")
    size = min(batch_size, len(lengths) // world_size)
    if size == 0:
        raise UsageError(f"{len(lengths)} training items cannot feed {world_size} processes; use more data")
    random = np.random.default_rng((seed, epoch))
    count = len(lengths) // (size * world_size) * world_size
    kept = random.permutation(len(lengths))[: count * size]
    by_length = kept[np.argsort(np.asarray(lengths)[kept], kind="stable")]
    batches = by_length.reshape(count, size)[random.permutation(count)]
    return [batch.tolist() for batch in batches[rank::world_size]]

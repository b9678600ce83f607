"""Bucketed batches: like lengths together, every item at most once, the same for the same arguments."""

from itertools import pairwise

import pytest

from rnnprune.errors import UsageError
from rnnprune.tasks.batching import Batches, bucketed

LENGTHS = [(7 * item) % 23 + 1 for item in range(101)]


@pytest.mark.parametrize(("batch_size", "world_size"), [(4, 1), (4, 2), (10, 3), (101, 1), (500, 1), (1, 101)])
def test_the_ranks_share_an_epoch_without_overlap(batch_size, world_size):
    shards = [
        bucketed(LENGTHS, batch_size, epoch=3, seed=1, rank=rank, world_size=world_size) for rank in range(world_size)
    ]
    assert len({len(shard) for shard in shards}) == 1
    sizes = {len(batch) for shard in shards for batch in shard}
    assert sizes == {min(batch_size, 101 // world_size)}
    items = [item for shard in shards for batch in shard for item in batch]
    assert len(items) == len(set(items))
    assert 101 - len(items) < min(batch_size, 101 // world_size) * world_size


def test_neighbours_in_length_share_a_batch_and_batches_are_shuffled():
    batches = bucketed(LENGTHS, 5, epoch=0, seed=0, rank=0, world_size=1)
    ranges = [(min(LENGTHS[i] for i in batch), max(LENGTHS[i] for i in batch)) for batch in batches]
    by_length = sorted(ranges)
    assert all(here[1] <= after[0] for here, after in pairwise(by_length))
    assert ranges != by_length


def test_epochs_and_seeds_differ_and_the_same_arguments_agree():
    def draw(epoch, seed):
        return bucketed(LENGTHS, 4, epoch=epoch, seed=seed, rank=0, world_size=1)

    assert draw(1, 2) == draw(1, 2)
    assert len({str(draw(epoch, seed)) for epoch in range(3) for seed in range(3)}) == 9


@pytest.mark.parametrize(("rank", "world_size", "message"), [(1, 1, "rank 1 of 1"), (0, 200, "cannot feed 200")])
def test_impossible_shares_are_usage_errors(rank, world_size, message):
    with pytest.raises(UsageError, match=message):
        bucketed(LENGTHS, 4, epoch=0, seed=0, rank=rank, world_size=world_size)


def test_batches_are_sized_and_can_be_read_twice():
    batches = Batches([[0, 1], [2]], lambda items: sum(items))
    assert len(batches) == 2
    assert list(batches) == list(batches) == [1, 2]

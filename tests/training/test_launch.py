"""Several processes: which exit code is theirs together, and where they find each other."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch.distributed as dist

from rnnprune.training import meeting
from rnnprune.training.launch import blamed


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([0, 0], 0),
        ([143, -9], 137),  # rank 0 lost rank 1
        ([143, 6], 6),
        ([2, None], 2),
        ([143, 143], 143),  # a signal to all
        ([-15, 130], 143),
        ([None, 5, 3], 5),
        ([0, 143], 143),
    ],
)
def test_the_exit_code_is_that_of_the_process_that_failed_by_itself(codes: list[int | None], expected: int) -> None:
    assert blamed(codes) == expected


def start(store: dist.Store, world_size: int) -> set[str]:
    """The names by which the processes of one start, here threads, call it."""
    with ThreadPoolExecutor(world_size) as pool:
        first = pool.submit(meeting._welcome_all, store, world_size)
        others = [pool.submit(meeting._be_welcomed, store, rank) for rank in range(1, world_size)]
        return {first.result(), *(other.result() for other in others)}


def test_every_start_has_a_name_of_its_own_in_a_store_that_is_kept() -> None:
    store = dist.HashStore()
    names = [start(store, world_size) for world_size in (4, 4, 2, 3)]
    assert [len(name) for name in names] == [1, 1, 1, 1]
    assert len(set.union(*names)) == 4


def test_what_a_start_that_died_left_in_the_store_misleads_nobody() -> None:
    store = dist.HashStore()
    store.set("hello/1", "a word of the dead")
    store.set("welcome/a word of the dead", "a name of the dead")
    store.set("a name of the dead/2", "")
    assert len(start(store, 3)) == 1


def test_a_process_that_does_not_come_is_waited_for_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meeting, "PATIENCE", timedelta(0))
    with pytest.raises(dist.DistStoreError, match="rank 1 did not come within 0:00:00"):
        meeting._welcome_all(dist.HashStore(), 2)
    with pytest.raises(dist.DistStoreError, match="rank 0 did not come"):
        meeting._be_welcomed(dist.HashStore(), 1)

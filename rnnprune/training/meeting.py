"""Where the processes of one start find each other: a store that no earlier start has written to.

torchrun keeps one store over all its restarts and tells no process which restart it belongs to (its own count of them
differs from machine to machine). gloo then finds the addresses of processes that are dead, and is refused.
"""

from __future__ import annotations

import secrets
import time
from datetime import timedelta

from torch.distributed import DistStoreError
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

PATIENCE = timedelta(minutes=30)  # for all to be started
SECONDS_BETWEEN_LOOKS = 0.02


def meet() -> tuple[Store, int, int]:
    """A store of this start's own, this process's rank and the number of processes, as torch's `env://` is told them.

    Raises torch's DistStoreError where a process does not come.
    """
    store, rank, world_size = next(rendezvous("env://", timeout=PATIENCE))
    name = _welcome_all(store, world_size) if rank == 0 else _be_welcomed(store, rank)
    return PrefixStore(name, store), rank, world_size


def _welcome_all(store: Store, world_size: int) -> str:
    """Name this start and tell it to whoever says hello, until each has answered under that name.

    A hello may be an earlier start's: to welcome that one does no harm, and its answer does not come.
    """
    name = secrets.token_hex(8)
    for rank in range(1, world_size):
        deadline = time.monotonic() + PATIENCE.total_seconds()
        while not store.check([f"{name}/{rank}"]):
            if store.check([f"hello/{rank}"]):
                store.set(f"welcome/{store.get(f'hello/{rank}').decode()}", name)
            _rest_until(deadline, f"rank {rank}")
    return name


def _be_welcomed(store: Store, rank: int) -> str:
    """Say hello with a word that nobody said before; the name that comes back is of a first process that lives."""
    word = secrets.token_hex(8)
    store.set(f"hello/{rank}", word)
    deadline = time.monotonic() + PATIENCE.total_seconds()
    while not store.check([f"welcome/{word}"]):
        _rest_until(deadline, "rank 0")
    name: str = store.get(f"welcome/{word}").decode()
    store.set(f"{name}/{rank}", "")
    return name


def _rest_until(deadline: float, awaited: str) -> None:
    """In Python and not inside the store, where no signal would be heard."""
    if time.monotonic() > deadline:
        raise DistStoreError(f"{awaited} did not come within {PATIENCE}")
    time.sleep(SECONDS_BETWEEN_LOOKS)

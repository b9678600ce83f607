"""The processes that train one model together: what each must hear from the others, in torch's own collectives.

Alone there is nobody to hear from, and every question answers itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from rnnprune.errors import Diverged, Interrupted
from rnnprune.tasks.protocol import Task
from rnnprune.training.launch import end_with_the_launcher
from rnnprune.training.meeting import meet


class _Loss(nn.Module):
    """The task's loss as a forward pass, since that is where DistributedDataParallel listens."""

    def __init__(self, model: nn.Module, task: Task) -> None:
        super().__init__()
        self.model = model
        self._loss = task.loss

    def forward(self, batch: Any) -> Tensor:
        return self._loss(self.model, batch)


class Workers:
    """One process's place among all: rank, from 0, of world_size."""

    def __init__(self, rank: int = 0, world_size: int = 1) -> None:
        self.rank, self.world_size = rank, world_size

    @property
    def is_first(self) -> bool:
        """Whether this is the process that decides, scores and writes."""
        return self.rank == 0

    def loss_of(self, model: nn.Module, task: Task) -> Callable[[Any], Tensor]:
        """batch -> loss; among several, its backward pass leaves the mean of all gradients in every process."""
        loss = _Loss(model, task)
        if self.world_size == 1:
            return loss
        # Without the search for unused parameters DDP reorders its sums after the first step, and a run that was
        # resumed would add in another order than one that was not.
        return DistributedDataParallel(loss, find_unused_parameters=True)

    def any(self, *flags: bool) -> list[bool]:
        """Each flag, true where it is true for anybody."""
        if self.world_size == 1:
            return list(flags)
        raised = torch.tensor(flags, dtype=torch.uint8)
        dist.all_reduce(raised, dist.ReduceOp.MAX)
        return [bool(flag) for flag in raised]

    def mean(self, value: float) -> float:
        """The mean over all; NaN where anybody's is."""
        if self.world_size == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(total)
        return float(total) / self.world_size

    def gather(self, value: Any) -> list[Any]:
        """Everybody's plain data, in the order of the ranks."""
        if self.world_size == 1:
            return [value]
        text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        length = torch.tensor(len(text))
        lengths = [torch.empty_like(length) for _ in range(self.world_size)]
        dist.all_gather(lengths, length)
        longest = max(map(int, lengths))
        padded = torch.cat((text, text.new_zeros(longest - len(text))))
        texts = [torch.empty_like(padded) for _ in range(self.world_size)]
        dist.all_gather(texts, padded)
        return [json.loads(each[:size].numpy().tobytes()) for each, size in zip(texts, lengths, strict=True)]

    def share(self, masks: Sequence[Tensor]) -> list[Tensor]:
        """The first process's masks for everybody, compared by their hash. Raises Diverged where one differs."""
        if self.world_size == 1:
            return list(masks)
        shared = [mask.to("cpu", torch.uint8) for mask in masks]
        for mask in shared:
            dist.broadcast(mask, 0)
        hashes = self.gather(hash_of(shared))
        if differing := [rank for rank, each in enumerate(hashes) if each != hashes[0]]:
            raise Diverged(f"the masks of rank {differing} are not those of rank 0; the run is stopped")
        return [mask.to(old.device, torch.bool) for mask, old in zip(shared, masks, strict=True)]


ALONE = Workers()


PATIENCE = timedelta(hours=6)  # for the first process to score the model, while the others wait
_TOLD_BY_TORCHRUN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@contextmanager
def joined_workers(device: str) -> Iterator[Workers]:
    """This process's place among those that torchrun (or `--nproc`) started; alone where none of that is told.

    Raises Interrupted, as after SIGTERM, where another of them cannot be reached any more.
    """
    if any(name not in os.environ for name in _TOLD_BY_TORCHRUN) or os.environ["WORLD_SIZE"] == "1":
        yield ALONE
        return
    if device.startswith("cuda"):
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    end_with_the_launcher()
    try:
        backend = "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo"
        store, rank, world_size = meet()
        dist.init_process_group(backend, timeout=PATIENCE, world_size=world_size, rank=rank, store=store)
        yield Workers(rank, world_size)
    except RuntimeError as error:
        if not _is_of_another(error):
            raise
        reason = str(error).partition(" This is typically")[0]
        raise Interrupted(
            signal.SIGTERM,
            f"rank {os.environ['RANK']} lost another of the {os.environ['WORLD_SIZE']} processes ({reason}); "
            "the same command goes on from the last state that was saved",
        ) from error
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _is_of_another(error: RuntimeError) -> bool:
    """Whether it tells of a process that cannot be reached; gloo's own errors are known by their text alone."""
    return isinstance(error, dist.DistError) or "gloo/transport" in str(error) or "Gloo connect" in str(error)


def hash_of(masks: Sequence[Tensor]) -> str:
    """SHA-256 of the masks' bytes, one after the other."""
    found = hashlib.sha256()
    for mask in masks:
        found.update(mask.to("cpu", torch.uint8).numpy().tobytes())
    return found.hexdigest()

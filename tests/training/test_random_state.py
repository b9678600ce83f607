"""Every generator goes on from where its state was taken, through JSON and back."""

import json
import random
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rnnprune.training.random_state import random_state, seed_all, set_random_state

CPU = torch.device("cpu")


class Draws:
    """A task with generators of its own."""

    metric, goal = "mse", "min"

    def __init__(self) -> None:
        self.of_torch = torch.Generator().manual_seed(1)
        self.of_numpy = np.random.default_rng(2)
        self.of_numpy_too = np.random.Generator(np.random.MT19937(3))
        self.of_old_numpy = np.random.RandomState(5)
        self.of_python = random.Random(4)

    def build_model(self) -> nn.Module:
        raise NotImplementedError

    def train_batches(self, *, epoch: int, seed: int, rank: int, world_size: int) -> Iterable[Any]:
        raise NotImplementedError

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        raise NotImplementedError

    def evaluate(self, model: nn.Module, split: str) -> Mapping[str, float]:
        raise NotImplementedError


def draws(task: Draws) -> list[float]:
    return [
        torch.rand(1).item(),
        np.random.rand(),
        np.random.randn(),  # leaves a second one behind for the next call
        random.random(),
        random.gauss(0, 1),
        torch.rand(1, generator=task.of_torch).item(),
        task.of_numpy.random(),
        task.of_numpy_too.random(),
        task.of_old_numpy.randn(),
        task.of_python.gauss(0, 1),
    ]


def test_all_generators_go_on_where_they_were() -> None:
    task = Draws()
    draws(task)
    state = json.loads(json.dumps(random_state(task, CPU)))
    expected = [draws(task) for _ in range(3)]
    task = Draws()
    seed_all(99)
    for _ in range(2):  # not as often as before
        draws(task)
    set_random_state(state, task, CPU)
    assert [draws(task) for _ in range(3)] == expected


def test_a_seed_fixes_the_global_ones_and_another_gives_others() -> None:
    def drawn(seed: int) -> list[float]:
        seed_all(seed)
        return [torch.rand(1).item(), np.random.rand(), random.random()]

    assert drawn(2**63 - 1) == drawn(2**63 - 1)
    assert all(a != b for a, b in zip(drawn(0), drawn(1), strict=True))

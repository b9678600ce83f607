"""A run that draws from every random number generator, and an observer that stops it: for the tests of resuming."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import torch

from rnnprune.pruning.options import PruningOptions, Timing
from rnnprune.tasks.source import DataOptions
from rnnprune.training.loop import StepRecord
from rnnprune.training.recipe import Recipe
from rnnprune.workflows.finetune import FinetuneRequest, Observer
from rnnprune.workflows.subject import TaskChoice

TASK = '''
import random
import numpy as np, torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.norm = nn.LSTM(6, 8, batch_first=True), nn.BatchNorm1d(8)
        self.drop, self.out = nn.Dropout(0.3), nn.Linear(8, 2)

    def forward(self, x):
        return self.out(self.drop(self.norm(self.rnn(x)[0][:, -1])))

class Noisy:
    """Draws from all generators but Python's global one, from which beartype draws, who watches these tests; seven
    batches an epoch, shuffled by torch's own loader."""
    metric, goal = "mse", "min"

    def __init__(self, data):
        self.x = torch.tensor(np.loadtxt(data), dtype=torch.float32).view(28, 5, 6)
        self.torch_random, self.numpy_random = torch.Generator().manual_seed(1), np.random.default_rng(2)
        self.python_random = random.Random(3)

    def build_model(self):
        return Net()

    def train_batches(self, *, epoch, seed, rank, world_size):
        return torch.utils.data.DataLoader(self.x, batch_size=4, shuffle=True)

    def loss(self, model, batch):
        noise = np.random.rand() + self.numpy_random.random() + self.python_random.random()
        drawn = torch.randn(len(batch), 2, generator=self.torch_random)
        return (model(batch) - batch.sum((1, 2))[:, None] - 0.1 * noise - 0.1 * drawn).square().mean()

    def evaluate(self, model, split):
        return {"mse": (model(self.x) - self.x.sum((1, 2))[:, None]).square().mean().item() + 0.001 * np.random.rand()}

def make(data):
    return Noisy(data)
'''
STEPS = 40
Where = tuple[str, int]


def write_task() -> None:
    """The task, its data and a dense checkpoint, in the current folder."""
    Path("noisy.py").write_text(TASK)
    Path("numbers.txt").write_text("\n".join(f"{value:.6f}" for value in torch.randn(28 * 5 * 6).tolist()))
    namespace: dict[str, Any] = {}
    exec(TASK, namespace)
    torch.manual_seed(0)
    torch.save(namespace["Net"]().state_dict(), "dense.pt")


class StopsAt(Observer):
    """Sends this process a signal at the next of these steps."""

    def __init__(self, stops: list[Where], number: int = signal.SIGINT) -> None:
        self.stops, self.number, self.notes = list(stops), number, list[str]()

    def step(self, phase: str, record: StepRecord) -> None:
        if self.stops and self.stops[0] == (phase, record.step):
            self.stops.pop(0)
            signal.raise_signal(self.number)

    def note(self, text: str) -> None:
        self.notes.append(text)


CASES = {
    "cubic fisher adam": (PruningOptions(0.8, timing=Timing(frequency=5)), Recipe(STEPS, lr=0.01)),
    "revive magnitude sgd": (
        PruningOptions(0.8, "gradual", "magnitude", Timing(frequency=5, revive=True, aim=True)),
        Recipe(STEPS, optimizer="sgd", lr=0.01),
    ),
    "cubic fisher sgd": (PruningOptions(0.8, timing=Timing(frequency=5)), Recipe(STEPS, optimizer="sgd", lr=0.01)),
}


def request_of(case: str, run: str, **more: Any) -> FinetuneRequest:
    pruning, recipe = CASES[case]
    task = TaskChoice("noisy.py:make", DataOptions(Path("numbers.txt")))
    return FinetuneRequest(Path("dense.pt"), task, pruning, recipe, control=True, out=Path(run), **more)

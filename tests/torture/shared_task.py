"""A task whose items several processes share out, and which kills any of them where it is told to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

TASK = '''
import os, signal, time
from pathlib import Path
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.drop, self.out = nn.LSTM(6, 16, batch_first=True), nn.Dropout(DROPOUT), nn.Linear(16, 2)

    def forward(self, x):
        return self.out(self.drop(self.rnn(x)[0][:, -1]))

class Shared:
    """16 items a step, shared out among the processes."""
    metric, goal = "mse", "min"
    calls = 0

    def build_model(self):
        self.perish("start")
        return Net()

    def train_batches(self, *, epoch, seed, rank, world_size):
        items = torch.randn(7, 16, 5, 6, generator=torch.Generator().manual_seed(1000 * seed + epoch))
        if "NAN" in os.environ and epoch == 1 and rank == int(os.environ["NAN"]):
            items[2, -1] = float("nan")
        return list(items.view(7, world_size, 16 // world_size, 5, 6)[:, rank])

    def loss(self, model, batch):
        self.calls += 1
        self.perish(self.calls)
        time.sleep(float(os.environ.get("SLOW", 0)))
        return (model(batch) - batch.sum((1, 2))[:, None]).square().mean()

    def evaluate(self, model, split):
        self.perish("evaluation")
        x = torch.ones(4, 5, 6)
        return {"mse": (model(x) - 30).square().mean().item()}

    def perish(self, where):
        """kill -9 itself, once for each of PERISH, in their order: `rank where`."""
        kills = os.environ.get("PERISH", "").split(",")
        done = len(list(Path().glob("perished*")))
        if done < len(kills) and kills[done] == f"{os.environ.get('RANK')} {where}":
            Path(f"perished{done}").touch()
            os.kill(os.getpid(), signal.SIGKILL)

def make():
    return Shared()
'''


def write_task(dropout: float = 0.3) -> None:
    source = TASK.replace("DROPOUT", str(dropout))
    Path("shared.py").write_text(source)
    namespace: dict[str, Any] = {}
    exec(source, namespace)
    torch.manual_seed(0)
    torch.save(namespace["Net"]().state_dict(), "dense.pt")

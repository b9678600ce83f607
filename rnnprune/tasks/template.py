"""A task for rnnprune: your model, your data, your loss and your metric. Change the four numbered parts.

It works as it stands, on made-up data, so that you can try every command before you change anything:

    python my_task.py                                           writes my_model.pt, an untrained checkpoint
    rnnprune task check my_task.py:make my_model.pt
    rnnprune finetune my_model.pt --task my_task.py:make --target 0.9 --steps 200

Nothing of rnnprune is imported here, and nothing has to be.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

BATCH_SIZE = 16


# 1. Your model: the class whose state dict your checkpoint holds. Names and shapes must fit exactly.
class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(input_size=8, hidden_size=64, batch_first=True)
        self.output = nn.Linear(64, 8)

    def forward(self, x: Tensor) -> Tensor:
        hidden, _ = self.rnn(x)
        predicted: Tensor = self.output(hidden)
        return predicted


class Task:
    metric = "MSE"  # the figure that decides, a key of what evaluate() returns
    goal = "min"  # "max" where a larger figure is better

    # 2. Your data: three splits that never share an example. `data` is the path given with --data, or None.
    def __init__(self, data: Path | None = None) -> None:
        waves = made_up_waves() if data is None else torch.from_numpy(np.load(data))  # [examples, time, features]
        train, validation = len(waves) * 8 // 10, len(waves) * 9 // 10
        self.splits = {"train": waves[:train], "validation": waves[train:validation], "test": waves[validation:]}

    def build_model(self) -> nn.Module:
        return Model()

    def train_batches(self, *, epoch: int, seed: int, rank: int, world_size: int) -> list[Tensor]:
        """One epoch for one of `world_size` processes: the same arguments must always give the same batches."""
        train = self.splits["train"]
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(1_000_003 * seed + epoch))
        batches = torch.split(order, BATCH_SIZE)
        share = len(batches) // world_size  # every process takes equally many steps
        return [train[batch] for batch in batches[rank::world_size][:share]]

    # 3. Your loss: a scalar for one batch, which is already on the model's device.
    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        return F.mse_loss(model(batch[:, :-1]), batch[:, 1:])

    # 4. Your metric, on the "validation" or the "test" split; called in eval mode, without gradients.
    def evaluate(self, model: nn.Module, split: str) -> Mapping[str, float]:
        x = self.splits[split]
        x = x.to(next(model.parameters(), x).device)  # a sparse model may have no parameters left
        return {"MSE": F.mse_loss(model(x[:, :-1]), x[:, 1:]).item()}


def made_up_waves() -> Tensor:
    phase, pitch = torch.rand(2, 1000, 1, 8, generator=torch.Generator().manual_seed(0))
    return torch.sin(6.28 * phase + pitch * torch.arange(33).view(33, 1))


def make(data: Path | None = None) -> Task:
    return Task(data)


if __name__ == "__main__":
    torch.save(make().build_model().state_dict(), "my_model.pt")
    print("my_model.pt: an untrained checkpoint of this model")

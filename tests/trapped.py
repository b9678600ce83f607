"""A small LSTM, its steps and its zeros, for the tests of the traps."""

import torch
from torch import nn

from rnnprune.pruning.pruner import Pruner
from rnnprune.pruning.schedules import Cubic, Schedule

X = torch.randn(5, 4, 6, generator=torch.Generator().manual_seed(0))
WEIGHTS = ("weight_ih_l0", "weight_hh_l0")


def backward(model: nn.Module) -> None:
    (model(X)[0] - X.mean()).square().mean().backward()


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, pruner: Pruner | None, count: int) -> None:
    for _ in range(count):
        optimizer.zero_grad()
        backward(model)
        optimizer.step()
        if pruner is not None:
            pruner.step()


def pruned_lstm(schedule: Schedule | None = None, count: int = 10) -> tuple[nn.LSTM, torch.optim.Optimizer, Pruner]:
    model = nn.LSTM(6, 8)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    pruner = Pruner(model, optimizer, schedule or Cubic(1, 8, 2))
    steps(model, optimizer, pruner, count)
    return model, optimizer, pruner


def sparsity(model: nn.Module) -> float:
    weights = [tensor for name, tensor in model.named_parameters() if name.endswith(WEIGHTS)]
    return 1.0 - sum(int(weight.count_nonzero()) for weight in weights) / sum(weight.numel() for weight in weights)

"""The tasks on which the loop is tested."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rnnprune.training.loop import build_optimizer
from rnnprune.training.recipe import Recipe


class Echo:
    """Predict the sum of the inputs; four batches an epoch, drawn from epoch and seed."""

    metric, goal = "mse", "min"
    batches_an_epoch = 4

    def build_model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Dropout(0.2), nn.Linear(16, 1))

    def train_batches(self, *, epoch: int, seed: int, rank: int, world_size: int) -> Iterable[Any]:  # noqa: ARG002
        generator = torch.Generator().manual_seed(1000 * seed + epoch)
        return [torch.randn(8, 3, generator=generator) for _ in range(self.batches_an_epoch)]

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        return (model(batch) - batch.sum(-1, keepdim=True)).square().mean()

    def evaluate(self, model: nn.Module, split: str) -> Mapping[str, float]:  # noqa: ARG002
        x = torch.ones(4, 3)
        return {"mse": (model(x) - 3.0).square().mean(), "training": float(model.training)}  # type: ignore[dict-item]


class Stream(Echo):
    def train_batches(self, **where: int) -> Iterable[Any]:
        yield from super().train_batches(**where)  # type: ignore[arg-type]


def start(recipe: Recipe, seed: int = 0) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = Echo().build_model()
    return model, build_optimizer(model, recipe)

"""A hundred and a thousand steps under every optimizer: what was dropped is +0.0, its moments zero, all along."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from rnnprune.pruning.pruner import Pruner
from rnnprune.pruning.schedules import Cubic, Gradual, Hard, Schedule

Build = Callable[[nn.Module], torch.optim.Optimizer]

OPTIMIZERS: dict[str, Build] = {
    "sgd momentum": lambda m: torch.optim.SGD(m.parameters(), 0.05, momentum=0.9, weight_decay=1e-3),
    "sgd nesterov": lambda m: torch.optim.SGD(m.parameters(), 0.05, momentum=0.9, nesterov=True),
    "adam": lambda m: torch.optim.Adam(m.parameters(), 0.01, weight_decay=1e-3, amsgrad=True),
    "adamw": lambda m: torch.optim.AdamW(m.parameters(), 0.01, weight_decay=0.1),
}


def bits(tensor: Tensor) -> Tensor:
    return tensor.detach().view(torch.int32)


@pytest.mark.parametrize("steps", [100, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("build", "schedule"),
    [(build, Cubic(5, 30, 5)) for build in OPTIMIZERS.values()]
    + [(OPTIMIZERS["adamw"], Gradual(5, 15, 30, 5, revive=True))],
    ids=[*OPTIMIZERS, "adamw, revive"],
)
def test_zeros_stay_zero(build: Build, schedule: Schedule, steps: int) -> None:
    model = nn.LSTM(4, 8)
    optimizer = build(model)
    pruner = Pruner(model, optimizer, schedule)
    weights = (model.weight_ih_l0, model.weight_hh_l0)
    x = torch.randn(2, 4, 4)
    target = torch.randn(2, 4, 8)
    for step in range(1, steps + 1):
        optimizer.zero_grad(set_to_none=True)
        (model(x)[0] - target).square().mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        pruner.step()
        for weight, mask in zip(weights, pruner.masks.values(), strict=True):
            dropped = ~mask
            assert not bits(weight)[dropped].any(), f"step {step}: not +0.0"
            if step >= 30 and step % 10 == 0:
                moments = [each for each in optimizer.state[weight].values() if each.shape == weight.shape]
                assert moments
                assert not any(bits(moment)[dropped].any() for moment in moments), f"step {step}: a moment"
    # 32 x 4 = 128: round(115.2) = 115; 32 x 8 = 256: round(230.4) = 230
    assert [int(weight.count_nonzero()) for weight in weights] == [13, 26]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("rubbish", [-1.0, -0.0, float("nan"), float("inf")])
def test_whatever_stands_at_a_dropped_place_becomes_plus_zero(dtype: torch.dtype, rubbish: float) -> None:
    model = nn.Linear(10, 10, bias=False).to(dtype)
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    pruner = Pruner(model, optimizer, Hard(1))
    for _ in range(2):
        model(torch.ones(1, 10, dtype=dtype)).sum().backward()
        optimizer.step()
        dropped = ~pruner.masks["weight"]
        with torch.no_grad():
            model.weight[dropped] = rubbish
        before = model.weight.detach().clone()
        pruner.step()
    weight = model.weight.detach()
    assert int(dropped.sum()) == 90
    assert not weight[dropped].any()
    assert not weight[dropped].signbit().any()
    assert torch.equal(weight[~dropped], before[~dropped])

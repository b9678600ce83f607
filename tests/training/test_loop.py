"""The loop against the same steps written out by hand in torch."""

import copy
import math
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rnnprune.errors import Diverged, UsageError
from rnnprune.pruning.pruner import Pruner
from rnnprune.pruning.schedules import Hard, plan_schedule
from rnnprune.tasks.protocol import Task
from rnnprune.training.loop import build_optimizer, train
from rnnprune.training.position import Position
from rnnprune.training.recipe import Recipe
from tests.training.loop_cases import Echo, start


def test_the_test_task_keeps_the_protocol() -> None:
    assert isinstance(Echo(), Task)


# Training


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_the_loop_takes_the_steps_that_plain_torch_takes(name: str) -> None:
    recipe = Recipe(optimizer=name, lr=0.05, weight_decay=0.01, clip_norm=0.5, seed=3)  # type: ignore[arg-type]
    model, optimizer = start(recipe)
    twin = copy.deepcopy(model)
    records = list(train(model, Echo(), recipe, optimizer, 10))

    theirs: torch.optim.Optimizer = {
        "adam": lambda p: torch.optim.Adam(p, lr=1.0, weight_decay=0.01),
        "adamw": lambda p: torch.optim.AdamW(p, lr=1.0, weight_decay=0.01),
        "sgd": lambda p: torch.optim.SGD(p, lr=1.0, momentum=0.9, nesterov=True, weight_decay=0.01),
    }[name](twin.parameters())
    torch.manual_seed(3)
    batches = [batch for epoch in range(3) for batch in Echo().train_batches(epoch=epoch, seed=3, rank=0, world_size=1)]
    for step, (batch, record) in enumerate(zip(batches, records, strict=False), start=1):
        theirs.param_groups[0]["lr"] = recipe.learning_rate(step, 10)
        theirs.zero_grad()
        loss = Echo().loss(twin, batch)
        loss.backward()
        nn.utils.clip_grad_norm_(twin.parameters(), 0.5)
        theirs.step()
        assert (record.step, record.total_steps, record.loss) == (step, 10, loss.item())
        assert record.learning_rate == recipe.learning_rate(step, 10)
    assert len(records) == 10
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not() -> None:
    def trained(seed: int) -> list[Tensor]:
        recipe = Recipe(lr=0.01, seed=seed)
        model, optimizer = start(recipe)
        pruner = Pruner(model, optimizer, plan_schedule("cubic", 20), saliency="fisher")
        torch.rand(seed + 1)  # whatever was drawn before does not matter
        list(train(model, Echo(), recipe, optimizer, 20, pruner))
        return list(model.parameters())

    first, again, other = trained(0), trained(0), trained(1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_gradients_are_masked_before_they_are_clipped(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe(lr=0.01, clip_norm=0.05)
    model, optimizer = start(recipe)
    pruner = Pruner(model, optimizer, Hard(1))
    clip, norms = nn.utils.clip_grad_norm_, []

    def spy(parameters: Iterable[Tensor], max_norm: float) -> Tensor:
        by_hand = sum(
            float((p.grad.double() * pruner.masks.get(name, 1.0)).square().sum())
            for name, p in model.named_parameters()
            if p.grad is not None
        )
        norms.append((by_hand**0.5, float(clip(parameters, max_norm))))
        return torch.tensor(0.0)

    monkeypatch.setattr(nn.utils, "clip_grad_norm_", spy)
    for record in train(model, Echo(), recipe, optimizer, 5, pruner):
        clipped = sum(float(p.grad.double().square().sum()) for p in model.parameters() if p.grad is not None) ** 0.5
        if record.step > 1:  # at the cut, the gradients that the step has used are masked as well
            assert clipped == pytest.approx(0.05, rel=1e-4)
            dropped = [p.grad[~pruner.masks[name]] for name, p in model.named_parameters() if name in pruner.masks]  # type: ignore[index]
            assert not any(gradient.any() for gradient in dropped)
    assert [seen for _, seen in norms] == pytest.approx([by_hand for by_hand, _ in norms], rel=1e-5)


def test_a_clip_norm_of_zero_leaves_the_gradients_alone() -> None:
    recipe = Recipe(clip_norm=0.0)
    model, optimizer = start(recipe)
    twin = copy.deepcopy(model)
    next(train(model, Echo(), recipe, optimizer, 5))
    torch.manual_seed(0)
    Echo().loss(twin, Echo().train_batches(epoch=0, seed=0, rank=0, world_size=1)[0]).backward()  # type: ignore[index]
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(model.parameters(), twin.parameters(), strict=True))  # type: ignore[arg-type]


def test_the_record_carries_the_sparsity_from_the_update_on() -> None:
    model, optimizer = start(Recipe())
    pruner = Pruner(model, optimizer, Hard(3), target=0.5)
    records = list(train(model, Echo(), Recipe(), optimizer, 5, pruner))
    assert [record.sparsity for record in records] == [0.0, 0.0, 0.5, 0.5, 0.5]
    assert [record.update is not None for record in records] == [False, False, True, False, False]


def test_a_frozen_parameter_is_not_given_to_the_optimizer() -> None:
    model = Echo().build_model()
    model[0].requires_grad_(False)  # type: ignore[index]
    assert len(build_optimizer(model, Recipe()).param_groups[0]["params"]) == 2


# What stops it


class Breaks(Echo):
    """Something that is not finite in the batches, the loss or the gradients of these calls, counted from 1."""

    def __init__(self, where: str, bad: float, calls: range) -> None:
        self.where, self.bad, self.breaking, self.calls = where, bad, calls, 0

    def train_batches(self, *, epoch: int, seed: int, rank: int, world_size: int) -> Iterable[Any]:
        for number, batch in enumerate(
            super().train_batches(epoch=epoch, seed=seed, rank=rank, world_size=world_size), 1
        ):
            broken = self.where == "batch" and number + epoch * self.batches_an_epoch in self.breaking
            yield {"x": batch, "more": [batch * (self.bad if broken else 1.0)]}

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        self.calls += 1
        found = super().loss(model, batch["x"])
        if self.calls not in self.breaking or self.where == "batch":
            return found
        if self.where == "gradient":
            return found + (model[0].weight[0, 0] * 0.0).sqrt()  # type: ignore[operator,index]
        return found + self.bad


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("where", ["batch", "loss", "gradient"])
def test_what_is_not_finite_makes_no_step_and_no_mask_update(where: str, bad: float) -> None:
    model, optimizer = start(Recipe())
    pruner = Pruner(model, optimizer, Hard(3), target=0.5)
    steps = train(model, Breaks(where, bad, range(3, 6)), Recipe(), optimizer, 4, pruner)
    next(steps), next(steps)
    good = copy.deepcopy((model.state_dict(), optimizer.state_dict()["state"]))
    records = list(steps)
    assert [(record.step, record.update is not None) for record in records] == [(3, True), (4, False)]
    assert math.isfinite(records[0].loss)

    twin, theirs = start(Recipe())
    clean = train(twin, Breaks(where, bad, range(0)), Recipe(), theirs, 4)
    next(clean), next(clean)
    assert all(torch.equal(good[0][name], tensor) for name, tensor in twin.state_dict().items())


@pytest.mark.parametrize("where", ["batch", "loss", "gradient"])
def test_the_tenth_bad_batch_in_a_row_stops_with_the_last_good_weights(where: str) -> None:
    model, optimizer = start(Recipe())
    steps = train(model, Breaks(where, math.nan, range(3, 100)), Recipe(), optimizer, 10)
    next(steps), next(steps)
    good = copy.deepcopy(model.state_dict())
    with pytest.raises(Diverged, match=r"at step 3, in 10 batches in a row; try a lower --lr or a smaller --clip-norm"):
        next(steps)
    assert all(torch.equal(good[name], tensor) for name, tensor in model.state_dict().items())
    assert [group["lr"] for group in optimizer.param_groups] == [Recipe().learning_rate(3, 10)]


def test_nine_bad_batches_in_a_row_and_nine_again_are_survived() -> None:
    task = Breaks("loss", math.nan, range(0))
    task.breaking = [*range(2, 11), *range(12, 21)]  # type: ignore[assignment]
    model, optimizer = start(Recipe())
    assert [record.step for record in train(model, task, Recipe(), optimizer, 3)] == [1, 2, 3]
    assert task.calls == 21


class Normed(Echo):
    """With running means, which a forward pass changes."""

    def build_model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        self.calls = getattr(self, "calls", 0) + 1
        return super().loss(model, batch * (1e30 if self.calls == 2 else 1.0))


def test_running_means_forget_a_batch_that_made_no_step() -> None:
    torch.manual_seed(0)
    model = Normed().build_model()
    optimizer = build_optimizer(model, Recipe())
    seen = [copy.deepcopy(dict(model.named_buffers())) for _ in train(model, Normed(), Recipe(), optimizer, 2)]
    assert all(bool(buffer.isfinite().all()) for buffer in seen[1].values())
    assert [int(buffers["1.num_batches_tracked"]) for buffers in seen] == [1, 2], "the second of three does not count"


# Lower precision


def test_bf16_trains_in_float32_weights_and_close_to_fp32() -> None:
    losses = {}
    for precision in ("fp32", "bf16"):
        recipe = Recipe(lr=0.01, precision=precision)  # type: ignore[arg-type]
        model, optimizer = start(recipe)
        losses[precision] = [record.loss for record in train(model, Echo(), recipe, optimizer, 20)]
        assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert losses["bf16"] != losses["fp32"], "or it was not used"
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05)


def test_a_step_that_the_scaler_skips_advances_neither_the_schedule_nor_the_rate() -> None:
    recipe = Recipe(lr=0.01, precision="fp16")
    model, optimizer = start(recipe)
    pruner = Pruner(model, optimizer, Hard(3), target=0.5)
    position = Position(Echo(), recipe, torch.device("cpu"))
    position.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)  # overflows float16 some twenty times
    records = list(train(model, Echo(), recipe, optimizer, 5, pruner, position=position))
    assert position.scaler.get_scale() < 2.0**40
    assert position.epoch * Echo.batches_an_epoch + position.index > 15, "batches were skipped"
    assert [(r.step, r.update is not None) for r in records] == [(n, n == 3) for n in range(1, 6)]
    assert [r.learning_rate for r in records] == [recipe.learning_rate(n, 5) for n in range(1, 6)]


def test_an_epoch_without_a_batch_is_refused_and_does_not_hang() -> None:
    class RunsDry(Echo):
        def train_batches(self, *, epoch: int, seed: int, rank: int, world_size: int) -> Iterable[Any]:
            batches = super().train_batches(epoch=epoch, seed=seed, rank=rank, world_size=world_size)
            return [] if epoch == 1 else batches

    model, optimizer = start(Recipe())
    with pytest.raises(UsageError, match="epoch 1 of the training data has no batch; is the data empty"):
        list(train(model, RunsDry(), Recipe(), optimizer, 10))

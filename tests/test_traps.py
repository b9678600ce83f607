"""The fifteen traps others fell into, each test named after its number, with the counter-experiment where it is cheap.

Here: what happens while a model trains (1 to 8, 14). What is kept, saved and run (9 to 13, 15) stands in
test_traps_of_files.py.
Left to the reliability work, since they need several processes or a GPU: one mask for all ranks under DDP, decided on
rank 0 and compared by a hash (14); real float16 autocast on CUDA (6); ties on CUDA (7); a whole fine-tuning run killed
and resumed (10); cuDNN's flat weight buffer itself (1).
"""

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

from rnnprune.errors import UsageError
from rnnprune.pruning.groups import group_weights
from rnnprune.pruning.masked_weight import MaskedWeight
from rnnprune.pruning.options import Block, ScheduleName, Selection, Timing
from rnnprune.pruning.pruner import Pruner
from rnnprune.pruning.schedules import Cubic, Gradual, Hard, Schedule, plan_schedule
from tests.trapped import WEIGHTS, X, backward, pruned_lstm, sparsity, steps


def test_trap_01_parameters_are_masked_in_place_and_never_replaced() -> None:
    model = nn.LSTM(6, 8)
    before = {name: (id(tensor), tensor.data_ptr()) for name, tensor in model.named_parameters()}
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    steps(model, optimizer, Pruner(model, optimizer, Cubic(1, 8, 2)), 10)
    assert before == {name: (id(tensor), tensor.data_ptr()) for name, tensor in model.named_parameters()}
    assert [id(weight) for weight in model._flat_weights] == [where for where, _ in before.values()]
    fresh = nn.LSTM(6, 8)
    fresh.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(model(X)[0], fresh(X)[0])  # what it computes is what it saves

    torch_prune.l1_unstructured(fresh, "weight_hh_l0", 0.5)
    assert "weight_hh_l0" not in dict(fresh.named_parameters())  # torch's own way renames


@pytest.mark.parametrize("kind", ["momentum", "adam", "adamw", "rmsprop"])
def test_trap_02_optimizer_state_does_not_regrow_dropped_weights(kind: str) -> None:
    def build(model: nn.Module) -> torch.optim.Optimizer:
        return {
            "momentum": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9),
            "adam": lambda p: torch.optim.Adam(p, 0.01),
            "adamw": lambda p: torch.optim.AdamW(p, 0.01),
            "rmsprop": lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.9),
        }[kind](model.parameters())

    naive = nn.LSTM(6, 8)
    model = copy.deepcopy(naive)
    optimizer = build(model)
    pruner = Pruner(model, optimizer, Hard(5))
    steps(model, optimizer, pruner, 50)
    moments = [each for state in optimizer.state.values() for each in state.values()]
    assert sparsity(model) == 1 - (19 + 26) / (192 + 256)
    for name in WEIGHTS:
        dropped = ~pruner.masks[name]
        assert not any(each[dropped].any() for each in moments if each.shape == dropped.shape)

    optimizer = build(naive)  # only gradients are masked, as one would think suffices
    steps(naive, optimizer, None, 5)
    for name in WEIGHTS:
        mask = pruner.masks[name]
        with torch.no_grad():
            getattr(naive, name).mul_(mask)
        getattr(naive, name).register_hook(lambda gradient, mask=mask: gradient * mask)
    assert sparsity(naive) > 0.89
    steps(naive, optimizer, None, 1)
    assert sparsity(naive) < 0.01


def test_trap_03_clipping_sees_only_the_gradients_of_kept_weights() -> None:
    model, _, pruner = pruned_lstm()
    twin = copy.deepcopy(model)  # without hooks: whole gradients
    model.zero_grad(), twin.zero_grad()
    backward(model), backward(twin)
    kept = {
        name: p.grad.double() * pruner.masks.get(name, 1.0) for name, p in twin.named_parameters() if p.grad is not None
    }
    by_hand = math.sqrt(sum(float(gradient.square().sum()) for gradient in kept.values()))
    seen = float(nn.utils.clip_grad_norm_(model.parameters(), 1e-3))
    assert seen == pytest.approx(by_hand, rel=1e-5)
    assert float(nn.utils.clip_grad_norm_(twin.parameters(), 1e-3)) > 1.1 * by_hand


def test_trap_04_the_target_is_met_where_the_papers_threshold_misses_it() -> None:
    model = nn.LSTM(6, 8)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    pruner = Pruner(model, optimizer, Gradual(2, 10, 30, 2))
    for _ in range(30):
        optimizer.zero_grad()
        backward(model)
        optimizer.step()
        update = pruner.step()
    assert update is not None
    asked = {"weight_ih_l0": round(0.9 * 192), "weight_hh_l0": round(0.9 * 256)}
    assert {name: int((~mask).sum()) for name, mask in pruner.masks.items()} == asked
    plain = {name: round(group.plain_sparsity * pruner.masks[name].numel()) for name, group in update.groups.items()}
    assert plain != asked  # both numbers are told


@pytest.mark.parametrize("aim", [False, True])
def test_trap_04_a_threshold_that_is_aimed_anew_follows_weights_that_grow(aim: bool) -> None:
    model = nn.LSTM(40, 50)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    pruner = Pruner(model, optimizer, Gradual(2, 10, 30, 2, aim=aim))
    for step in range(1, 31):
        optimizer.zero_grad()
        model(torch.ones(2, 1, 40))[0].sum().backward()
        optimizer.step()
        with torch.no_grad():
            model.weight_hh_l0.mul_(1.1)
        grown = model.weight_hh_l0.detach().abs().flatten().double()
        update = pruner.step()
        if update is not None and aim:
            q = float(grown.sort().values[round(0.9 * 10_000)])
            rises = (min(step, 10) - 2 + 1) + (1.5 * (step - 10 + 1) if step >= 10 else 0)  # in units of theta
            told = update.groups["weight_hh_l0"].threshold
            assert told == pytest.approx(2 * q * rises / (2 * (10 - 2) + 3 * (30 - 10)), rel=1e-3)
    assert update is not None
    landed = update.groups["weight_hh_l0"].plain_sparsity
    assert landed >= 0.9 if aim else landed < 0.5
    assert sparsity(model) == 0.9


@pytest.mark.parametrize("name", ["gradual", "cubic", "hard"])
def test_trap_05_the_schedule_is_reached_within_the_planned_steps(name: ScheduleName) -> None:
    for total in (5, 7, 60):
        model = nn.LSTM(6, 8)
        optimizer = torch.optim.Adam(model.parameters())
        steps(model, optimizer, Pruner(model, optimizer, plan_schedule(name, total)), total)
        assert sparsity(model) == 1 - (19 + 26) / (192 + 256)
    with pytest.raises(UsageError, match="shares of all steps"):
        plan_schedule(name, 60, Timing(start=2.0))


def test_trap_05_only_optimizer_steps_count() -> None:
    model = nn.LSTM(6, 8)
    optimizer = torch.optim.Adam(model.parameters())
    pruner = Pruner(model, optimizer, Hard(3))
    for accumulated in range(1, 13):  # four batches to a step, step() called after each of them
        backward(model)
        if accumulated % 4 == 0:
            optimizer.step()
            optimizer.zero_grad()
        update = pruner.step()
        assert pruner.step_count == accumulated // 4
        assert (update is not None) == (accumulated == 12)


@pytest.mark.parametrize("fused", [False, True])
def test_trap_06_a_step_that_mixed_precision_skips_does_not_advance_the_schedule(fused: bool) -> None:
    model = nn.LSTM(6, 8)
    optimizer = torch.optim.Adam(model.parameters(), fused=fused)
    pruner = Pruner(model, optimizer, Hard(3))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**4)
    counts = []
    for overflow in (False, True, True, False, False):
        optimizer.zero_grad()
        loss = model(X)[0].square().mean()
        scaler.scale(loss * math.inf if overflow else loss).backward()
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        pruner.step()
        counts.append((pruner.step_count, round(pruner.sparsity, 1)))
    assert counts == [(1, 0.0), (1, 0.0), (1, 0.0), (2, 0.0), (3, 0.9)]


def test_trap_06_half_weights_are_ranked_in_float32() -> None:
    model = nn.Linear(40, 40, bias=False).bfloat16()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0)
    pruner = Pruner(model, optimizer, Hard(1), saliency="fisher")
    model(torch.randn(3, 40).bfloat16()).square().sum().backward()
    optimizer.step()
    v = optimizer.state[model.weight]["exp_avg_sq"]
    exact = (model.weight.double().abs() * v.double().sqrt()).flatten()
    half = (model.weight.abs() * v.sqrt()).flatten()
    pruner.step()
    kept = pruner.masks["weight"].flatten()
    assert exact[kept].min() >= exact[~kept].max()
    assert len(half.unique()) < 0.7 * len(exact.unique())  # in bfloat16 many would tie


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        (torch.full((4, 5), 0.5), [True] * 2 + [False] * 18),  # all equal
        (torch.zeros(4, 5), [True] * 2 + [False] * 18),
    ],
)
def test_trap_07_the_edges_of_top_k(values: Tensor, kept: list[bool]) -> None:
    layer = nn.Linear(values.shape[1], values.shape[0], bias=False)
    layer.weight.data = values
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.0)
    pruner = Pruner(layer, optimizer, Hard(1))
    layer(torch.ones(1, values.shape[1])).sum().backward()
    optimizer.step()
    pruner.step()
    assert pruner.masks["weight"].flatten().tolist() == kept


@pytest.mark.parametrize(
    ("shape", "block", "text"),
    [
        (
            (4, 1),
            (1, 1),
            r"^weight: a target of 0.9 rounds to all 4 of the weights, .*; choose a lower target, or --ex",
        ),
        ((1, 1), (1, 1), "rounds to all 1 of the weights"),
        ((100, 100), (64, 64), "all 4 of the 64x64 blocks, .*; choose a smaller --block, .* or --exclude weight$"),
    ],
)
def test_trap_07_a_target_that_rounds_to_everything_is_refused(
    shape: tuple[int, int], block: tuple[int, int], text: str
) -> None:
    layer = nn.Linear(*shape)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    with pytest.raises(UsageError, match=text):
        Pruner(layer, optimizer, Hard(1), selection=Selection(block=Block(*block)))
    weight = MaskedWeight("weight", "linear", [layer.weight])  # a one-shot cut has no Pruner
    with pytest.raises(UsageError, match=text):
        group_weights([weight], Selection(block=Block(*block), scope="tensor"), {}, 0.9)


@pytest.mark.parametrize("schedule", [Gradual(1, 5, 12, 1, 2.0), Cubic(1, 12, 1)])
def test_trap_08_masks_only_shrink_and_stop_at_the_target(schedule: Schedule) -> None:
    model = nn.LSTM(6, 8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9, weight_decay=0.05)  # everything decays to 0
    pruner = Pruner(model, optimizer, schedule)
    last = pruner.masks
    for _ in range(100):
        steps(model, optimizer, pruner, 1)
        assert not any((mask & ~last[name]).any() for name, mask in pruner.masks.items())
        assert [int(mask.sum()) >= least for mask, least in zip(pruner.masks.values(), (19, 26), strict=True)] == [
            True
        ] * 2
        last = pruner.masks
    assert [int(mask.sum()) for mask in last.values()] == [19, 26]


def test_trap_14_an_averaged_copy_is_masked_too() -> None:
    model = nn.LSTM(6, 8)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    pruner = Pruner(model, optimizer, Cubic(1, 8, 2))
    average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
    for _ in range(20):
        steps(model, optimizer, pruner, 1)
        average.update_parameters(model)
    assert sparsity(model) > 0.89
    assert sparsity(average.module) < 0.01
    before = copy.deepcopy(average.module)
    pruner.apply_to(average.module)
    for (name, masked), whole in zip(average.module.named_parameters(), before.parameters(), strict=True):
        assert torch.equal(masked, whole * pruner.masks.get(name, torch.tensor(True)))
    with pytest.raises(UsageError, match=r"weight_ih_l0 is missing; of an AveragedModel .* pass its `.module`"):
        pruner.apply_to(average)


def test_trap_14_masks_depend_on_the_weights_and_not_on_the_random_state() -> None:
    dense, masks = nn.LSTM(6, 8), []
    for seed in (1, 2):
        torch.manual_seed(seed)
        model = copy.deepcopy(dense)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        pruner = Pruner(model, optimizer, Gradual(1, 8, 20, 2, revive=True), saliency="fisher")
        for _ in range(25):
            steps(model, optimizer, pruner, 1)
            torch.rand(seed)
        masks.append(pruner.masks)
    assert all(torch.equal(masks[0][name], masks[1][name]) for name in WEIGHTS)

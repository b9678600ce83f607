"""Whole pruning runs, replayed beside the Pruner by a slow twin in numpy that knows only the paper."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rnnprune.errors import Diverged
from rnnprune.pruning.options import Block, SaliencyName, Selection, Timing
from rnnprune.pruning.pruner import Pruner, PruningUpdate
from rnnprune.pruning.schedules import Cubic, Gradual, Hard, Schedule, plan_schedule

PRUNED = ("rnn.weight_ih_l0", "rnn.weight_hh_l0", "head.weight")
Arrays = dict[str, np.ndarray]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(5, 8)
        self.head = nn.Linear(8, 7)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0])


class Moment:
    """One step: the weights as the optimizer left them, before the pruner, then what the pruner did."""

    def __init__(self, step: int, before: Arrays, update: PruningUpdate | None, masks: Arrays) -> None:
        self.step, self.before, self.update, self.masks = step, before, update, masks


def weights_of(model: nn.Module) -> Arrays:
    return {name: tensor.detach().numpy().copy() for name, tensor in model.named_parameters() if name in PRUNED}


def run(model: nn.Module, optimizer: torch.optim.Optimizer, pruner: Pruner, steps: int) -> Iterator[Moment]:
    generator = torch.Generator().manual_seed(1)
    for step in range(1, steps + 1):
        x = torch.randn(6, 4, 5, generator=generator)
        optimizer.zero_grad()
        (model(x) - x.sum(-1, keepdim=True).sin()).square().mean().backward()
        optimizer.step()
        before = weights_of(model)
        update = pruner.step()
        yield Moment(step, before, update, {name: mask.numpy().copy() for name, mask in pruner.masks.items()})


def by_paper(step: int, schedule: Gradual, q: float) -> float:
    """Algorithm 1 and equation 1, typed from the paper."""
    start, ramp, end, freq = schedule.start_step, schedule.ramp_step, schedule.end_step, schedule.frequency
    theta = 2 * q * freq / (2 * (ramp - start) + 3 * (end - ramp))
    phi = schedule.slope_ratio * theta
    if step < ramp:
        return theta * (step - start + 1) / freq
    return (theta * (ramp - start + 1) + phi * (step - ramp + 1)) / freq


def largest(scores: np.ndarray, keep: int) -> np.ndarray:
    mask = np.zeros(scores.size, dtype=bool)
    mask[np.argsort(-scores.ravel(), kind="stable")[:keep]] = True
    return mask.reshape(scores.shape)


def start(schedule: Schedule, **options: object) -> tuple[Net, torch.optim.Optimizer, Pruner]:
    model = Net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    return model, optimizer, Pruner(model, optimizer, schedule, **options)  # type: ignore[arg-type]


def replay(scores: np.ndarray, epsilon: float, *, exact: bool) -> tuple[np.ndarray, np.ndarray]:
    """The paper's plain mask, and the mask with the guard and the exact end."""
    plain, keep = scores >= epsilon, scores.size - round(0.9 * scores.size)
    return plain, largest(scores, keep) if exact or plain.sum() < keep else plain


@pytest.mark.parametrize("revive", [False, True], ids=["literal", "revive"])
@pytest.mark.parametrize("ratio", [1.5, 2.0])
def test_gradual_replayed_step_by_step(revive: bool, ratio: float) -> None:
    schedule = Gradual(4, 14, 40, 3, ratio, revive)
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=2.0, momentum=0.9)  # large steps, so that some come back
    pruner = Pruner(model, optimizer, schedule)
    masks = {name: np.ones_like(weight, dtype=bool) for name, weight in weights_of(model).items()}
    q: dict[str, float] = {}
    seen, came_back = [], 0
    for moment in run(model, optimizer, pruner, 60):
        if moment.update is not None:
            seen.append(moment.step)
            came_back += moment.update.revived
        for name in PRUNED:
            if (4 < moment.step < 40 and moment.step % 3 == 0) or moment.step == 40:
                assert moment.update is not None
                group, scores = moment.update.groups[name], abs(moment.before[name])
                if not revive:  # the paper's listing masks before it tests
                    scores = np.where(masks[name], scores, -1.0)
                q.setdefault(name, float(np.sort(scores, axis=None)[round(0.9 * scores.size)]))
                epsilon, old = by_paper(moment.step, schedule, q[name]), masks[name]
                plain, masks[name] = replay(scores, epsilon, exact=moment.step == 40)
                assert group.threshold == pytest.approx(epsilon, rel=1e-6)
                assert group.plain_sparsity == pytest.approx(1 - plain.mean(), abs=1e-9)
                assert group.revived == (masks[name] & ~old).sum()
            np.testing.assert_array_equal(moment.masks[name], masks[name])
            np.testing.assert_array_equal(dict(model.named_parameters())[name].detach().numpy() != 0, masks[name])
    assert seen == [6, 9, 12, 15, 18, 21, 24, 27, 30, 33, 36, 39, 40]
    assert pruner.quantiles == pytest.approx(q, rel=1e-6)
    assert (came_back > 0) == revive


@pytest.mark.parametrize("name", ["gradual", "cubic", "hard"])
def test_every_tensor_ends_at_the_target_to_the_element(name: str) -> None:
    model, optimizer, pruner = start(plan_schedule(name, 60))  # type: ignore[arg-type]
    updates = [moment.update for moment in run(model, optimizer, pruner, 60) if moment.update]
    # 32 x 5 = 160: 144 dropped; 32 x 8 = 256: round(230.4) = 230; 7 x 8 = 56: round(50.4) = 50
    kept = {name: int((weight != 0).sum()) for name, weight in weights_of(model).items()}
    assert kept == dict(zip(PRUNED, [16, 26, 6], strict=True))
    assert updates[-1].sparsity == pruner.sparsity == pytest.approx(1 - 48 / 472)


def test_the_plain_threshold_misses_and_the_log_says_by_how_much() -> None:
    _, optimizer, pruner = (made := start(Gradual(4, 14, 40, 3)))
    (last,) = [moment.update for moment in run(made[0], optimizer, pruner, 60) if moment.step == 40]
    assert last is not None
    shares = {name: group.plain_sparsity for name, group in last.groups.items()}
    sizes = {"rnn.weight_ih_l0": 160, "rnn.weight_hh_l0": 256, "head.weight": 56}
    assert any(round(shares[name] * sizes[name]) != round(0.9 * sizes[name]) for name in sizes)


def test_the_mask_is_frozen_after_the_end_and_literal_never_revives() -> None:
    model, optimizer, pruner = start(Gradual(4, 14, 40, 3))
    moments = list(run(model, optimizer, pruner, 100))
    for earlier, later in pairwise(moments):
        for name in PRUNED:
            assert not (later.masks[name] & ~earlier.masks[name]).any()
            if earlier.step >= 40:
                np.testing.assert_array_equal(later.masks[name], earlier.masks[name])
                assert later.update is None


def test_cubic_keeps_exactly_its_share_at_every_update() -> None:
    model, optimizer, pruner = start(Cubic(10, 50, 10))
    counts = {
        moment.step: {name: int(mask.sum()) for name, mask in moment.masks.items()}
        for moment in run(model, optimizer, pruner, 60)
        if moment.update
    }
    # 0.9 times 0.578125, 0.875, 0.984375, 1 of 160, 256 and 56, rounded:
    #   0.5203125: 83, 133, 29    0.7875: 126, 202 (201.6), 44 (44.1)    0.8859375: 142 (141.75), 227 (226.8), 50 (49.6)
    assert list(counts) == [20, 30, 40, 50]
    assert [list(count.values()) for count in counts.values()] == [
        [77, 123, 27],
        [34, 54, 12],
        [18, 29, 6],
        [16, 26, 6],
    ]


def test_an_exact_cut_logs_the_smallest_saliency_it_kept() -> None:
    model, optimizer, pruner = start(Hard(3))
    for moment in run(model, optimizer, pruner, 3):
        if moment.update:
            for name, group in moment.update.groups.items():
                assert group.threshold == pytest.approx(abs(moment.before[name][moment.masks[name]]).min(), rel=1e-6)


# Literal and revive


@pytest.mark.parametrize("schedule", [Gradual(1, 4, 12, 1), Cubic(1, 12, 1)], ids=["gradual", "cubic"])
def test_gradients_that_pass_by_the_hooks_bring_nothing_back_and_the_count_stays_exact(schedule: Schedule) -> None:
    layer = nn.Linear(20, 20, bias=False)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    pruner = Pruner(layer, optimizer, schedule)
    for _ in range(12):
        old = pruner.masks["weight"]
        layer.weight.grad = torch.randn(20, 20)  # assigned, as an all-reduce of one's own does; no hook sees it
        optimizer.step()
        pruner.step()
        assert not (pruner.masks["weight"] & ~old).any()
    assert int(layer.weight.count_nonzero()) == 40


def test_going_on_with_a_lower_target_brings_nothing_back() -> None:
    model, optimizer, pruner = start(Hard(1))
    list(run(model, optimizer, pruner, 1))
    model, optimizer, lower = start(Hard(2), target=0.5)
    lower.load_state_dict(pruner.state_dict())
    list(run(model, optimizer, lower, 1))
    assert {name: mask.tolist() for name, mask in lower.masks.items()} == {
        name: mask.tolist() for name, mask in pruner.masks.items()
    }


def test_revive_leaves_dropped_weights_their_gradients_and_moments_until_the_end() -> None:
    model, optimizer, pruner = start(Gradual(4, 8, 20, 2, revive=True))
    for moment in run(model, optimizer, pruner, 22):
        dropped = torch.from_numpy(~moment.masks["rnn.weight_hh_l0"])
        moments = optimizer.state[model.rnn.weight_hh_l0]["exp_avg"][dropped]
        assert moment.step < 6 or len(moments)
        assert moments.all() if moment.step < 20 else not moments.any()


# The guard


@pytest.mark.parametrize("revive", [False, True], ids=["literal", "revive"])
def test_a_threshold_that_would_prune_everything_stops_at_the_target(revive: bool) -> None:
    """Weights of nearly one size: q is that size, and a slope ratio of 2 ends at 1.2 q, above all of them."""
    model = Net()
    for name, weight in model.named_parameters():
        if name in PRUNED:
            weight.data = weight.data.sign() * (1 + 0.01 * torch.rand_like(weight))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    pruner = Pruner(model, optimizer, Gradual(4, 8, 40, 3, 2.0, revive))
    guarded = []
    for moment in run(model, optimizer, pruner, 50):
        kept = [int(mask.sum()) for mask in moment.masks.values()]
        assert all(count >= least for count, least in zip(kept, [16, 26, 6], strict=True))
        if moment.update is not None and all(group.guarded for group in moment.update.groups.values()):
            assert {group.plain_sparsity for group in moment.update.groups.values()} == {1.0}
            assert kept == [16, 26, 6]
            guarded.append(moment.step)
    assert guarded[-1] == 40
    assert len(guarded) > 1  # the guard held before the end as well


@pytest.mark.parametrize("schedule", [Gradual(1, 3, 9, 1), Cubic(1, 9, 1)], ids=["gradual", "cubic"])
def test_a_weight_that_became_nan_is_not_pruned_in_silence(schedule: Schedule) -> None:
    model, optimizer, pruner = start(schedule)
    list(run(model, optimizer, pruner, 3))
    row, col = pruner.masks["head.weight"].nonzero()[0]
    with torch.no_grad():
        model.head.weight[row, col] = float("nan")
    optimizer.step()
    with pytest.raises(Diverged, match=r"^head\.weight: its saliency is NaN"):
        pruner.step()


# What shares a threshold


@pytest.mark.parametrize(
    ("scope", "groups"),
    [
        ("tensor", {name: [name] for name in PRUNED}),
        ("type", {"recurrent": list(PRUNED[:2]), "linear": [PRUNED[2]]}),
        ("model", {"model": list(PRUNED)}),
    ],
)
def test_a_scope_ranks_its_members_together(scope: str, groups: dict[str, list[str]]) -> None:
    model, optimizer, pruner = start(Hard(3), selection=Selection(scope=scope))  # type: ignore[arg-type]
    *_, moment = run(model, optimizer, pruner, 3)
    assert moment.update is not None
    assert list(moment.update.groups) == list(groups)
    for name, members in groups.items():
        scores = np.concatenate([abs(moment.before[member]).ravel() for member in members])
        expected = largest(scores, scores.size - round(0.9 * scores.size))
        found = np.concatenate([moment.masks[member].ravel() for member in members])
        np.testing.assert_array_equal(found, expected)
        assert pruner.quantiles[name] == np.sort(scores)[round(0.9 * scores.size)]


def test_what_has_a_target_of_its_own_reaches_it_and_the_others_theirs() -> None:
    selection = Selection(scope="model", target_of=(("rnn.*", 0.5), ("*.weight_hh_l0", 0.75)))
    model, optimizer, pruner = start(Gradual(1, 3, 9, 1), selection=selection)
    *_, moment = run(model, optimizer, pruner, 9)
    assert moment.update is not None
    assert set(moment.update.groups) == {"rnn.weight_ih_l0", "rnn.weight_hh_l0", "model"}
    for name, target in {"rnn.weight_ih_l0": 0.5, "rnn.weight_hh_l0": 0.75, "head.weight": 0.9}.items():
        assert (~moment.masks[name]).sum() == round(target * moment.masks[name].size)


@pytest.mark.parametrize(("saliency", "groups"), [("fisher", {"model"}), ("magnitude", set(PRUNED))])
def test_without_a_scope_the_saliency_decides(saliency: SaliencyName, groups: set[str]) -> None:
    """fisher estimates a rise in loss, which can be compared between matrices; the size of a weight cannot."""
    model, optimizer, pruner = start(Hard(3), saliency=saliency, selection=Selection())
    *_, moment = run(model, optimizer, pruner, 3)
    assert moment.update is not None
    assert set(moment.update.groups) == groups


@pytest.mark.parametrize("norm", ["max", "l2"])
def test_blocks_go_whole_and_the_count_of_blocks_is_exact(norm: str) -> None:
    """8x3 blocks: 32x5 has 4x2 of them, 32x8 has 4x3, 7x8 has 1x3, the last ones cut off at the edge."""
    model, optimizer, pruner = start(Hard(3), selection=Selection(block=Block(8, 3), block_norm=norm), target=0.5)  # type: ignore[arg-type]
    *_, moment = run(model, optimizer, pruner, 3)
    for name, kept in zip(PRUNED, [4, 6, 1], strict=True):  # of 3 blocks round(1.5) = 2 are dropped
        weight, mask = abs(moment.before[name]), moment.masks[name]
        corners = [(r, c) for r in range(0, weight.shape[0], 8) for c in range(0, weight.shape[1], 3)]
        reduce = np.max if norm == "max" else np.linalg.norm
        scores = np.array([reduce(weight[r : r + 8, c : c + 3]) for r, c in corners])
        for (r, c), keep in zip(corners, largest(scores, kept), strict=True):
            assert (mask[r : r + 8, c : c + 3] == keep).all()


def test_short_runs_still_get_their_updates() -> None:
    model, optimizer, pruner = start(plan_schedule("gradual", 60, Timing(end=1.0)))
    updates = [moment.step for moment in run(model, optimizer, pruner, 60) if moment.update]
    assert updates[-1] == 60
    assert len(updates) >= 28

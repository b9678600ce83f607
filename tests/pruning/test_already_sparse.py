"""A model that was pruned before is pruned further: its zeros are where the masks start."""

import pytest
import torch
from torch import Tensor, nn

from rnnprune.errors import UsageError
from rnnprune.pruning.options import Block, Selection
from rnnprune.pruning.pruner import Pruner
from rnnprune.pruning.schedules import Cubic, Gradual, Hard, Schedule


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, pruner: Pruner, count: int) -> None:
    for _ in range(count):
        optimizer.zero_grad()
        (model(torch.randn(8, 20)) - 1.0).square().mean().backward()
        optimizer.step()
        pruner.step()


def sparse_layer(share: float, schedule: Schedule | None = None, **options: object) -> tuple[nn.Linear, Tensor, Pruner]:
    """A layer of 400 weights, its first ones zero; where it was not; a new Pruner after 20 steps, of target 0.95."""
    layer = nn.Linear(20, 20)
    with torch.no_grad():
        layer.weight.view(-1)[: round(share * 400)] = 0.0
    before = layer.weight.detach() != 0
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    pruner = Pruner(layer, optimizer, schedule or Cubic(5, 15, 2), **{"target": 0.95, **options})  # type: ignore[arg-type]
    steps(layer, optimizer, pruner, 20)
    return layer, before, pruner


@pytest.mark.parametrize("share", [0.5, 0.9, 0.95])
def test_zeros_stay_and_pruning_goes_on_from_there(share: float) -> None:
    layer = nn.Linear(20, 20)
    with torch.no_grad():
        layer.weight.view(-1)[: round(share * 400)] = 0.0
    before = layer.weight.detach() != 0
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    pruner = Pruner(layer, optimizer, Cubic(5, 15, 2), target=0.95)
    assert torch.equal(pruner.masks["weight"], before)
    assert pruner.choices[0].reason == f"linear weight, {100 * share:.0f} % zero before this run: those stay"
    for _ in range(20):
        steps(layer, optimizer, pruner, 1)
        assert not (layer.weight != 0)[~before].any()
        assert not optimizer.state[layer.weight]["exp_avg"][~before].any()
    assert int(layer.weight.count_nonzero()) == 20


def test_a_layer_with_fewer_zeros_starts_whole() -> None:
    _, _, pruner = sparse_layer(0.4, Hard(100))
    assert bool(pruner.masks["weight"].all())
    assert pruner.choices[0].reason == "linear weight"


def test_zeros_shared_out_over_a_model_stay_where_a_matrix_has_few_of_them() -> None:
    model = nn.Sequential(nn.Linear(20, 20), nn.Linear(20, 10), nn.Linear(10, 10))
    with torch.no_grad():
        model[0].weight[:16] = 0.0
        model[1].weight[:3] = 0.0
        model[2].weight[:] = 0.0  # an initial value
    before = {name: parameter != 0 for name, parameter in model.named_parameters() if "weight" in name}
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    pruner = Pruner(model, optimizer, Cubic(5, 15, 2), target=0.9, saliency="fisher")
    assert torch.equal(pruner.masks["1.weight"], before["1.weight"])
    assert bool(pruner.masks["2.weight"].all())
    steps(model, optimizer, pruner, 20)
    assert not any((model[place].weight != 0)[~before[f"{place}.weight"]].any() for place in (0, 1))
    assert pruner.sparsity == 0.9


def test_a_layer_of_nothing_but_zeros_was_not_pruned_but_never_trained() -> None:
    layer, _, _ = sparse_layer(1.0)
    assert int(layer.weight.count_nonzero()) == 20


def test_where_weights_may_come_back_these_may_too() -> None:
    layer, before, _ = sparse_layer(0.9, Gradual(5, 10, 18, 1, revive=True))
    assert int((layer.weight != 0)[~before].sum()) > 0
    assert int(layer.weight.count_nonzero()) == 20


def test_a_block_is_kept_when_any_of_its_weights_is_not_zero() -> None:
    layer = nn.Linear(8, 8)
    with torch.no_grad():
        layer.weight[4:] = 0.0
        layer.weight[:, 4:] = 0.0
        layer.weight[5, 2] = 1.0
    pruner = Pruner(
        layer, torch.optim.Adam(layer.parameters()), Hard(1), target=0.75, selection=Selection(block=Block(4, 4))
    )  # type: ignore[arg-type]
    whole = torch.zeros(8, 8, dtype=torch.bool)
    whole[:, :4] = True
    assert torch.equal(pruner.masks["weight"], whole)
    assert pruner.choices[0].reason == "linear weight, 50 % zero before this run: those stay"


def test_a_target_below_what_is_zero_already_is_refused_by_name() -> None:
    told = r"^weight: 90.0 % is zero already, above the target of 50 %, and zeros stay; raise the target, or "
    with pytest.raises(UsageError, match=told):
        sparse_layer(0.9, target=0.5)
    layer, _, _ = sparse_layer(0.9, target=0.8975)  # one more than asked: a kept weight that became zero by chance
    assert int(layer.weight.count_nonzero()) == 40


def test_two_pruners_one_after_the_other_on_one_model() -> None:
    model = nn.Sequential(nn.Linear(20, 20), nn.Tanh(), nn.Linear(20, 20))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    first = Pruner(model, optimizer, Hard(3), target=0.8)
    steps(model, optimizer, first, 5)
    first.close()
    masks = first.masks
    second = Pruner(model, optimizer, Cubic(2, 10, 2), target=0.9)
    steps(model, optimizer, second, 12)
    assert first.step_count == 5
    for name, mask in second.masks.items():
        assert int(mask.sum()) == 40
        assert not (mask & ~masks[name]).any()


def test_a_closed_pruner_lets_go_of_the_model() -> None:
    model = nn.Linear(20, 20)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    pruner = Pruner(model, optimizer, Hard(1))
    steps(model, optimizer, pruner, 2)
    pruner.close()
    pruner.close()
    steps(model, optimizer, pruner, 2)
    assert pruner.step_count == 2
    assert int(model.weight.count_nonzero()) > 300
    model.double()(torch.randn(1, 20).double()).sum().backward()  # no hook is left to complain

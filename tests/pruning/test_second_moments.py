"""fisher under optimizers that keep no second moments, against those that torch's Adam keeps of the same gradients."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn

from rnnprune.errors import UsageError
from rnnprune.pruning.options import Selection
from rnnprune.pruning.pruner import Pruner
from rnnprune.pruning.schedules import Cubic, Gradual, Hard, Schedule

X = torch.randn(5, 3, 6, generator=torch.Generator().manual_seed(0))

WITHOUT = {
    "sgd": (torch.optim.SGD, {}),
    "nesterov, for each": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True, "foreach": True}),
    "decay": (torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.1, "foreach": False}),
    "fused": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True, "fused": True}),
    "rmsprop": (torch.optim.RMSprop, {}),
    "adagrad": (torch.optim.Adagrad, {}),
}


def trained(kind: Any, flags: dict[str, Any], schedule: Schedule, steps: int = 12) -> tuple[nn.LSTM, Any, Pruner]:
    """At a rate of nothing, so that all optimizers see the same gradients."""
    torch.manual_seed(1)
    model = nn.LSTM(6, 8)
    optimizer = kind(model.parameters(), lr=0.0, **flags)
    pruner = Pruner(model, optimizer, schedule, target=0.75, saliency="fisher")
    for scale in range(1, steps + 1):
        optimizer.zero_grad()
        model(X * scale)[0].square().mean().backward()
        optimizer.step()
        pruner.step()
    return model, optimizer, pruner


@pytest.mark.parametrize(("kind", "flags"), WITHOUT.values(), ids=WITHOUT)
@pytest.mark.parametrize("schedule", [Hard(12), Cubic(2, 12, 2)], ids=["hard", "cubic"])
def test_moments_and_masks_are_those_of_adam(kind: Any, flags: dict[str, Any], schedule: Schedule) -> None:
    adams, adam, expected = trained(torch.optim.Adam, {}, schedule)
    _, _, pruner = trained(kind, flags, schedule)
    moments = pruner.state_dict()["second_moments"]
    assert moments.keys() == pruner.masks.keys()
    for name, mask in expected.masks.items():
        torch.testing.assert_close(moments[name], adam.state[adams.get_parameter(name)]["exp_avg_sq"])
        assert torch.equal(pruner.masks[name], mask), name
    assert pruner.sparsity == pytest.approx(0.75, abs=0.002)


def test_nothing_is_kept_twice() -> None:
    *_, adam = trained(torch.optim.Adam, {}, Hard(20))
    assert adam.state_dict()["second_moments"] == {}
    layer = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    pruner = Pruner(layer, optimizer, Hard(9))
    layer(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    assert pruner.state_dict()["second_moments"] == {}, "magnitude reads none"


def test_a_weight_without_a_gradient_is_named() -> None:
    model = nn.ModuleDict({"used": nn.Linear(4, 4), "idle": nn.Linear(4, 4)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pruner = Pruner(model, optimizer, Hard(1), saliency="fisher")
    model["used"](torch.ones(1, 4)).sum().backward()
    optimizer.step()
    with pytest.raises(UsageError, match=r"^idle\.weight: .* no gradient came before the cut; exclude it"):
        pruner.step()
    exclude = Selection(exclude=("idle.*",))
    pruner = Pruner(model, optimizer, Hard(1), target=0.5, saliency="fisher", selection=exclude)
    optimizer.step()
    assert pruner.step() is not None


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("unscaled", [False, True])
def test_a_scaler_neither_scales_nor_poisons_them(fused: bool, unscaled: bool) -> None:
    layer = nn.Linear(6, 8, bias=False)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.0, fused=fused)
    pruner = Pruner(layer, optimizer, Hard(9), saliency="fisher")
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**4)
    expected = torch.zeros(8, 6)
    for number, overflow in enumerate((False, True, False)):
        x = torch.full((1, 6), number + 1.0)
        optimizer.zero_grad()
        loss = layer(x).sum()
        scaler.scale(loss * math.inf if overflow else loss).backward()
        if unscaled:
            scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        pruner.step()
        expected = expected if overflow else 0.999 * expected + 0.001 * x**2  # the gradient is x, in every row
    assert pruner.step_count == 2
    torch.testing.assert_close(pruner.state_dict()["second_moments"]["weight"], expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_gradients_are_squared_in_float32(dtype: torch.dtype) -> None:
    layer = nn.Linear(3, 2, bias=False).to(dtype)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.0)
    pruner = Pruner(layer, optimizer, Hard(1), target=0.5, saliency="fisher")
    layer.weight.grad = torch.full((2, 3), 2.0**-14, dtype=dtype)  # its square is beyond float16
    optimizer.step()
    assert pruner.step() is not None
    kept = pruner.state_dict()["second_moments"]["weight"][pruner.masks["weight"]]
    torch.testing.assert_close(kept, torch.full((3,), 0.001 * 2.0**-28))


def test_a_state_goes_on_and_one_of_an_older_version_starts_anew() -> None:
    model, optimizer, pruner = trained(torch.optim.SGD, {}, Hard(20))
    state = copy.deepcopy(pruner.state_dict())
    other = Pruner(model, optimizer, Hard(20), target=0.75, saliency="fisher")
    other.load_state_dict(state)
    torch.testing.assert_close(other.state_dict()["second_moments"], state["second_moments"], rtol=0, atol=0)
    wrong = {**state, "step": 99, "second_moments": {name: v[:1] for name, v in state["second_moments"].items()}}
    with pytest.raises(
        UsageError, match=r"moments belong to another model: weight_ih_l0 is \[32, 6\], and .* \[1, 6\]"
    ):
        other.load_state_dict(wrong)
    assert other.step_count == state["step"]
    del state["second_moments"]
    other.load_state_dict(state)
    assert other.state_dict()["second_moments"] == {}


def test_a_state_is_of_the_step_that_it_was_taken_at_and_moments_end_with_the_last_cut() -> None:
    layer = nn.Linear(3, 2, bias=False)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.0)
    pruner = Pruner(layer, optimizer, Hard(2), target=0.5, saliency="fisher")
    taken = []
    for _ in range(4):
        layer.weight.grad = torch.full((2, 3), 2.0)
        optimizer.step()
        pruner.step()
        taken.append(pruner.state_dict())
    largest = [state["second_moments"]["weight"].max().item() for state in taken]
    assert largest == pytest.approx([0.004, 0.007996, 0.007996, 0.007996])
    other = Pruner(layer, optimizer, Hard(2), target=0.5, selection=Selection(scope="model"))
    other.load_state_dict(pruner.state_dict())
    assert other.state_dict()["second_moments"] == {}, "magnitude reads none"


def test_revived_weights_have_moments_of_their_own_gradients() -> None:
    """Gradual with revive leaves gradients unmasked until its end; so do the moments."""
    for kind in (torch.optim.Adam, torch.optim.SGD):
        _, _, pruner = trained(kind, {}, Gradual(0, 5, 12, 2, revive=True), steps=9)
        assert pruner.sparsity > 0
    moments = pruner.state_dict()["second_moments"]
    assert all(moments[name][~mask].any() for name, mask in pruner.masks.items() if not mask.all())


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.LBFGS])
@pytest.mark.parametrize("by_name", [False, True])
def test_gradients_that_come_in_a_closure_are_seen(kind: Any, by_name: bool) -> None:
    layer = nn.Linear(6, 8, bias=False)
    optimizer = kind(layer.parameters(), lr=0.0)
    pruner = Pruner(layer, optimizer, Hard(9), saliency="fisher")
    expected = torch.zeros(8, 6)
    for number in range(3):
        x = torch.full((1, 6), number + 1.0)

        def closure(x: torch.Tensor = x) -> torch.Tensor:
            optimizer.zero_grad()
            loss: torch.Tensor = layer(x).sum()
            loss.backward()
            return loss

        optimizer.step(closure=closure) if by_name else optimizer.step(closure)
        pruner.step()
        expected = 0.999 * expected + 0.001 * x**2
    torch.testing.assert_close(pruner.state_dict()["second_moments"]["weight"], expected)

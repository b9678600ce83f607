"""Gradients that never pass a hook, and models that are changed behind the Pruner's back."""

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from rnnprune.errors import UsageError
from rnnprune.pruning.options import Selection
from rnnprune.pruning.pruner import Pruner
from rnnprune.pruning.schedules import Gradual, Hard


def pruned(steps: int = 2) -> tuple[nn.Module, torch.optim.Optimizer, Pruner]:
    model = nn.Sequential(nn.Linear(10, 10), nn.Tanh(), nn.Linear(10, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    pruner = Pruner(model, optimizer, Hard(1))
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(4, 10)).square().sum().backward()
        optimizer.step()
        pruner.step()
    return model, optimizer, pruner


def by_autograd(parameter: Tensor) -> None:
    parameter.grad = torch.autograd.grad((parameter * torch.randn(10, 10)).sum(), parameter)[0]


def expanded(parameter: Tensor) -> None:
    (parameter.grad,) = torch.autograd.grad(parameter.sum(), parameter)
    assert parameter.grad.stride() == (0, 0)


def after_a_backward(parameter: Tensor) -> None:
    parameter.square().sum().backward()
    parameter.grad = torch.randn(10, 10)


@pytest.mark.parametrize("give", [by_autograd, expanded, after_a_backward])
def test_the_optimizer_never_sees_the_gradient_of_a_dropped_weight(give: Callable[[Tensor], None]) -> None:
    model, optimizer, pruner = pruned()
    weight, dropped = model[0].weight, ~pruner.masks["0.weight"]
    optimizer.zero_grad()
    give(weight)
    assert weight.grad[dropped].any()
    optimizer.step()
    assert not weight.detach()[dropped].any()  # before the pruner has masked it
    assert not optimizer.state[weight]["momentum_buffer"][dropped].any()
    assert optimizer.state[weight]["momentum_buffer"][~dropped].all()


def test_a_gradient_that_is_kept_and_filled_by_hand_is_masked_at_the_next_step() -> None:
    model, optimizer, pruner = pruned()
    weight, dropped = model[0].weight, ~pruner.masks["0.weight"]
    weight.grad.copy_(torch.randn(10, 10))  # the tensor that the last step's backward pass has made
    optimizer.step()
    assert not optimizer.state[weight]["momentum_buffer"][dropped].any()


def test_gradients_that_are_there_at_a_cut_are_cut_with_the_weights() -> None:
    model, _, pruner = pruned(steps=1)
    for name, mask in pruner.masks.items():
        gradient = model.get_parameter(name).grad
        assert not gradient[~mask].any()
        assert gradient[mask].any()


def test_while_weights_may_come_back_gradients_set_by_hand_are_whole() -> None:
    layer = nn.Linear(10, 10)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    pruner = Pruner(layer, optimizer, Gradual(0, 2, 20, 1, revive=True))
    for step in range(1, 23):
        layer.weight.grad = torch.ones(10, 10)
        optimizer.step()
        assert int(layer.weight.grad.count_nonzero()) == (100 if step <= 20 else 10)
        pruner.step()


# The model is changed after the Pruner was built


def test_parameters_replaced_by_a_load_with_assign_are_noticed() -> None:
    model, optimizer, pruner = pruned()
    dense = copy.deepcopy(nn.Sequential(nn.Linear(10, 10), nn.Tanh(), nn.Linear(10, 10)).state_dict())
    model.load_state_dict(dense)
    optimizer.step()
    pruner.step()  # copied into the old parameters: all is well
    assert int(model[0].weight.count_nonzero()) == 10
    model.load_state_dict(dense, assign=True)
    optimizer.step()
    with pytest.raises(UsageError, match=r"^0.weight is no longer the parameter .* or load without assign$"):
        pruner.step()


def test_a_layer_that_was_replaced_or_removed_is_noticed() -> None:
    for change in (lambda model: model.__setitem__(2, nn.Linear(10, 10)), lambda model: model.__delitem__(2)):
        model, optimizer, pruner = pruned()
        change(model)
        optimizer.step()
        with pytest.raises(UsageError, match=r"^2.weight is no longer the parameter"):
            pruner.step()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_model_converted_afterwards_is_refused_in_words(dtype: torch.dtype) -> None:
    model, _, _ = pruned()
    model.to(dtype)
    model.zero_grad()
    told = rf"^\d.weight is now {dtype} \[10, 10\] on cpu, and was torch.float32 \[10, 10\] on cpu .*build the Pruner"
    with pytest.raises(UsageError, match=told):
        model(torch.randn(4, 10, dtype=dtype)).sum().backward()


def test_a_model_moved_afterwards_is_refused_in_words() -> None:
    model, optimizer, pruner = pruned()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.to("meta")  # new parameters, since the device cannot hold the old ones' data
    optimizer.step()
    with pytest.raises(UsageError, match=r"^0.weight is "):
        pruner.step()


def test_masks_loaded_after_a_conversion_fit_it() -> None:
    model, _, pruner = pruned()
    state = pruner.state_dict()
    model.double()
    model.zero_grad()
    pruner.load_state_dict(state)
    model(torch.randn(4, 10).double()).sum().backward()
    assert not model[0].weight.grad[~pruner.masks["0.weight"]].any()


def test_a_state_whose_target_was_shared_out_otherwise_is_refused() -> None:
    layer = nn.Linear(8, 8)
    optimizer = torch.optim.Adam(layer.parameters())
    alike, together = (
        Pruner(layer, optimizer, Hard(1), target=0.5, selection=Selection(scope=scope))  # type: ignore[arg-type]
        for scope in ("tensor", "model")
    )
    layer(torch.ones(1, 8)).sum().backward()
    optimizer.step()
    alike.step()
    with pytest.raises(UsageError, match="shared its target out by other groups, such as weight; give the Pruner the"):
        together.load_state_dict(alike.state_dict())

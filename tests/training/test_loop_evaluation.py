"""How many steps a recipe means, and what evaluating leaves as it was."""

from collections.abc import Mapping
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from rnnprune.errors import UsageError
from rnnprune.training.loop import build_optimizer, evaluate, planned_steps, to_device, train
from rnnprune.training.recipe import DEFAULT_STEPS, Recipe
from tests.training.loop_cases import Echo, Stream, start

# How long


def test_steps_and_epochs_become_optimizer_steps() -> None:
    assert planned_steps(Echo(), Recipe(steps=17)) == 17
    assert planned_steps(Echo(), Recipe()) == DEFAULT_STEPS == 1000
    assert planned_steps(Echo(), Recipe(epochs=3.0)) == 12
    assert planned_steps(Echo(), Recipe(epochs=0.5)) == 2
    assert planned_steps(Echo(), Recipe(epochs=0.01)) == 1
    assert planned_steps(Stream(), Recipe(steps=17)) == 17


def test_epochs_of_an_unknown_length_are_refused() -> None:
    with pytest.raises(UsageError, match=r"let train_batches return something with a __len__, or give --steps"):
        planned_steps(Stream(), Recipe(epochs=3.0))


def test_batches_without_a_length_are_trained_on() -> None:
    model, optimizer = start(Recipe())
    assert len(list(train(model, Stream(), Recipe(), optimizer, 10))) == 10


# Evaluation


@pytest.mark.parametrize("mode", [True, False])
def test_evaluate_runs_in_eval_mode_and_puts_the_mode_back(mode: bool) -> None:
    model = Echo().build_model().train(mode)
    assert evaluate(model, Echo(), "test")["training"] == 0.0
    assert model.training is mode
    assert model[2].training is mode  # type: ignore[index]


def test_evaluate_puts_the_mode_back_after_an_error() -> None:
    class Raises(Echo):
        def evaluate(self, model: nn.Module, split: str) -> Mapping[str, float]:  # noqa: ARG002
            raise ZeroDivisionError

    model = Echo().build_model()
    with pytest.raises(ZeroDivisionError):
        evaluate(model, Raises(), "test")
    assert model.training


def test_figures_are_plain_floats_and_take_no_gradient() -> None:
    model = Echo().build_model()
    figures = evaluate(model, Echo(), "validation")
    assert all(type(value) is float for value in figures.values())
    assert all(parameter.grad is None for parameter in model.parameters())


class Caches(nn.Module):
    """Keeps a mask that it made in its first forward, as causal masks and rotary tables are kept."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.kept = nn.Linear(3, 1), None

    def forward(self, x: Tensor) -> Tensor:
        if self.kept is None:
            self.kept = torch.ones(1)
        return self.layer(x) * self.kept


def test_a_model_that_caches_a_tensor_while_it_is_evaluated_can_be_trained_afterwards() -> None:
    model = Caches()
    evaluate(model, Echo(), "test")
    assert len(list(train(model, Echo(), Recipe(), build_optimizer(model, Recipe()), 2))) == 2


@pytest.mark.parametrize(("returned", "told"), [({"acc": 1.0, "f1": 0.5}, "acc, f1"), ({}, "nothing")])
def test_a_missing_metric_is_named(returned: dict[str, float], told: str) -> None:
    class Forgets(Echo):
        def evaluate(self, model: nn.Module, split: str) -> Mapping[str, float]:  # noqa: ARG002
            return returned

    with pytest.raises(UsageError, match=rf"metric is 'mse', but its evaluate\(\) returned only {told}"):
        evaluate(Echo().build_model(), Forgets(), "test")


class Pair(NamedTuple):
    x: Tensor
    length: int


def test_every_tensor_in_a_batch_is_moved_and_everything_else_is_left() -> None:
    batch = {"pair": Pair(torch.ones(2), 3), "list": [torch.ones(1), "text"], "tuple": (None, torch.ones(1))}
    moved = to_device(batch, torch.device("meta"))
    assert isinstance(moved["pair"], Pair)
    assert [moved["pair"].x.device.type, moved["list"][0].device.type, moved["tuple"][1].device.type] == ["meta"] * 3
    assert (moved["pair"].length, moved["list"][1], moved["tuple"][0]) == (3, "text", None)
    assert type(moved["list"]) is list
    assert type(moved["tuple"]) is tuple

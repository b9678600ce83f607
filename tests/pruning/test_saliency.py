"""Saliencies against Adam's second moment worked out by hand."""

import pytest
import torch
from torch import nn

from rnnprune.errors import UsageError
from rnnprune.pruning.options import Block, Selection
from rnnprune.pruning.pruner import Pruner
from rnnprune.pruning.saliency import SALIENCIES, fisher, magnitude
from rnnprune.pruning.schedules import Hard

WEIGHT = [[1.0, -2.0], [0.0, 0.5]]
FIRST = [[10.0, 1.0], [5.0, -40.0]]
SECOND = [[0.0, 3.0], [5.0, 20.0]]


def stepped(optimizer_type: type[torch.optim.Optimizer]) -> tuple[nn.Parameter, torch.optim.Optimizer]:
    """Two steps with the gradients FIRST and SECOND, and a rate of 0 so that the weight stays WEIGHT."""
    weight = nn.Parameter(torch.tensor(WEIGHT))
    optimizer = optimizer_type([weight], lr=0.0)  # type: ignore[call-arg]
    for gradient in (FIRST, SECOND):
        weight.grad = torch.tensor(gradient)
        optimizer.step()
    return weight, optimizer


def test_magnitude_is_the_absolute_value() -> None:
    assert magnitude(torch.tensor(WEIGHT), {}).tolist() == [[1.0, 2.0], [0.0, 0.5]]


@pytest.mark.parametrize("optimizer_type", [torch.optim.Adam, torch.optim.AdamW, torch.optim.NAdam, torch.optim.RAdam])
def test_fisher_is_the_weight_times_the_root_of_the_second_moment(optimizer_type: type[torch.optim.Optimizer]) -> None:
    weight, optimizer = stepped(optimizer_type)
    # v = 0.999 * 0.001 * first^2 + 0.001 * second^2, Adam's beta2 being 0.999
    #   [0, 0]: 0.000999 * 100                 = 0.0999     |1|   * sqrt = 0.31607
    #   [0, 1]: 0.000999 * 1 + 0.001 * 9       = 0.009999   |-2|  * sqrt = 0.19999
    #   [1, 0]:                                             |0|          = 0
    #   [1, 1]: 0.000999 * 1600 + 0.001 * 400  = 1.9984     |0.5| * sqrt = 0.70682
    expected = torch.tensor([[0.316070, 0.199990], [0.0, 0.706824]])
    torch.testing.assert_close(fisher(weight, optimizer.state[weight]), expected, rtol=1e-5, atol=0)


def test_magnitude_and_fisher_disagree_and_the_pruner_takes_the_one_asked_for() -> None:
    kept = {}
    for name in ("magnitude", "fisher"):
        layer = nn.Linear(2, 2, bias=False)
        layer.weight.data = torch.tensor(WEIGHT)
        optimizer = torch.optim.Adam(layer.parameters(), lr=0.0)
        pruner = Pruner(layer, optimizer, Hard(2), target=0.75, saliency=name)  # type: ignore[arg-type]
        for gradient in (FIRST, SECOND):
            layer.weight.grad = torch.tensor(gradient)
            optimizer.step()
            pruner.step()
        kept[name] = pruner.masks["weight"].tolist()
    assert kept == {"magnitude": [[False, True], [False, False]], "fisher": [[False, False], [False, True]]}


def test_fisher_without_second_moments_says_what_to_do() -> None:
    weight, optimizer = stepped(torch.optim.SGD)
    with pytest.raises(UsageError, match=r"there are none of this weight: no gradient .*or use saliency 'magnitude'"):
        fisher(weight, optimizer.state[weight])


def test_where_fisher_ties_the_larger_weight_stays() -> None:
    """An input that is always 0 gives its whole column a score of 0; blocks tie likewise."""
    for block, kept in (
        (Block(1, 1), [[False, False], [True, False], [True, False], [True, False]]),
        (Block(2, 1), [[False, False]] * 2 + [[True, False]] * 2),
    ):
        layer = nn.Linear(2, 4, bias=False)
        layer.weight.data = torch.tensor([[1.0, 9.0], [2.0, 9.0], [3.0, 9.0], [4.0, 9.0]])
        optimizer = torch.optim.Adam(layer.parameters(), lr=0.0)
        layer.weight.data[:, 1] = 0.001
        pruner = Pruner(
            layer,
            optimizer,
            Hard(1),
            target=0.625 if block == (1, 1) else 0.75,
            saliency="fisher",
            selection=Selection(block=block),
        )
        layer(torch.zeros(1, 2)).sum().backward()
        optimizer.step()
        pruner.step()
        assert pruner.masks["weight"].tolist() == kept


def test_fisher_refuses_second_moments_that_vanished_in_float16() -> None:
    for dtype in (torch.float16, torch.bfloat16):
        layer = nn.Linear(4, 4, bias=False).to(dtype)
        optimizer = torch.optim.Adam(layer.parameters(), lr=0.0)
        pruner = Pruner(layer, optimizer, Hard(1), saliency="fisher")
        layer.weight.grad = torch.full((4, 4), 1e-4, dtype=dtype)
        optimizer.step()
        if dtype == torch.bfloat16:
            assert pruner.step() is not None
            continue
        with pytest.raises(
            UsageError, match=r"^weight: .* every second moment zero: in float16 .* or bfloat16, or use"
        ):
            pruner.step()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_weights_are_scored_in_float32(dtype: torch.dtype) -> None:
    weight = torch.tensor([[1.0, 1.0, 3.0]], dtype=dtype) * 2**-14
    state = {"exp_avg_sq": torch.tensor([[2.0**-20, 1.5 * 2**-20, 2.0**-20]], dtype=dtype)}
    scores = fisher(weight, state)
    assert scores.dtype == torch.float32
    assert magnitude(weight, state).dtype == torch.float32
    # 2^-14 sqrt(2^-20) = 2^-24, the last step above zero in float16: in that dtype the first two would tie.
    expected = torch.tensor([[1.0, 1.5**0.5, 3.0]], dtype=torch.float64) * 2.0**-24
    torch.testing.assert_close(scores.double(), expected, rtol=1e-6, atol=0)
    assert len(set((weight.half().abs() * state["exp_avg_sq"].half().sqrt()).flatten().tolist())) == 2


def test_double_weights_keep_their_precision() -> None:
    weight = torch.tensor([[1.0, 1.0 + 1e-12]], dtype=torch.float64)
    assert magnitude(weight, {}).dtype == torch.float64
    assert magnitude(weight, {})[0, 1] > magnitude(weight, {})[0, 0]


def test_scores_carry_no_gradient_and_leave_the_weight_alone() -> None:
    weight, optimizer = stepped(torch.optim.Adam)
    for score in SALIENCIES.values():
        assert not score(weight, optimizer.state[weight]).requires_grad
    assert weight.tolist() == WEIGHT

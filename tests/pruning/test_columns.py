"""N of M: at most so many of the neighbouring columns of a row stay."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rnnprune.errors import UsageError
from rnnprune.pruning.masks import best_of_columns
from rnnprune.pruning.options import Block, NOfM, PruningOptions, Scope, Selection, parse_n_of_m
from rnnprune.pruning.pruner import Pruner
from rnnprune.pruning.schedules import Cubic, Hard, plan_schedule


def best_by_loops(scores: np.ndarray, keep: int, of: int, tie_break: np.ndarray | None = None) -> np.ndarray:
    best = np.zeros(scores.shape, dtype=bool)
    for row, line in enumerate(scores):
        for start in range(0, len(line), of):
            ties = -np.zeros_like(line) if tie_break is None else -tie_break[row]
            order = np.lexsort((ties[start : start + of], -line[start : start + of]))[:keep]
            best[row, start + order] = True
    return best


def most_in_a_window(mask: Tensor, of: int) -> int:
    padded = nn.functional.pad(mask.int(), (0, -mask.shape[1] % of))
    return int(padded.unflatten(1, (-1, of)).sum(2).max())


@pytest.mark.parametrize("shape", [(3, 16), (4, 19), (2, 5), (1, 1), (0, 8)])
@pytest.mark.parametrize("pattern", [NOfM(1, 8), NOfM(2, 4), NOfM(3, 5), NOfM(8, 64), NOfM(8, 10**30)])
@pytest.mark.parametrize("values", [10**6, 3, 1])
def test_the_best_of_neighbouring_columns(shape: tuple[int, int], pattern: NOfM, values: int) -> None:
    scores, tie_break = torch.randint(values, shape).float(), torch.randint(3, shape).float()
    np.testing.assert_array_equal(
        best_of_columns(scores, tie_break, pattern).numpy(),
        best_by_loops(scores.numpy(), *pattern, tie_break.numpy()),
    )


def trained(model: nn.Module, pruner: Pruner, optimizer: torch.optim.Optimizer, steps: int) -> list[float]:
    """The sparsity after each step."""
    found = []
    for _ in range(steps):
        optimizer.zero_grad()
        sum((parameter * torch.randn_like(parameter)).sum() for parameter in model.parameters()).backward()  # type: ignore[union-attr]
        optimizer.step()
        pruner.step()
        found.append(pruner.sparsity)
    return found


def test_at_the_share_of_the_pattern_the_best_of_every_window_is_left() -> None:
    model = nn.LSTM(16, 32)
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    pruner = Pruner(model, optimizer, Hard(1), target=7 / 8, selection=Selection(n_of_m=NOfM(1, 8)))
    before = {name: parameter.detach().abs().numpy().copy() for name, parameter in model.named_parameters()}
    trained(model, pruner, optimizer, 1)
    for name, mask in pruner.masks.items():
        np.testing.assert_array_equal(mask.numpy(), best_by_loops(before[name], 1, 8))


@pytest.mark.parametrize("scope", ["gate", "tensor", "type", "model"])
@pytest.mark.parametrize("target", [0.75, 0.9])
def test_a_schedule_ends_at_its_target_and_in_the_pattern(scope: Scope, target: float) -> None:
    model = nn.ModuleDict({"rnn": nn.GRU(20, 24), "output": nn.Linear(24, 11)})
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    selection = Selection(scope=scope, n_of_m=NOfM(2, 8), keep_diagonal=True)
    # 20 columns end in a window of 4, of which 2 may stay: 70 % of zeros, not 75 %
    pruner = Pruner(model, optimizer, Cubic(2, 18, 4), target=target, saliency="fisher", selection=selection)
    sparsities = trained(model, pruner, optimizer, 20)
    assert sparsities == sorted(sparsities)
    assert 0 < sparsities[6] < sparsities[10] < sparsities[-1]
    assert {most_in_a_window(mask, 8) for mask in pruner.masks.values()} == {2}
    count = sum(mask.numel() for mask in pruner.masks.values())
    assert sparsities[-1] == pytest.approx(target, abs=8 * 0.5 / count), "up to rounding in each of 8 groups"


def test_what_was_pruned_before_is_pruned_on_into_the_pattern() -> None:
    model = nn.GRU(16, 16)
    with torch.no_grad():
        for weight in (model.weight_ih_l0, model.weight_hh_l0):
            weight[:, :8] = 0  # half of the windows are empty
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    pruner = Pruner(model, optimizer, Hard(1), target=0.75, selection=Selection(n_of_m=NOfM(2, 8)))
    trained(model, pruner, optimizer, 2)
    assert pruner.sparsity == 0.875, "2 of 16: zeros stay, so the empty windows cannot be filled"
    assert all(most_in_a_window(mask, 8) == 2 for mask in pruner.masks.values())


def test_a_target_that_leaves_more_than_the_pattern_is_refused_with_one_that_does_not() -> None:
    model = nn.GRU(20, 24)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    told = (
        r"weight_ih_l0: --n-of-m 1:8 leaves 216 of 1440 at most, and a target of 0.8 more; choose .* of 0.85 or above"
    )
    selection = Selection(n_of_m=NOfM(1, 8), scope="tensor")
    with pytest.raises(UsageError, match=told):
        Pruner(model, optimizer, Hard(1), target=0.8, selection=selection)
    Pruner(model, optimizer, Hard(1), target=0.875, selection=selection)


def test_a_threshold_knows_no_columns() -> None:
    model = nn.GRU(8, 8)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    gradual = plan_schedule("gradual", total_steps=100)
    with pytest.raises(UsageError, match="--n-of-m goes by rank, and gradual by a threshold; take cubic or hard"):
        Pruner(model, optimizer, gradual, selection=Selection(n_of_m=NOfM(1, 8)))


def test_blocks_have_no_columns_of_their_own() -> None:
    with pytest.raises(UsageError, match="--n-of-m counts single weights: drop it or --block 8x1"):
        Selection(Block(8, 1), n_of_m=NOfM(1, 8))


def test_the_flag_is_two_counts() -> None:
    assert parse_n_of_m("8:64") == NOfM(8, 64)
    assert str(NOfM(8, 64)) == "8:64"
    for text in ("1/8", "1:", ":8", "-1:8", "1:8:16", "one:eight", "", "8:8", "0:8", "9:8", "0:0", "1:" + "8" * 5000):
        with pytest.raises(UsageError, match=r"--n-of-m takes COLUMNS:OF, fewer of more, such as 1:8 or 4:32; found "):
            parse_n_of_m(text)


def test_dead_inputs_keep_their_larger_weights() -> None:
    """Under fisher what never saw a gradient scores 0, and all such weights alike."""
    model = nn.Linear(16, 4)
    optimizer = torch.optim.Adam(model.parameters(), 1e-6)
    pruner = Pruner(model, optimizer, Hard(1), target=0.75, saliency="fisher", selection=Selection(n_of_m=NOfM(2, 8)))
    before = model.weight.detach().abs().numpy().copy()
    model(torch.cat([torch.zeros(3, 8), torch.randn(3, 8)], 1)).square().sum().backward()
    optimizer.step()
    pruner.step()
    np.testing.assert_array_equal(pruner.masks["weight"][:, :8].numpy(), best_by_loops(before[:, :8], 2, 8))


def test_a_pattern_is_told_early_that_its_schedule_goes_by_a_threshold() -> None:
    with pytest.raises(UsageError, match="--n-of-m goes by rank, and gradual by a threshold"):
        PruningOptions(schedule="gradual", selection=Selection(n_of_m=NOfM(1, 8)))

"""How the zeros are shared out: over gates, and around the diagonal of recurrent matrices."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from rnnprune.errors import UsageError
from rnnprune.pruning.masks import recurrent_diagonal
from rnnprune.pruning.options import Block, Scope, Selection
from rnnprune.pruning.pruner import Pruner
from rnnprune.pruning.schedules import Gradual, Hard


def pruned(model: nn.Module, selection: Selection, target: float = 0.75) -> dict[str, Tensor]:
    """The masks of a copy after one step and one cut by magnitude."""
    model = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    pruner = Pruner(model, optimizer, Hard(1), target=target, selection=selection)
    sum(parameter.square().sum() for parameter in model.parameters()).backward()  # type: ignore[union-attr]
    optimizer.step()
    pruner.step()
    return pruner.masks


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_every_gate_reaches_the_target_on_its_own(kind: type[nn.RNNBase], gates: int) -> None:
    model = kind(6, 8)
    with torch.no_grad():
        model.weight_hh_l0[:8] *= 100  # one gate would take everything
    masks = pruned(model, Selection(scope="gate"))
    for name, kept in (("weight_hh_l0", 16), ("weight_ih_l0", 12)):
        assert [int(part.sum()) for part in masks[name].split(8)] == [kept] * gates
    whole = pruned(model, Selection(scope="tensor"))["weight_hh_l0"]
    assert gates == 1 or len({int(part.sum()) for part in whole.split(8)}) > 1


@pytest.mark.parametrize(
    ("model", "exclude", "kept"),
    [
        (nn.LSTM(6, 8, proj_size=2), (), {"weight_ih_l0": [12] * 4, "weight_hh_l0": [4] * 4, "weight_hr_l0": [4]}),
        (nn.GRU(6, 8), ("weight_hh*",), {"weight_ih_l0": [12] * 3}),
        (nn.LSTMCell(6, 8), ("weight_ih",), {"weight_hh": [16] * 4}),
    ],
)
def test_gates_are_told_apart_by_the_layer_not_by_what_is_pruned_of_it(
    model: nn.Module, exclude: tuple[str, ...], kept: dict[str, list[int]]
) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter[:8] *= 100
    masks = pruned(model, Selection(scope="gate", exclude=exclude))
    assert {name: [int(part.sum()) for part in mask.split(8)] for name, mask in masks.items()} == kept


def test_a_gate_may_have_a_target_of_its_own() -> None:
    """As LPCNet's gates have: Valin & Skoglund, ICASSP 2019."""
    masks = pruned(nn.GRU(6, 8), Selection(scope="gate", target_of=(("weight_hh_l0.n", 0.5), ("*.z", 0.875))))
    assert [int(part.sum()) for part in masks["weight_hh_l0"].split(8)] == [16, 8, 32]
    assert [int(part.sum()) for part in masks["weight_ih_l0"].split(8)] == [12, 6, 12]


def test_a_target_for_nothing_is_refused() -> None:
    told = r"--target-of 'weight_hh_l0\.n' matches no tensor that is pruned \(and a gate only under --scope gate\); "
    with pytest.raises(UsageError, match=told):
        pruned(nn.GRU(6, 8), Selection(target_of=(("weight_hh_l0.n", 0.5),)))
    with pytest.raises(UsageError, match="--target-of covers all that is pruned, and nothing is left for --target"):
        pruned(nn.GRU(6, 8), Selection(target_of=(("*", 0.5),)))


def test_a_pattern_that_would_match_the_name_of_a_group_takes_nothing_from_it() -> None:
    model = nn.ModuleDict({"m": nn.Linear(8, 4), "rnn": nn.GRU(6, 8)})
    masks = pruned(model, Selection(scope="model", target_of=(("m*", 0.5),)))
    assert int(masks["m.weight"].sum()) == 16
    assert sum(int(masks[f"rnn.weight_{which}_l0"].sum()) for which in ("ih", "hh")) == (24 * 6 + 24 * 8) // 4


def test_a_tied_tensor_has_its_target_by_any_of_its_names() -> None:
    model = nn.ModuleDict({"rnn": nn.GRU(6, 8), "first": nn.Linear(8, 6), "second": nn.Linear(8, 6)})
    model["second"].weight = model["first"].weight
    masks = pruned(model, Selection(target_of=(("second.weight", 0.5),)))
    assert int(masks["first.weight"].sum()) == 24


def test_gates_that_cannot_be_told_apart_are_refused() -> None:
    model = torch.nn.utils.parametrizations.weight_norm(nn.LSTM(6, 8), "weight_hh_l0")
    with pytest.raises(UsageError, match=r"--scope gate: weight_ih_l0 .* weight_hh_l0 is missing.*--scope tensor"):
        Pruner(model, torch.optim.SGD(model.parameters()), Hard(1), selection=Selection(scope="gate"))


def test_blocks_that_reach_into_the_next_gate_are_refused() -> None:
    with pytest.raises(UsageError, match="a gate of weight_ih_l0 has 6 rows, which blocks of 4x1 do not divide"):
        pruned(nn.GRU(6, 6), Selection(Block(4, 1), scope="gate"))


@pytest.mark.parametrize("scope", ["gate", "tensor", "model"])
@pytest.mark.parametrize("block", [Block(1, 1), Block(4, 1)])
def test_the_recurrent_diagonal_is_kept_and_counts(scope: Scope, block: Block) -> None:
    model = nn.LSTM(8, 16)
    diagonal = torch.eye(16, dtype=torch.bool).repeat(4, 1)
    with torch.no_grad():
        model.weight_hh_l0[diagonal] = 1e-6
    target = 0.5 if block == Block(4, 1) else 0.75
    free = pruned(model, Selection(block, scope=scope), target)
    assert not free["weight_hh_l0"][diagonal].all()
    masks = pruned(model, Selection(block, scope=scope, keep_diagonal=True), target)
    assert masks["weight_hh_l0"][diagonal].all()
    count = sum(mask.numel() for mask in masks.values())
    assert sum(int(mask.sum()) for mask in masks.values()) == count * (1 - target)


def test_a_target_that_leaves_no_room_for_the_diagonal_is_refused() -> None:
    with pytest.raises(
        UsageError, match=r"weight_hh_l0: --keep-diagonal keeps 24 of 192, more than a target of 0.9 leaves"
    ):
        pruned(nn.GRU(8, 8), Selection(keep_diagonal=True), 0.9)


def test_the_threshold_of_gradual_is_read_from_what_may_be_dropped() -> None:
    model, steps = nn.GRU(8, 16), 20
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    selection = Selection(keep_diagonal=True, exclude=("weight_ih*",))
    pruner = Pruner(model, optimizer, Gradual(1, 5, steps, 2), target=1 - 1 / 16, selection=selection)
    sparsities = []
    for _ in range(steps):
        sum(parameter.square().sum() for parameter in model.parameters()).backward()  # type: ignore[union-attr]
        optimizer.step()
        pruner.step()
        sparsities.append(pruner.sparsity)
    assert pruner.quantiles["weight_hh_l0"] <= 0.25, "torch draws from -1 / sqrt(16) to 1 / sqrt(16)"
    assert sparsities[1] < sparsities[9] < sparsities[-1] == 1 - 1 / 16


def test_a_matrix_that_is_its_own_diagonal_is_kept_whole() -> None:
    model = nn.GRU(8, 1)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    pruner = Pruner(model, optimizer, Gradual(0, 1, 2, 1), target=0.125, selection=Selection(keep_diagonal=True))
    for _ in range(2):
        sum(parameter.square().sum() for parameter in model.parameters()).backward()  # type: ignore[union-attr]
        optimizer.step()
        pruner.step()
    assert {name: int(mask.sum()) for name, mask in pruner.masks.items()} == {"weight_ih_l0": 21, "weight_hh_l0": 3}


def test_only_square_gates_have_a_diagonal() -> None:
    assert torch.equal(recurrent_diagonal(6, 2), torch.eye(2, dtype=torch.bool).repeat(3, 1))
    assert not recurrent_diagonal(16, 2).any(), "of a projection"
    assert not recurrent_diagonal(7, 3).any()

"""Every tensor has its reason; patterns that cannot work are refused by their text."""

import warnings

import pytest
import torch
from torch import nn

from rnnprune.errors import UsageError
from rnnprune.pruning.options import Selection
from rnnprune.pruning.pruner import Pruner
from rnnprune.pruning.schedules import Hard
from rnnprune.pruning.selection import choose, roles_of_module


class Speech(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 4)
        self.conv = nn.Conv1d(4, 6, 3)
        self.norm = nn.LayerNorm(6)
        self.encoder = nn.LSTM(6, 8, bidirectional=True, proj_size=5)
        self.cell = nn.GRUCell(10, 6)
        self.plain = nn.RNN(6, 4, bias=False)
        self.table = nn.Parameter(torch.randn(3, 3))
        self.head = nn.Linear(4, 10)


def pruner(model: nn.Module, **selection: tuple[str, ...]) -> Pruner:
    return Pruner(model, torch.optim.Adam(model.parameters()), Hard(1), selection=Selection(**selection))  # type: ignore[arg-type]


def test_every_tensor_is_listed_with_its_reason() -> None:
    model = Speech()
    reasons = {choice.name: (choice.pruned, choice.reason) for choice in pruner(model).choices}
    assert set(reasons) == {name for name, _ in model.named_parameters()}
    recurrent = [name for name in reasons if name.startswith(("encoder.weight", "cell.weight", "plain.weight"))]
    assert len(recurrent) == 6 + 2 + 2
    assert all(reasons[name][0] for name in recurrent)
    assert reasons["encoder.weight_hr_l0_reverse"] == (True, "projection weight")
    assert reasons["cell.weight_ih"] == (True, "input weight")
    assert reasons["plain.weight_hh_l0"] == (True, "recurrent weight")
    assert reasons["head.weight"] == (True, "linear weight")
    assert reasons["embedding.weight"] == (False, "embedding: not pruned by default")
    assert reasons["conv.weight"] == (False, "convolution: not pruned by default")
    assert reasons["norm.weight"] == (False, "norm: not pruned by default")
    assert reasons["encoder.bias_hh_l0_reverse"] == (False, "bias: not pruned by default")
    assert reasons["table"] == (False, "neither a recurrent nor a linear weight that is known; --include prunes it")
    assert sum(pruned for pruned, _ in reasons.values()) == 11


def test_patterns_take_in_and_leave_out_and_leaving_out_wins() -> None:
    made = pruner(
        Speech(), include=("table", "encoder.*_l0"), exclude=("encoder.weight_hr*", "head.*", "encoder.bias*")
    )
    reasons = {choice.name: choice.reason for choice in made.choices}
    assert reasons["table"] == "included by 'table'"
    assert reasons["encoder.weight_hr_l0"] == "excluded by 'encoder.weight_hr*'"
    assert "table" in made.masks
    assert not {"head.weight", "encoder.weight_hr_l0", "encoder.weight_hr_l0_reverse"} & made.masks.keys()


@pytest.mark.parametrize(
    ("selection", "text"),
    [
        (
            {"exclude": ("encoder.wieght_hh_l0",)},
            "--exclude 'encoder.wieght_hh_l0' matches no tensor; did you mean encoder.w",
        ),
        ({"include": ("zzz",)}, "--include 'zzz' matches no tensor; did you mean "),
        ({"include": ("norm.weight",)}, r"--include 'norm.weight': norm.weight has shape \[6\]; only matrices"),
        ({"include": ("conv.*",)}, r"conv.weight has shape \[6, 4, 3\]; only matrices can be pruned"),
        ({"exclude": ("*",)}, "nothing to prune: .*name the matrices with --include"),
    ],
)
def test_a_selection_that_cannot_work_is_refused(selection: dict[str, tuple[str, ...]], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        pruner(Speech(), **selection)


@pytest.mark.parametrize("target", [0.0, 1.0, -0.1, 90.0, float("nan")])
def test_a_target_that_is_no_share_is_refused(target: float) -> None:
    layer = nn.Linear(2, 2)
    with pytest.raises(UsageError, match=r"between 0 and 1 \(0.9 keeps a tenth\); found"):
        Pruner(layer, torch.optim.Adam(layer.parameters()), Hard(1), target=target)


# What the optimizer does not train


def test_frozen_weights_are_left_out_whether_the_optimizer_knows_them_or_not() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    model[0].requires_grad_(False)
    made = Pruner(model, torch.optim.Adam([*model[0].parameters(), *model[1].parameters()]), Hard(1))
    reasons = {choice.name: choice.reason for choice in made.choices if choice.name.endswith("weight")}
    frozen = "frozen: the optimizer does not train it"
    assert reasons == {"0.weight": frozen, "1.weight": "linear weight", "2.weight": frozen}
    assert list(made.masks) == ["1.weight"]


def test_nothing_left_after_frozen_and_tied_weights_is_refused_with_the_reasons() -> None:
    frozen = nn.Linear(4, 4)
    with pytest.raises(UsageError, match=r"nothing left to prune \(weight: frozen"):
        Pruner(frozen, torch.optim.Adam(nn.Linear(2, 2).parameters()), Hard(1))
    tied = nn.ModuleDict({"embedding": nn.Embedding(6, 4), "head": nn.Linear(4, 6)})
    tied["head"].weight = tied["embedding"].weight
    with pytest.raises(UsageError, match=r"nothing left to prune \(head.weight: tied to embedding.weight"):
        Pruner(tied, torch.optim.Adam(tied.parameters()), Hard(1))


# Unusual owners


def test_a_module_used_twice_is_listed_under_both_names_and_pruned_once() -> None:
    model = nn.Module()
    model.first = model.second = nn.Linear(4, 4)
    made = pruner(model)
    assert {choice.name for choice in made.choices} == {
        f"{at}.{leaf}" for at in ("first", "second") for leaf in ("weight", "bias")
    }
    assert list(made.masks) == ["first.weight"]


def test_the_norms_of_a_weight_norm_are_not_pruned() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and still in many checkpoints
        layer = nn.utils.weight_norm(nn.Linear(4, 6))
    roles = roles_of_module(nn.Sequential(layer, nn.Linear(6, 2)))
    assert (roles["0.weight_g"], roles["0.weight_v"], roles["1.weight"]) == ("unknown", "unknown", "linear")


def test_a_choice_is_made_by_role_and_not_by_name() -> None:
    roles = {"a": "recurrent", "rnn.weight_hh_l0": "embedding"}
    choices = choose(roles, {"a": (4, 4), "rnn.weight_hh_l0": (4, 4)})  # type: ignore[arg-type]
    assert [choice.pruned for choice in choices] == [True, False]

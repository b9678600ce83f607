"""`prune` on files with weights that it cannot cut: each is told, and none ends in a traceback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from rnnprune.errors import UsageError
from rnnprune.pruning.options import NOfM, Selection
from rnnprune.workflows.bench_pieces import pieces_of
from rnnprune.workflows.prune import prune
from rnnprune.workflows.subject import open_subject

ODD = {
    "empty": (torch.zeros(0, 5), "no weight in it"),
    "float8": (torch.ones(4, 5).to(torch.float8_e4m3fn), "torch.float8_e4m3fn is no dtype that can be pruned"),
    "complex": (torch.ones(4, 5, dtype=torch.complex64), "torch.complex64 is no dtype that can be pruned"),
    "integers": (torch.ones(4, 5, dtype=torch.int8), "torch.int8 is no dtype that can be pruned"),
}


@pytest.mark.parametrize(("weight", "reason"), ODD.values(), ids=list(ODD))
def test_a_weight_that_cannot_be_cut_is_left_with_the_reason(tmp_path: Path, weight: Tensor, reason: str) -> None:
    state = {"odd.weight": weight, "odd.bias": torch.zeros(len(weight)), **nn.LSTM(5, 8).state_dict()}
    torch.save(state, tmp_path / "odd.pt")
    done = prune(tmp_path / "odd.pt", 0.9, Selection(), tmp_path / "run")
    assert done.per_tensor.keys() == {"weight_ih_l0", "weight_hh_l0"}
    choices = open_subject(tmp_path / "run").checkpoint.metadata["choices"]
    assert choices["odd.weight"] == {"pruned": False, "reason": reason}
    assert json.loads((tmp_path / "run/rnnprune.json").read_text())["sparsity"]["achieved"] == done.achieved


def test_an_empty_matrix_is_not_timed(tmp_path: Path) -> None:
    state = {"empty.weight": torch.zeros(0, 5), "empty.bias": torch.zeros(0), **nn.LSTM(5, 8).state_dict()}
    torch.save(state, tmp_path / "odd.pt")
    names = [piece.name for piece in pieces_of(open_subject(tmp_path / "odd.pt"))]
    assert names == ["weight_ih_l0", "weight_hh_l0", "layer 0"]


def test_nothing_is_written_where_nothing_is_left_to_prune(tmp_path: Path) -> None:
    model = nn.ModuleDict({"embedding": nn.Embedding(9, 8), "rnn": nn.GRU(8, 8), "output": nn.Linear(8, 9)})
    model["embedding"].weight = model["output"].weight
    torch.save(model.state_dict(), tmp_path / "tied.pt")
    with pytest.raises(UsageError, match=r"nothing left to prune \(.*output.weight: tied to embedding.weight"):
        prune(tmp_path / "tied.pt", 0.9, Selection(exclude=("rnn*",)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_matrix_may_have_a_target_of_its_own_and_the_manifest_tells_it(tmp_path: Path) -> None:
    torch.save(nn.LSTM(5, 8).state_dict(), tmp_path / "dense.pt")
    done = prune(tmp_path / "dense.pt", 0.9, Selection(target_of=(("weight_hh*", 0.5),)), tmp_path / "run")
    assert done.per_tensor == {"weight_ih_l0": 0.9, "weight_hh_l0": 0.5}
    selection = json.loads((tmp_path / "run/rnnprune.json").read_text())["pruning"]["selection"]
    assert (selection["scope"], selection["target_of"]) == ("tensor", [["weight_hh*", 0.5]])


def test_columns_that_a_row_keeps_are_told_by_the_card_and_the_manifest(tmp_path: Path) -> None:
    torch.save(nn.LSTM(16, 8).state_dict(), tmp_path / "dense.pt")
    done = prune(tmp_path / "dense.pt", 0.875, Selection(n_of_m=NOfM(1, 8)), tmp_path / "run")
    assert done.per_tensor == {"weight_ih_l0": 0.875, "weight_hh_l0": 0.875}
    pruned = load_file(tmp_path / "run/model.safetensors")["weight_ih_l0"]
    assert (pruned.unflatten(1, (2, 8)).count_nonzero(2) == 1).all()
    assert json.loads((tmp_path / "run/rnnprune.json").read_text())["pruning"]["selection"]["n_of_m"] == [1, 8]
    assert (
        "(target 0.875 for each tensor, at most 1 of every 8 columns of a row)"
        in (tmp_path / "run/README.md").read_text()
    )

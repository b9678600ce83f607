"""Copies of models that keep what they compute: `copy.deepcopy` alone refuses them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rnnprune.pruning.options import PruningOptions
from rnnprune.tasks.copies import copy_of
from rnnprune.tasks.source import DataOptions
from rnnprune.training.recipe import Recipe
from rnnprune.workflows.finetune import FinetuneRequest, finetune
from rnnprune.workflows.subject import TaskChoice, Unlabelled

MODEL = """
from torch import nn

class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.LSTM(4, 8, batch_first=True), nn.utils.weight_norm(nn.Linear(8, 2))

    def forward(self, x):
        return self.head(self.rnn(x)[0])
"""

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")


class Normed(nn.Module):
    """Both kinds of layer, one of which keeps its computed weight in a list as well."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.utils.weight_norm(nn.LSTM(4, 8, batch_first=True), "weight_hh_l0")
        self.head = nn.utils.weight_norm(nn.Linear(8, 2))

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.rnn(x)[0])
        return outputs


def test_a_copy_computes_the_same_and_learns_alone() -> None:
    model, x = Normed(), torch.randn(3, 5, 4)
    before = model(x)
    copy = copy_of(model)
    assert torch.equal(copy(x), before)
    copy(x).sum().backward()
    torch.optim.SGD(copy.parameters(), 1.0).step()
    assert all(not torch.equal(a, b) for a, b in zip(copy.parameters(), model.parameters(), strict=True))
    assert torch.equal(model(x), before)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_model_with_a_weight_norm_is_pruned_beside_a_control_and_a_teacher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("normed.py").write_text(MODEL)
    scope: dict[str, type[nn.Module]] = {}
    exec(MODEL, scope)
    torch.save(scope["Normed"]().state_dict(), "dense.pt")
    np.save("inputs.npy", np.random.default_rng(0).standard_normal((40, 5, 4), dtype=np.float32))
    task = TaskChoice("distill", DataOptions(batch_size=8), Unlabelled(Path("inputs.npy"), model="normed.py:Normed"))
    result = finetune(FinetuneRequest(Path("dense.pt"), task, PruningOptions(0.5), Recipe(steps=20), control=True))
    assert result is not None
    assert result.achieved == 0.5
    assert result.metric.dense_control is not None
    assert result.metric.sparse > result.metric.dense == pytest.approx(0.0, abs=1e-3)

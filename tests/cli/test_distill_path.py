"""Distillation from the command line: a bare state dict, a built-in model and a user's own, down to the sparse file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from rnnprune.kernels import native
from tests.cli.conftest import SIZES, Call, write_letters

MODEL = """
from torch import nn
class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(6, 32, batch_first=True)
        self.head = nn.Linear(32, 3)
    def forward(self, frames):
        return self.head(self.rnn(frames)[0])
def build():
    return Tagger()
"""


@pytest.mark.usefixtures("folder")
def test_a_bare_state_dict_on_one_recording(rnnprune: Call) -> None:
    layer = nn.LSTM(6, 24, 2)
    torch.save(
        {"net.rnn." + name: value for name, value in layer.state_dict().items()}
        | {"mean": torch.ones(4), "head.weight": torch.ones(3, 24), "head.bias": torch.ones(3)},
        "a.pt",
    )
    np.save("frames.npy", np.random.default_rng(0).normal(size=(600, 6)))
    distill = ("--task", "distill", "--inputs", "frames.npy", "--seq-len", "20")
    made = rnnprune("finetune", "a.pt", *distill, "--target", "0.5", "--steps", "60", "--batch-size", "8", "--json")
    assert "head.weight: no input feeds it, so it stays as it is; --model" in made.err
    assert "30 examples: 28 to train on, 1 for validation, 1 for the test" in made.err
    told = made.json
    assert told["metric"]["name"] == "NRMSE"
    assert told["metric"]["dense"] == 0.0
    pruned = rnnprune("prune", "a.pt", "--target", "0.5", "--out", "once", "--json").json
    teach = (*distill, "--teacher", "a.pt")
    once = rnnprune("evaluate", pruned["run"], *teach, "--json").json["value"]
    assert 0 < told["metric"]["sparse"] < once  # what was learnt beats what was merely cut
    stored = load_file("a-s50/model.safetensors")
    assert torch.equal(stored["mean"], torch.ones(4))
    pruned = [tensor for name, tensor in stored.items() if name.startswith("net.rnn.weight")]
    assert sum(int((tensor == 0).sum()) for tensor in pruned) == sum(tensor.numel() for tensor in pruned) // 2
    reasons = {each["name"]: each["reason"] for each in rnnprune("report", "a-s50", "--json").json["tensors"]}
    assert reasons["head.weight"] == "linear weight, not trained by the run, so left as it is"
    told = rnnprune("evaluate", "a-s50", *distill)
    assert told.code == 2
    assert "a-s50 is pruned: name the dense checkpoint it came from with --teacher FILE" in told.err
    whole = "--task distill --inputs frames.npy --teacher a.pt"
    assert f"with unlabelled inputs:   rnnprune evaluate a-s50 {whole}\n" in rnnprune("evaluate", "a-s50").err


def test_a_built_in_model_needs_no_labels(rnnprune: Call, folder: Path) -> None:
    write_letters(folder / "text.txt")
    train = (
        "train",
        "lm",
        "--data",
        "text.txt",
        "--out",
        "lm.pt",
        "--hidden",
        "24",
        "--embedding",
        "8",
        "--steps",
        "5",
    )
    assert rnnprune(*train, *SIZES).code == 0
    np.save("tokens.npy", np.random.default_rng(0).integers(0, 10, (40, 12)))
    distill = ("--task", "distill", "--inputs", "tokens.npy")
    told = rnnprune("finetune", "lm.pt", *distill, "--target", "0.8", "--steps", "20", "--json").json
    assert told["sparsity"]["achieved"] == pytest.approx(0.8, abs=0.01)
    assert 0 < told["metric"]["sparse"] < 100
    assert rnnprune("evaluate", "lm-s80", "--json").json["metric"] == "bpc"  # still a language model


def test_a_model_of_the_users_own_down_to_the_sparse_file(rnnprune: Call, folder: Path) -> None:
    (folder / "my_model.py").write_text(MODEL)
    scope: dict[str, type[nn.Module]] = {}
    exec(MODEL, scope)
    torch.save(scope["Tagger"]().state_dict(), "m.pt")
    save_file({"frames": torch.randn(60, 10, 6)}, "x.safetensors")
    distill = ("--task", "distill", "--inputs", "x.safetensors", "--model", "my_model.py:build", "--teacher", "m.pt")
    told = rnnprune("finetune", "m.pt", *distill, "--steps", "30", "--json").json
    assert rnnprune("export", told["run"]).code == 0
    sparse = rnnprune("evaluate", f"{told['run']}/model.csr.safetensors", *distill, "--json").json
    assert sparse["value"] == pytest.approx(told["metric"]["sparse"], rel=1e-4)
    assert ("native" in sparse["engine"]) == (native.unavailable_reason() is None)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--task", "distill"), "--task distill needs --inputs FILE"),
        (("--inputs", "x.npy"), "--inputs, --teacher and --model belong to --task distill"),
        (("--task", "distill", "--inputs", "x.npy", "--model", "none.py:f"), "there is no file none.py"),
        (("--task", "distill", "--inputs", "xs.npy", "--seq-len", "3"), "these inputs are examples: drop it"),
    ],
)
def test_flags_that_do_not_go_together(rnnprune: Call, folder: Path, args: tuple[str, ...], message: str) -> None:
    np.save(folder / "x.npy", np.ones((9, 3)))
    np.save(folder / "xs.npy", np.ones((9, 4, 3)))
    torch.save(nn.LSTM(3, 5).state_dict(), "a.pt")
    told = rnnprune("finetune", "a.pt", *args)
    assert told.code == 2
    assert message in told.err

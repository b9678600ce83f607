"""Flags over environment over --config over defaults; and a user's own task, with data, from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

Program = Callable[..., Any]
FLAG, ENVIRONMENT, CONFIG = 0.3, 0.4, 0.6


@pytest.mark.parametrize("flag", [True, False])
@pytest.mark.parametrize("environment", [True, False])
@pytest.mark.parametrize("config", [True, False])
def test_the_nearest_setting_wins(rnnprune: Program, bare: Path, flag: bool, environment: bool, config: bool) -> None:
    Path("run.toml").write_text(f"target = {CONFIG}\n")
    arguments = (["--target", FLAG] if flag else []) + (["--config", "run.toml"] if config else [])
    env = {"RNNPRUNE_TARGET": str(ENVIRONMENT)} if environment else {}
    expected = FLAG if flag else ENVIRONMENT if environment else CONFIG if config else 0.9
    sparsity = rnnprune("prune", bare, "--json", *arguments, env=env).json["sparsity"]
    assert sparsity["target"] == expected
    assert sparsity["per_tensor"]["encoder.weight_hh_l0"] == round(400 * expected) / 400
    run = Path(f"bare-s{expected * 100:g}")
    assert json.loads((run / "rnnprune.json").read_text())["pruning"]["target"] == expected, "saved with the run"


def test_a_config_may_hold_lists_dashes_and_the_checkpoint(rnnprune: Program, bare: Path) -> None:
    Path("run.toml").write_text(
        f'checkpoint = "{bare}"\ntarget = 0.5\nexclude = "head.*"\ntarget-of = ["*_hh*=0.75"]\n'
        'block-norm = "l2"\nblock = "2x1"\nout = "here"\n'
    )
    answer = rnnprune("prune", "--config", "run.toml", "--json").json
    assert answer["run"] == "here"
    assert set(answer["sparsity"]["per_tensor"]) == {"encoder.weight_ih_l0", "encoder.weight_hh_l0"}
    selection = json.loads(Path("here/rnnprune.json").read_text())["pruning"]["selection"]
    assert (selection["block"], selection["block_norm"]) == ([2, 1], "l2")
    assert selection["target_of"] == [["*_hh*", 0.75]]
    rnnprune("prune", bare, "--out", "columns", env={"RNNPRUNE_N_OF_M": "1:10", "RNNPRUNE_BLOCK": "1x1"})
    assert json.loads(Path("columns/rnnprune.json").read_text())["pruning"]["selection"]["n_of_m"] == [1, 10]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("targt = 0.8", "unknown for `prune`: 'targt', did you mean 'target'?"),
        ("targt = 0.8\nexlude = []", "'targt', did you mean 'target'?; 'exlude', did you mean 'exclude'?"),
        ("optimizer = 'sgd'", "unknown for `prune`: 'optimizer', known are block, block_norm, checkpoint,"),
        ("[prune]\ntarget = 0.8", "unknown for `prune`: 'prune'"),
        ("target = ", "not valid TOML"),
        ("target = 'most'", "Invalid value for '--target'"),
    ],
)
def test_a_wrong_config_exits_with_2(rnnprune: Program, bare: Path, content: str, text: str) -> None:
    Path("run.toml").write_text(content)
    told = rnnprune("prune", bare, "--config", "run.toml")
    assert told.code == 2
    assert text in told.err
    assert not Path("bare-s90").exists()


def test_a_config_that_is_not_there_exits_with_2(rnnprune: Program, bare: Path) -> None:
    told = rnnprune("prune", bare, "--config", "gone.toml")
    assert told.code == 2
    assert "--config gone.toml: cannot be read (No such file or directory)" in told.err


def test_an_environment_value_is_checked_like_a_flag(rnnprune: Program, bare: Path) -> None:
    told = rnnprune("prune", bare, env={"RNNPRUNE_TARGET": "1.5"})
    assert told.code == 2
    assert "found 1.5" in told.err


def test_a_setting_is_called_as_its_flag(rnnprune: Program, bare: Path) -> None:
    told = rnnprune("export", bare, env={"RNNPRUNE_FORMAT": "dense"})
    assert told.code == 0, told.err
    assert Path("bare.dense.safetensors").is_file()


TASK = """
from pathlib import Path

import torch
from torch import nn

class Regression:
    metric, goal = "mse", "min"

    def __init__(self, data):
        self.x = torch.tensor([float(line) for line in Path(data).read_text().split()]).view(8, 5, 6)

    def build_model(self):
        return nn.ModuleDict({"encoder": nn.LSTM(6, 10, batch_first=False), "head": nn.Linear(10, 5)})

    def train_batches(self, *, epoch, seed, rank, world_size):
        return [self.x, self.x.flip(0)]

    def loss(self, model, batch):
        return (model["head"](model["encoder"](batch)[0]) - 1).square().mean()

    def evaluate(self, model, split):
        return {"mse": self.loss(model, self.x).item(), "largest": 1.0}

def make(data="numbers.txt"):
    return Regression(data)
"""


def test_a_users_own_task_with_data_prunes_a_bare_checkpoint(rnnprune: Program, bare: Path) -> None:
    Path("my_task.py").write_text(TASK)
    x = torch.randn(8, 5, 6)
    Path("elsewhere.txt").write_text("\n".join(str(value) for value in x.flatten().tolist()))
    task = ("--task", "my_task.py:make", "--data", "elsewhere.txt")
    answer = rnnprune("finetune", bare, *task, "--epochs", "20", "--target", "0.8", "--json").json
    assert answer["steps"] == 40
    assert answer["metric"]["name"] == "mse"

    lstm, head = torch.nn.LSTM(6, 10), torch.nn.Linear(10, 5)

    def mse(tensors: dict[str, torch.Tensor]) -> float:
        model = torch.nn.ModuleDict({"encoder": lstm, "head": head})
        model.load_state_dict(tensors, strict=True)
        with torch.inference_mode():
            return (head(lstm(x)[0]) - 1).square().mean().item()

    assert answer["metric"]["dense"] == pytest.approx(mse(torch.load(bare, weights_only=True)), rel=1e-5)
    sparse = mse(safetensors.torch.load_file("bare-s80/model.safetensors"))
    assert answer["metric"]["sparse"] == pytest.approx(sparse, rel=1e-5)
    assert rnnprune("evaluate", *task, "--json").json["figures"] == {"mse": answer["metric"]["sparse"], "largest": 1.0}
    told = rnnprune("evaluate", "bare-s80")
    assert told.code == 2, "a run never names the code to load"
    assert "rnnprune evaluate bare-s80 --task" in told.err
    told = rnnprune("evaluate", "bare-s80", "--task", "my_task.py:make")
    assert told.code == 2
    assert "numbers.txt" in told.err

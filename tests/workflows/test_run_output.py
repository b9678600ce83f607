"""The run folder that a fine-tuning leaves behind: every file in it, read without rnnprune."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from rnnprune.pruning.options import PruningOptions
from rnnprune.tasks.lm import LmModelSpec, LmTask
from rnnprune.tasks.source import DataOptions
from rnnprune.training.recipe import Recipe
from rnnprune.workflows.finetune import FinetuneRequest, FinetuneResult, finetune
from rnnprune.workflows.subject import TaskChoice
from rnnprune.workflows.train import train_task

STEPS = 40
SIZES = {"hidden": 16, "embedding": 8}
PRUNED = {"rnn.weight_ih_l0": (48, 8), "rnn.weight_hh_l0": (48, 16), "output.weight": (11, 16)}
COUNT = sum(rows * cols for rows, cols in PRUNED.values())


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> FinetuneResult:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("run")
    text = folder / "letters.txt"
    text.write_text("".join(np.random.default_rng(0).choice(list("abcdefgh \n"), 2000)), encoding="utf-8")
    task = LmTask.from_text(text, LmModelSpec("char", "gru", 16, 1, 8), batch_size=8, length=20)
    train_task(task, Recipe(steps=10), folder / "dense.pt")
    return finetune(
        FinetuneRequest(
            folder / "dense.pt",
            task=TaskChoice(options=DataOptions(batch_size=9)),
            pruning=PruningOptions(target=0.8),
            recipe=Recipe(steps=STEPS),
            control=True,
            out=folder / "run",
        )
    )


def test_the_model_loads_strictly_with_plain_safetensors_and_torch(result: FinetuneResult) -> None:
    model = nn.ModuleDict({"embedding": nn.Embedding(11, 8), "rnn": nn.GRU(8, 16), "output": nn.Linear(16, 11)})
    tensors = safetensors.torch.load_file(result.run / "model.safetensors")
    model.load_state_dict(tensors, strict=True)
    for name, shape in PRUNED.items():
        assert tensors[name].shape == shape
        assert result.per_tensor[name] == float((tensors[name] == 0).double().mean())
    assert sum(int((tensors[name] == 0).sum()) for name in PRUNED) == round(0.8 * COUNT)
    for name in tensors.keys() - PRUNED.keys():
        assert bool(tensors[name].any())


def test_the_manifest_names_the_files_by_their_sha256(result: FinetuneResult) -> None:
    manifest = json.loads((result.run / "rnnprune.json").read_text(), parse_constant=pytest.fail)
    model = (result.run / "model.safetensors").read_bytes()
    assert manifest["schema"] == 1
    assert manifest["files"] == {
        "model.safetensors": {"sha256": hashlib.sha256(model).hexdigest(), "bytes": len(model)}
    }
    dense = (result.run.parent / "dense.pt").read_bytes()
    assert manifest["checkpoint"]["sha256"] == hashlib.sha256(dense).hexdigest()
    assert manifest["task"] == "lm"
    assert manifest["architecture"] == ["rnn: GRU 8 -> 16"]
    assert manifest["pruning"]["target"] == manifest["sparsity"]["target"] == 0.8
    assert manifest["pruning"]["schedule"]["end_step"] <= STEPS
    assert manifest["settings"]["recipe"]["steps"] == STEPS
    options = manifest["settings"]["task"]["options"]
    assert (options["batch_size"], options["length"]) == (9, 20), "as asked for, and as in training"
    assert manifest["sparsity"]["per_tensor"] == result.per_tensor
    assert manifest["sparsity"]["achieved"] == pytest.approx(round(0.8 * COUNT) / COUNT, abs=1e-12)
    assert manifest["pruning"]["selection"]["scope"] == manifest["settings"]["pruning"]["selection"]["scope"] == "model"
    assert manifest["versions"]["torch"] == torch.__version__
    assert set(manifest["figures"]) == {"dense", "dense_control", "sparse"}
    assert manifest["figures"]["sparse"]["test"]["bpc"] == manifest["metric"]["sparse"] == result.metric.sparse


def test_the_curve_holds_both_phases_step_by_step(result: FinetuneResult) -> None:
    lines = [json.loads(line) for line in (result.run / "metrics.jsonl").read_text().splitlines()]
    for phase in ("control", "pruning"):
        steps = [line["step"] for line in lines if line["phase"] == phase]
        assert steps == list(range(1, STEPS + 1)), "a run this short is written in full"
    assert [line["phase"] for line in lines] == ["control"] * STEPS + ["pruning"] * STEPS
    assert all(line["sparsity"] == 0 and "groups" not in line for line in lines[:STEPS])
    sparsities = [line["sparsity"] for line in lines[STEPS:]]
    assert sparsities == sorted(sparsities)
    assert sparsities[-1] == result.achieved
    updates = [line for line in lines if "groups" in line]
    assert set(updates[-1]["groups"]) == {"model"}
    first = [next(line["loss"] for line in lines if line["phase"] == phase) for phase in ("control", "pruning")]
    assert first[0] == first[1], "both start from the same weights and see the same batches"


def test_the_card_names_the_metric_its_direction_and_all_three_figures(result: FinetuneResult) -> None:
    card = (result.run / "README.md").read_text()
    metric = result.metric
    assert metric.dense_control is not None
    assert "# dense.pt, pruned" in card
    assert "bpc on the test split (lower is better)" in card
    for figure in (metric.dense, metric.dense_control, metric.sparse):
        assert f"{figure:.4g} |" in card
    assert "(target 0.8 for the whole model)" in card
    assert f"`rnn.weight_hh_l0` | {result.per_tensor['rnn.weight_hh_l0']:.4f}" in card


def test_no_temporary_file_is_left(result: FinetuneResult) -> None:
    assert {path.name for path in result.run.iterdir()} == {
        "model.safetensors",
        "rnnprune.json",
        "metrics.jsonl",
        "README.md",
    }

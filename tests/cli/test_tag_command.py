"""`train tag`, `train classify` and every later command without a flag: in miniature, from data to a sparse file."""

import json

import numpy as np
import pytest
import safetensors.numpy
import torch

import rnnprune as library
from rnnprune.kernels import native

SIZES = ("--hidden", "16", "--layers", "2", "--steps", "20", "--batch-size", "8")
PRUNED = {
    f"rnn.weight_{side}_l{layer}{way}" for side in ("ih", "hh") for layer in range(2) for way in ("", "_reverse")
} | {"output.weight"}


def write_tags(folder):
    """A vowel is V, any other letter C; and one line that lacks a label."""
    random = np.random.default_rng(0)
    words = ["".join(random.choice(list("abcdefgh"), random.integers(2, 9))) for _ in range(80)]
    lines = [f"{word}\t{' '.join('V' if c in 'ae' else 'C' for c in word)}\n" for word in words]
    (folder / "data.tsv").write_text("".join(lines) + "abc\tV C\n")
    return "data.tsv", ("--level", "char", "--skip-bad")


def write_series(folder):
    """Series of two features, the label the sign of the first one's sum; given splits."""
    random = np.random.default_rng(0)
    items = [random.standard_normal((random.integers(2, 9), 2)) for _ in range(60)]
    lines = []
    for number, series in enumerate(items):
        split = {0: "test", 1: "validation"}.get(number % 5, "train")
        fields = {"features": series.tolist(), "label": int(series[:, 0].sum() > 0), "split": split}
        lines.append(json.dumps(fields) + "\n")
    (folder / "data.jsonl").write_text("".join(lines))
    return "data.jsonl", ("--cell", "gru")


@pytest.mark.parametrize(("task", "write"), [("tag", write_tags), ("classify", write_series)])
def test_from_data_to_a_sparse_file(rnnprune, folder, task, write):
    data, flags = write(folder)
    trained = rnnprune("train", task, "--data", data, "--out", "ckpt.pt", *flags, *SIZES, "--json")
    assert trained.json["metric"]["name"] == "accuracy"
    skip = ("--skip-bad",) if "--skip-bad" in flags else ()
    assert ("left out 1 of 81 items: data.tsv, line 81" in trained.err) == bool(skip)

    arguments = ("--steps", "30", "--batch-size", "8", "--control", *skip, "--json")
    told = rnnprune("finetune", "ckpt.pt", "--target", "0.9", *arguments).json
    assert set(told["sparsity"]["per_tensor"]) == PRUNED
    assert told["metric"]["dense"] == trained.json["metric"]["value"]
    assert told["metric"]["goal"] == "max"

    file = rnnprune("export", "--format", "csr", "--json").json["file"]
    dense = rnnprune("evaluate", "ckpt-s90", *skip, "--json").json
    for engine in ["reference"] + ["native"] * (native.unavailable_reason() is None):
        sparse = rnnprune("evaluate", file, "--engine", engine, *skip, "--json").json
        assert engine in sparse["engine"]
        assert sparse["figures"] == pytest.approx(dense["figures"], abs=1e-6)
    assert dense["value"] == told["metric"]["sparse"]

    stored = safetensors.numpy.load_file(folder / "ckpt-s90" / "model.safetensors")
    model = library.load(file)
    inputs = torch.randint(3, (2, 5)) if task == "tag" else torch.randn(2, 5, 2)
    scores = model(inputs, torch.tensor([5, 3]))
    assert scores.shape == ((2, 5, 2) if task == "tag" else (2, 2))
    if task == "classify":
        np.testing.assert_array_equal(model.embedding.scale, stored["embedding.scale"])


def test_bad_data_is_refused_with_its_line(rnnprune, folder):
    write_tags(folder)
    told = rnnprune("train", "tag", "--data", "data.tsv", "--out", "ckpt.pt", "--level", "char")
    assert told.code == 3
    assert "data.tsv, line 81: 3 steps and 2 labels: expected one label per step" in told.err
    assert not (folder / "ckpt.pt").exists()

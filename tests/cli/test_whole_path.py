"""The whole path, as its commands are written in the manual: train, finetune, export, report, bench, evaluate."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import scipy.sparse
import torch
from safetensors import safe_open

SMALL = ("--hidden", "16", "--embedding", "8", "--steps", "20")
SIZES = ("--seq-len", "20", "--batch-size", "8")
FIRST_LAYER = {"rnn.weight_ih_l0", "rnn.weight_hh_l0", "output.weight"}
SECOND_LAYER = {"rnn.weight_ih_l1", "rnn.weight_hh_l1"}


class Model(NamedTuple):
    """What is trained, the metric it must have and the names that must be pruned."""

    cell: str
    level: str
    layers: int
    metric: str
    pruned: set[str]


MODELS = [
    Model("lstm", "char", 2, "bpc", FIRST_LAYER | SECOND_LAYER),
    Model("gru", "word", 1, "perplexity", FIRST_LAYER),
    pytest.param(Model("rnn", "char", 1, "bpc", FIRST_LAYER), marks=pytest.mark.slow),
]


def array_of(path: Path, name: str) -> np.ndarray[Any, Any]:
    """One array by its bytes: numpy has no bfloat16, which is the upper half of a float32."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    entry = json.loads(raw[8 : 8 + length])[name]
    begin, end = (8 + length + offset for offset in entry["data_offsets"])
    if entry["dtype"] == "BF16":
        return (np.frombuffer(raw[begin:end], "<u2").astype("<u4") << 16).view("<f4")
    dtype = {"F32": "<f4", "F16": "<f2", "U16": "<u2", "I32": "<i4"}[entry["dtype"]]
    return np.frombuffer(raw[begin:end], dtype).reshape(entry["shape"])


def check_exported(path: Path, run: Path, values: str, pruned: set[str]) -> None:
    """Acceptance: exact counts, no stored zero, sorted unique columns, and the model again to the bit."""
    model = safetensors.torch.load_file(run / "model.safetensors")
    dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[values]
    with safe_open(path, framework="pt") as file:
        descriptors = json.loads(file.metadata()["binsparse"])
        stored = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    assert set(descriptors) == pruned
    for name in pruned:
        n = model[name].numel()
        pointers, columns, kept = (
            array_of(path, f"{name}.{part}") for part in ("pointers_to_1", "indices_1", "values")
        )
        assert len(kept) == n - round(0.9 * n)
        assert np.all(kept != 0)
        assert stored[f"{name}.values"] == {"fp32": "F32", "fp16": "F16", "bf16": "BF16"}[values]
        for begin, end in pairwise(pointers):
            assert np.all(np.diff(columns[begin:end].astype(int)) > 0)
        rebuilt = scipy.sparse.csr_matrix(
            (kept.astype(np.float32), columns.astype(np.int32), pointers), model[name].shape
        )
        expected = model[name].to(dtype).float().numpy()
        np.testing.assert_array_equal(rebuilt.toarray().view(np.uint32), expected.view(np.uint32))
        assert name not in stored
    for name in model.keys() - pruned:
        assert stored[name] == ("F32" if "bias" in name else {"fp32": "F32", "fp16": "F16", "bf16": "BF16"}[values])


@pytest.mark.parametrize("model", MODELS, ids=lambda model: f"{model.cell}-{model.level}")
def test_from_a_text_to_a_sparse_file(
    rnnprune: Callable[..., Any],
    folder: Path,
    letters: Path,
    words: Path,
    model: Model,
) -> None:
    text = (words if model.level == "word" else letters).name
    kind = ("--cell", model.cell, "--level", model.level, "--layers", model.layers)
    trained = rnnprune("train", "lm", "--data", text, "--out", "ckpt.pt", *kind, *SMALL, *SIZES, "--json").json
    told = rnnprune("finetune", "ckpt.pt", "--target", "0.9", "--scope", "tensor", "--steps", "30", *SIZES)
    assert told.code == 0, told.err
    run = folder / "ckpt-s90"
    manifest = json.loads((run / "rnnprune.json").read_text())
    assert set(manifest["sparsity"]["per_tensor"]) == model.pruned
    assert manifest["metric"]["name"] == model.metric
    assert manifest["metric"]["dense"] == trained["metric"]["value"]

    for values, name in [
        ("fp32", "model.csr.safetensors"),
        ("fp16", "model.csr.fp16.safetensors"),
        ("bf16", "model.csr.bf16.safetensors"),
    ]:
        told = rnnprune("export", "--format", "csr", "--values", values)
        assert told.code == 0, told.err
        assert "newest run: ckpt-s90" in told.err
        check_exported(run / name, run, values, model.pruned)

    for command in (["report"], ["bench", "--rounds", "2", "--time-steps", "3"], ["evaluate"]):
        told = rnnprune(*command)
        assert told.code == 0, told.err
        assert "newest run: ckpt-s90" in told.err
        assert told.out

    sparse = manifest["metric"]["sparse"]
    for path in ("ckpt-s90", "ckpt-s90/model.safetensors"):
        assert rnnprune("evaluate", path, "--json").json["value"] == sparse
    told = rnnprune("evaluate", "ckpt-s90/model.csr.safetensors", "--json").json
    assert told["value"] == pytest.approx(sparse, rel=1e-5)  # through a sparse engine, where there is a native one
    dense = rnnprune("evaluate", "ckpt.pt", "--json").json
    assert (dense["metric"], dense["value"]) == (model.metric, manifest["metric"]["dense"])
    half = rnnprune("evaluate", "ckpt-s90/model.csr.fp16.safetensors", "--json").json["value"]
    assert half == pytest.approx(sparse, rel=1e-2)


def test_the_newest_of_several_runs_is_taken_and_named(rnnprune: Callable[..., Any], bare: Path, folder: Path) -> None:
    for target in ("0.5", "0.75"):
        assert rnnprune("prune", bare, "--target", target).code == 0
    told = rnnprune("report", "--json")
    assert told.json["file"] == "bare-s75/model.safetensors"
    assert "newest run: bare-s75" in told.err
    assert rnnprune("prune", bare, "--target", "0.5", "--overwrite").code == 0
    assert "newest run: bare-s50" in rnnprune("report").err
    assert "newest run" not in rnnprune("report", "bare-s75").err
    assert (folder / "bare-s75" / "model.safetensors").is_file()


def test_a_dense_export_is_the_model_again(rnnprune: Callable[..., Any], bare: Path, folder: Path) -> None:
    assert rnnprune("prune", bare).code == 0
    told = rnnprune("export", "--format", "dense", "--values", "fp16", "--json").json
    assert told["file"] == "bare-s90/model.dense.fp16.safetensors"
    found = safetensors.numpy.load_file(folder / told["file"])
    model = safetensors.numpy.load_file(folder / "bare-s90" / "model.safetensors")
    assert found.keys() == model.keys()
    for name, array in model.items():
        np.testing.assert_array_equal(found[name], array.astype(np.float16) if array.ndim == 2 else array)


def test_an_export_of_what_was_never_pruned_says_so(rnnprune: Callable[..., Any], bare: Path) -> None:
    told = rnnprune("export", bare)
    assert told.code == 0
    assert "no matrix in it has zeros enough to be stored sparse: prune it first" in told.err
    assert rnnprune("prune", bare).code == 0
    assert "prune it first" not in rnnprune("export").err


def test_the_same_seed_gives_the_same_weights(rnnprune: Callable[..., Any], letters: Path, folder: Path) -> None:
    arguments = ("train", "lm", "--data", letters.name, *SMALL, *SIZES)
    for name, seed in (("a.pt", 1), ("b.pt", 1), ("c.pt", 2)):
        assert rnnprune(*arguments, "--out", name, "--seed", seed).code == 0
    a, b, c = (torch.load(folder / name, weights_only=True)["state_dict"] for name in ("a.pt", "b.pt", "c.pt"))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["rnn.weight_hh_l0"], c["rnn.weight_hh_l0"])

"""Report against numbers counted by hand, and the reason it gives for every tensor of a stranger's file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from rnnprune.workflows.export import export
from rnnprune.workflows.report import Bytes, TensorReport, report

HAND = {  # a vanilla RNN 6 -> 4 with 5 and 3 nonzeros
    "weight_ih_l0": [(0, 0), (0, 5), (2, 1), (3, 2), (3, 3)],
    "weight_hh_l0": [(1, 0), (1, 3), (2, 2)],
}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    state = {"weight_ih_l0": torch.zeros(4, 6), "weight_hh_l0": torch.zeros(4, 4)}
    for name, places in HAND.items():
        for place in places:
            state[name][place] = 1.5
    state |= {"bias_ih_l0": torch.ones(4), "bias_hh_l0": torch.tensor([0.0, 1.0, 2.0, 0.0])}
    torch.save(state, tmp_path / "small.pt")
    return tmp_path / "small.pt"


def by_name(path: Path) -> dict[str, TensorReport]:
    return {tensor.name: tensor for tensor in report(path).tensors}


def test_bytes_of_one_small_matrix_counted_by_hand(small: Path) -> None:
    tensors = by_name(small)
    weight = tensors["weight_ih_l0"]
    assert (weight.shape, weight.nnz, weight.sparsity) == ((4, 6), 5, pytest.approx(19 / 24))
    # dense 24 x 4; csr 5 pointers x 4 + 5 x (2 + 4); bitmask 3 + 5 x 4; torch-csr 5 x 4 + 5 x (4 + 4)
    assert weight.bytes == Bytes(dense=96, csr=50, bitmask=23, file=96, runtime=60)
    # dense 16 x 4; csr 5 x 4 + 3 x 6; bitmask 2 + 3 x 4; torch-csr 5 x 4 + 3 x 8
    assert tensors["weight_hh_l0"].bytes == Bytes(dense=64, csr=38, bitmask=14, file=64, runtime=44)
    # a vector stays dense in every form
    assert tensors["bias_hh_l0"].bytes == Bytes(dense=16, csr=16, bitmask=16, file=16, runtime=16)
    assert tensors["bias_hh_l0"].nnz == 2


def test_the_total_is_the_sum(small: Path) -> None:
    result = report(small)
    assert result.total.nnz == 5 + 3 + 4 + 2
    assert result.total.sparsity == pytest.approx(1 - 14 / 48)
    assert result.total.bytes == Bytes(
        dense=192, csr=50 + 38 + 32, bitmask=23 + 14 + 32, file=192, runtime=60 + 44 + 32
    )
    assert result.to_json()["total"]["on_disk"] == small.stat().st_size
    assert result.pruned.nnz == 0, "zeros alone do not make a tensor pruned by us"
    assert result.stacks == ("top level: RNN 6 -> 4",)


def test_a_sparse_file_counts_what_it_really_stores(small: Path, tmp_path: Path) -> None:
    export(small, "csr", "fp16", tmp_path / "sparse.safetensors")
    weight = by_name(tmp_path / "sparse.safetensors")["weight_ih_l0"]
    # 24 x 2 dense would be 48; csr 5 x 4 + 5 x (2 + 2) is 40 and smaller
    assert weight.bytes == Bytes(dense=96, csr=50, bitmask=23, file=40, runtime=60)
    # 16 x 2 is 32, csr 5 x 4 + 3 x 4 is 32 too: what does not shrink stays dense
    assert by_name(tmp_path / "sparse.safetensors")["weight_hh_l0"].bytes.file == 32


def test_half_precision_on_disk_takes_half(small: Path, tmp_path: Path) -> None:
    state = {name: tensor.half() for name, tensor in torch.load(small, weights_only=True).items()}
    torch.save(state, tmp_path / "half.pt")
    assert by_name(tmp_path / "half.pt")["weight_ih_l0"].bytes == Bytes(96, 50, 23, file=48, runtime=60)


def test_a_strangers_file_tells_for_every_tensor_why_it_is_not_pruned(tmp_path: Path) -> None:
    model = nn.ModuleDict(
        {
            "embedding": nn.Embedding(7, 6),
            "conv": nn.Conv1d(6, 6, 3),
            "rnn": nn.GRU(6, 5),
            "norm": nn.LayerNorm(5),
            "head": nn.Linear(5, 3),
            "bare": nn.Linear(5, 3, bias=False),
        }
    )
    state = model.state_dict() | {"half.weight_hh_l0": torch.ones(12, 4)}
    torch.save(state, tmp_path / "model.pt")
    reasons = {name: tensor.reason for name, tensor in by_name(tmp_path / "model.pt").items()}
    assert list(reasons) == list(state)
    assert reasons["embedding.weight"] == "embedding: not pruned by default"
    assert reasons["conv.weight"] == "convolution: not pruned by default"
    assert reasons["rnn.weight_ih_l0"] == "input weight, not pruned yet"
    assert reasons["rnn.weight_hh_l0"] == "recurrent weight, not pruned yet"
    assert reasons["rnn.bias_hh_l0"] == "bias: not pruned by default"
    assert reasons["norm.weight"] == "norm: not pruned by default"
    assert reasons["head.weight"] == "linear weight, not pruned yet"
    assert reasons["bare.weight"] == "unknown: not pruned by default"
    assert reasons["half.weight_hh_l0"] == "no recurrent stack: half.weight_ih_l0 is missing"
    assert not any(tensor.pruned for tensor in report(tmp_path / "model.pt").tensors)

"""sparsify and describe: what is swapped and what is refused; weights from every kind of source."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.utils.prune
from torch import Tensor, nn

import rnnprune
from rnnprune import UsageError
from rnnprune.formats.sparse import csr_or_dense, write_sparse
from rnnprune.kernels.csr import csr_from_dense
from rnnprune.runtime.cells import SparseCell, SparseLinear
from rnnprune.runtime.recurrent import SparseRecurrent
from rnnprune.runtime.sparsify import engines_of
from tests.runtime.twin_cases import ANY, assert_same, each_engine, prune, truth_of


class Speech(nn.Module):
    """A model of a user's own: nested, with a list, a cell in a loop, an embedding and a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 16)
        self.encoder = nn.ModuleDict({"rnn": nn.GRU(16, 24, 2, batch_first=True, bidirectional=True)})
        self.norm = nn.LayerNorm(48)
        self.cells = nn.ModuleList([nn.LSTMCell(48, 20), nn.RNNCell(20, 20, nonlinearity="relu")])
        self.head = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 11))

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        self.encoder["rnn"].flatten_parameters()
        x, last = self.encoder["rnn"](self.embedding(tokens))
        state, h, ys = None, None, []
        for frame in self.norm(x).unbind(1):
            state = self.cells[0](frame, state)
            h = self.cells[1](state[0], h)
            ys.append(self.head(h))
        return torch.stack(ys, 1), last


@pytest.fixture
def speech() -> nn.Module:
    model = prune(Speech())
    model.embedding.reset_parameters()
    return model


TOKENS = torch.arange(10).view(2, 5)


@each_engine
def test_a_model_of_many_layers(speech: nn.Module, engine: str) -> None:
    truth = copy.deepcopy(speech).double()(TOKENS)
    sparse = rnnprune.sparsify(speech, engine=engine)  # type: ignore[arg-type]
    assert sparse is speech
    assert not sparse.training
    assert not any(parameter.requires_grad for parameter in sparse.parameters())
    assert isinstance(sparse.encoder["rnn"], SparseRecurrent)
    assert all(isinstance(cell, SparseCell) for cell in sparse.cells)
    assert isinstance(sparse.head[0], SparseLinear)
    assert_same(sparse(TOKENS), tuple(part.detach() for part in truth))
    layers = rnnprune.describe(sparse)
    assert [layer.name for layer in layers] == ["encoder.rnn", "cells.0", "cells.1", "head.0", "head.2"]
    assert [layer.layer for layer in layers] == ["GRU", "LSTMCell", "RNNCell", "Linear", "Linear"]
    assert all((engine == "native") == bool(layer.layout) for layer in layers)
    assert {(layer.engine, layer.reason) for layer in layers} == {(engine, "asked for")}
    assert all(0.7 < layer.sparsity < 0.9 for layer in layers)
    assert engines_of(sparse) == engine


def test_the_layer_itself_is_replaced() -> None:
    layer = prune(nn.LSTM(6, 12))
    twin = rnnprune.sparsify(layer, engine=ANY)
    assert isinstance(twin, SparseRecurrent)
    assert [found.name for found in rnnprune.describe(twin)] == [""]


def test_layers_inside_standard_containers_and_shared_ones() -> None:
    shared = prune(nn.Linear(40, 40))
    model = nn.Sequential(shared, nn.Sequential(nn.ReLU(), shared))
    truth = truth_of(model)
    x = torch.randn(3, 40)
    sparse: Any = rnnprune.sparsify(model, engine=ANY)
    assert sparse[0] is sparse[1][1]
    assert isinstance(sparse[0], SparseLinear)
    assert_same(sparse(x), truth(x))


# Sources


def save_sparse(model: nn.Module, path: Path, aliases: dict[str, str] | None = None) -> Path:
    tensors = {name: csr_or_dense(tensor) for name, tensor in model.state_dict().items() if name not in (aliases or {})}
    write_sparse(path, tensors, aliases or {}, {})
    return path


@pytest.mark.parametrize("form", ["sparse file", "text path", "checkpoint", "mapping", "csr mapping", "twin's own"])
def test_weights_from_anywhere(speech: nn.Module, tmp_path: Path, form: str) -> None:
    truth = copy.deepcopy(speech)(TOKENS)[0].detach()
    state = speech.state_dict()
    torch.save(state, tmp_path / "model.pt")
    sources: dict[str, Any] = {
        "sparse file": save_sparse(speech, tmp_path / "model.csr.safetensors"),
        "text path": str(tmp_path / "model.csr.safetensors"),
        "checkpoint": tmp_path / "model.pt",
        "mapping": state,
        "csr mapping": {n: csr_from_dense(t) if t.ndim == 2 and "embed" not in n else t for n, t in state.items()},
        "twin's own": rnnprune.sparsify(copy.deepcopy(speech), engine=ANY).state_dict(),
    }
    sparse = rnnprune.sparsify(Speech(), sources[form], engine=ANY)
    assert_same(sparse(TOKENS)[0], truth.double())
    assert engines_of(sparse) == ANY
    assert torch.equal(sparse.embedding.weight, state["embedding.weight"])


def test_a_run_folder(tmp_path: Path) -> None:
    from rnnprune.pruning.options import Selection
    from rnnprune.workflows.prune import prune as one_shot

    model = nn.LSTM(16, 32)
    torch.save(model.state_dict(), tmp_path / "m.pt")
    one_shot(tmp_path / "m.pt", 0.9, Selection(), tmp_path / "run")
    (layer,) = rnnprune.describe(rnnprune.sparsify(nn.LSTM(16, 32), tmp_path / "run", engine=ANY))
    assert layer.sparsity == pytest.approx(0.9, abs=1e-3)


def test_bool_masks_cut_the_modules_own_weights() -> None:
    layer = nn.GRU(8, 16)
    masks = {name: torch.rand_like(p) < 0.2 for name, p in layer.named_parameters() if p.ndim == 2}
    dense = copy.deepcopy(layer)
    with torch.no_grad():
        for name, mask in masks.items():
            dense.get_parameter(name).mul_(mask)
    x = torch.randn(4, 2, 8)
    assert_same(rnnprune.sparsify(layer, masks, engine=ANY)(x), truth_of(dense)(x))
    with pytest.raises(UsageError, match=r"unexpected weight; give"):
        rnnprune.sparsify(nn.GRU(8, 16), {"weight": torch.ones(3, dtype=torch.bool)})


def test_half_precision_values_become_float32(tmp_path: Path) -> None:
    layer = prune(nn.GRU(16, 32))
    tensors = {name: csr_or_dense(tensor, torch.float16) for name, tensor in layer.state_dict().items()}
    write_sparse(tmp_path / "half.safetensors", tensors, {}, {})
    layer.load_state_dict(
        {name: tensor.half().float() if tensor.ndim == 2 else tensor for name, tensor in layer.state_dict().items()}
    )
    x = torch.randn(3, 2, 16)
    assert_same(rnnprune.sparsify(nn.GRU(16, 32), tmp_path / "half.safetensors", engine=ANY)(x), truth_of(layer)(x))


# Strictness


def test_all_differences_in_one_error(speech: nn.Module) -> None:
    state = dict(speech.state_dict())
    state["surplus"] = state.pop("norm.weight")
    state["head.2.bias"] = torch.zeros(12)
    before = copy.deepcopy(speech.state_dict())
    with pytest.raises(UsageError) as told:
        rnnprune.sparsify(speech, state)
    assert str(told.value) == (
        "the mapping does not fit the module: head.2.bias: expected [11], found [12]; missing norm.weight; "
        "unexpected surplus; give the very module that was saved"
    )
    assert isinstance(speech.head[0], nn.Linear)
    assert all(torch.equal(tensor, before[name]) for name, tensor in speech.state_dict().items())


def test_many_differences_are_counted() -> None:
    with pytest.raises(UsageError, match=r"\(and 8 more\)"):
        rnnprune.sparsify(nn.LSTM(3, 4, 4), {})


def test_a_sparse_matrix_of_another_shape() -> None:
    layer = prune(nn.Linear(40, 30))
    wrong = {"weight": csr_from_dense(torch.eye(30, 41)), "bias": layer.bias.detach()}
    with pytest.raises(UsageError, match=r"weight: expected \[30, 40\], found \[30, 41\]"):
        rnnprune.sparsify(layer, wrong)


def test_a_broken_sparse_matrix_never_reaches_an_engine() -> None:
    layer = prune(nn.Linear(40, 30))
    state = rnnprune.sparsify(copy.deepcopy(layer), engine=ANY).state_dict()
    state["weight.col_indices"] = torch.full_like(state["weight.col_indices"], 40)
    with pytest.raises(rnnprune.InputRefused, match="weight: a column index of 40 lies outside"):
        rnnprune.sparsify(layer, state, engine=ANY)
    del state["weight.values"]
    with pytest.raises(UsageError, match="weight: of crow_indices, col_indices, values not all are there"):
        rnnprune.sparsify(layer, state, engine=ANY)


# Tied weights


class Tied(nn.Module):
    """Two layers share a matrix; another matrix is the embedding's as well."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(30, 20)
        self.first, self.second = nn.GRU(20, 20, bias=False), nn.GRU(20, 20)
        self.second.weight_hh_l0 = self.first.weight_hh_l0
        self.output = nn.Linear(20, 30)
        self.output.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Any:
        return self.output(self.second(self.first(self.embedding(tokens))[0])[0])


def test_tied_weights_stay_tied_and_right(tmp_path: Path) -> None:
    model = prune(Tied())
    tokens = torch.arange(12).view(4, 3)
    truth = copy.deepcopy(model).double()(tokens).detach()
    path = save_sparse(
        model,
        tmp_path / "tied.safetensors",
        {"second.weight_hh_l0": "first.weight_hh_l0", "output.weight": "embedding.weight"},
    )
    for source in (None, path, model.state_dict()):
        sparse: Any = rnnprune.sparsify(copy.deepcopy(model) if source is None else Tied(), source, engine=ANY)
        assert sparse.first.weight_hh_l0 is sparse.second.weight_hh_l0
        assert isinstance(sparse.output, SparseLinear)
        assert isinstance(sparse.embedding, nn.Embedding)
        assert_same(sparse(tokens), truth)
        again = copy.deepcopy(sparse)
        assert again.first.weight_hh_l0 is again.second.weight_hh_l0


def test_tied_names_that_differ_in_the_source_are_refused() -> None:
    model = prune(Tied())
    state = dict(model.state_dict())
    state["output.weight"] = state["output.weight"] * 2
    with pytest.raises(UsageError, match=r"embedding.weight and output.weight are tied in the module and differ"):
        rnnprune.sparsify(model, state)


# Asked for by name


def test_dense_can_be_asked_for(speech: nn.Module) -> None:
    layers = rnnprune.describe(rnnprune.sparsify(speech, engine="torch-dense-fp32"))
    assert len(layers) == 5
    assert {(layer.engine, layer.reason) for layer in layers} == {("torch-dense-fp32", "asked for")}
    assert isinstance(speech.head[0], nn.Linear)

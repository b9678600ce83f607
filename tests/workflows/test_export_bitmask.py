"""export --format bitmask: what is lost, what is smaller, and the same metric from the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import rnnprune
from rnnprune import UsageError
from rnnprune.formats.checkpoint import read_checkpoint
from rnnprune.formats.options import ExportFormat
from rnnprune.formats.sparse import read_sparse
from rnnprune.kernels.bitmask import Bitmask
from rnnprune.pruning.options import Selection
from rnnprune.tasks.source import DataOptions
from rnnprune.workflows.evaluate import evaluate
from rnnprune.workflows.export import export
from rnnprune.workflows.prune import prune
from rnnprune.workflows.report import report
from rnnprune.workflows.subject import TaskChoice
from tests.workflows.untrained_lm import untrained_lm

TINY = TaskChoice(options=DataOptions(batch_size=8, length=20))
FORMS: tuple[ExportFormat, ...] = ("dense", "csr", "bitmask")
PRUNED = {"rnn.weight_ih_l0", "rnn.weight_hh_l0", "output.weight"}


@pytest.fixture(scope="module", params=["lstm", "gru"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model, never trained, cut at 80 %."""
    folder = tmp_path_factory.mktemp("lm")
    checkpoint = untrained_lm(folder, cell=request.param, hidden=32, embedding=16, layers=1, dropout=0.0)
    prune(checkpoint, 0.8, Selection(), folder / "run")
    return folder / "run"


@pytest.mark.parametrize("values", ["keep", "fp16", "bf16", "int8"])
def test_the_file_gives_the_metric_of_its_dense_twin(run: Path, values: Any, tmp_path: Path) -> None:
    out = tmp_path / "x.bitmask.safetensors"
    exported = export(run, "bitmask", values, out)
    assert set(exported.bitmasks) == PRUNED
    found = evaluate(out, TINY)
    assert found.value == pytest.approx(evaluate(out, TINY, engine="torch-dense-fp32").value, rel=1e-5)
    if values == "keep":
        assert found.value == pytest.approx(evaluate(run, TINY).value, rel=1e-5)
    logits = rnnprune.load(out)(torch.zeros(1, 3, dtype=torch.int64))
    assert logits[0].isfinite().all()


def test_int8_loses_half_a_step_of_its_row_at_most_and_says_so(run: Path, tmp_path: Path) -> None:
    exported = export(run, "bitmask", "int8", tmp_path / "x")
    before = read_checkpoint(run / "model.safetensors").tensors
    after = read_checkpoint(tmp_path / "x").tensors
    for name, weight in before.items():
        half = weight.abs().amax(-1, keepdim=True) / 254 if name in PRUNED else torch.zeros(1)
        assert ((after[name] - weight).abs() <= half * 1.0001).all()
    errors = [float((after[name] - before[name]).abs().max() / before[name].abs().max()) for name in before]
    assert exported.rounding_error == pytest.approx(max(errors), rel=1e-5)
    zeroed = sum(int((before[name] != 0).sum() - (after[name] != 0).sum()) for name in before)
    assert (exported.underflowed, exported.to_json()["bitmasks"]) == (zeroed, list(exported.bitmasks))


def test_each_form_is_smaller_than_the_one_before(run: Path) -> None:
    sizes = [export(run, form).bytes for form in FORMS]
    assert sizes[0] > sizes[1] > sizes[2] > export(run, "bitmask", "int8").bytes
    assert (run / "model.bitmask.int8.safetensors").exists()
    stored = read_sparse(run / "model.bitmask.int8.safetensors").tensors
    for tensor in report(run / "model.bitmask.int8.safetensors").tensors:
        item = stored[tensor.name]
        if isinstance(item, Bitmask):
            assert (tensor.bytes.file, tensor.nnz, tensor.pruned) == (item.nbytes, item.nnz, True)


def test_what_is_sparser_still_stays_csr_in_its_own_dtype(tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(nn.LSTM(64, 64).state_dict(), tmp_path / "d.pt")
    prune(tmp_path / "d.pt", 0.8, Selection(target_of=(("weight_hh*", 0.99),)), tmp_path / "run")
    exported = export(tmp_path / "run", "bitmask", "int8")
    assert (exported.bitmasks, exported.sparse) == (("weight_ih_l0",), 2)
    tensors = read_checkpoint(exported.path).tensors
    dense = read_checkpoint(tmp_path / "run/model.safetensors").tensors
    assert torch.equal(tensors["weight_hh_l0"], dense["weight_hh_l0"])
    assert not torch.equal(tensors["weight_ih_l0"], dense["weight_ih_l0"])


def test_there_must_be_something_to_store_as_int8(tmp_path: Path) -> None:
    torch.save(nn.LSTM(8, 8).state_dict(), tmp_path / "dense.pt")
    with pytest.raises(UsageError, match=r"no matrix in it gets smaller as a bitmask.* prune it first, or export with"):
        export(tmp_path / "dense.pt", "bitmask", "int8")


def test_an_export_can_be_pruned_and_exported_again(run: Path, tmp_path: Path) -> None:
    exported = export(run, "bitmask", "fp16", tmp_path / "half.safetensors")
    again = export(exported.path, "bitmask", "keep", tmp_path / "again.safetensors")
    assert again.bytes == pytest.approx(exported.bytes, abs=64)
    for name, tensor in read_checkpoint(exported.path).tensors.items():
        assert torch.equal(tensor, read_checkpoint(again.path).tensors[name])

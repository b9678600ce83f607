"""export --format bsr and --values int8: which block, what is lost, and the same metric from the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import rnnprune
from rnnprune import UsageError
from rnnprune.formats.checkpoint import read_checkpoint
from rnnprune.formats.sparse import read_sparse
from rnnprune.kernels import native
from rnnprune.kernels.bsr import Bsr
from rnnprune.pruning.options import Block, Selection
from rnnprune.runtime.sparsify import describe, sparsify
from rnnprune.tasks.source import DataOptions
from rnnprune.workflows.evaluate import evaluate
from rnnprune.workflows.export import export
from rnnprune.workflows.prune import prune
from rnnprune.workflows.report import report
from rnnprune.workflows.subject import TaskChoice
from tests.workflows.untrained_lm import untrained_lm

TINY = TaskChoice(options=DataOptions(batch_size=8, length=20))
NATIVE = pytest.param("native", marks=pytest.mark.skipif(bool(native.unavailable_reason()), reason="no C engine"))


@pytest.fixture(scope="module", params=["lstm", "gru"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model, never trained, cut at 80 % in blocks of 8x4."""
    folder = tmp_path_factory.mktemp("lm")
    checkpoint = untrained_lm(folder, cell=request.param, hidden=32, embedding=16, layers=2, dropout=0.0)
    prune(checkpoint, 0.8, Selection(block=Block(8, 4)), folder / "run")
    return folder / "run"


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """An LSTM in blocks of 16x1 that no run tells about."""
    torch.manual_seed(0)
    state = nn.LSTM(32, 64).state_dict()
    for name in ("weight_ih_l0", "weight_hh_l0"):
        keep = (torch.rand(16, state[name].shape[1]) < 0.1).repeat_interleave(16, 0)
        state[name] = state[name] * keep
    torch.save(state, tmp_path / "bare.pt")
    return tmp_path / "bare.pt"


@pytest.mark.parametrize("engine", [NATIVE, "reference"])
@pytest.mark.parametrize("values", ["keep", "fp16", "bf16", "int8"])
def test_the_file_gives_the_metric_of_its_dense_twin(run: Path, values: Any, engine: Any, tmp_path: Path) -> None:
    """Four digits between the engines on the file, and the dense layers with what was read from it."""
    out = tmp_path / "x.bsr.safetensors"
    exported = export(run, "bsr", values, out)
    assert set(exported.blocks.values()) == {"8x4"}
    assert len(exported.blocks) == 4
    found = evaluate(out, TINY, engine=engine)
    assert found.value == pytest.approx(evaluate(out, TINY, engine="torch-dense-fp32").value, rel=1e-5)
    if values == "keep":
        assert found.value == pytest.approx(evaluate(run, TINY).value, rel=1e-5)
    if engine == "native":
        assert found.layers[0].layout == ("8x4:int8" if values == "int8" else "8x4")


def test_int8_loses_half_a_step_at_most_and_says_so(run: Path, tmp_path: Path) -> None:
    exported = export(run, "bsr", "int8", tmp_path / "x")
    before = read_checkpoint(run / "model.safetensors").tensors
    after = read_checkpoint(tmp_path / "x").tensors
    errors = [float((after[name] - before[name]).abs().max() / before[name].abs().max()) for name in before]
    assert exported.rounding_error == pytest.approx(max(errors), rel=1e-5)
    assert 0 < max(errors) <= 0.5001 / 127
    zeroed = sum(int((before[name] != 0).sum() - (after[name] != 0).sum()) for name in before)
    assert exported.underflowed == zeroed
    told = exported.to_json()
    assert (told["rounding_error"], told["blocks"]) == (exported.rounding_error, exported.blocks)


def test_the_name_of_the_file_and_what_a_report_says(run: Path) -> None:
    exported = export(run, "bsr", "int8")
    assert exported.path == run / "model.bsr.int8.safetensors"
    stored = read_sparse(exported.path).tensors
    assert {name for name, item in stored.items() if isinstance(item, Bsr)} == exported.blocks.keys()
    for tensor in report(exported.path).tensors:
        item = stored[tensor.name]
        if isinstance(item, Bsr):
            assert (tensor.bytes.file, tensor.nnz, tensor.pruned) == (item.nbytes, item.nnz, True)
    assert exported.bytes < export(run, "bsr").bytes < export(run, "csr").bytes


def test_where_the_block_comes_from(run: Path, bare: Path, tmp_path: Path) -> None:
    assert set(export(bare, "bsr", out=tmp_path / "a").blocks.values()) == {"16x1"}
    assert set(export(bare, "bsr", out=tmp_path / "b", block=Block(4, 1)).blocks.values()) == {"4x1"}
    assert set(export(run, "bsr", out=tmp_path / "c", block=Block(4, 4)).blocks.values()) == {"4x4"}
    assert export(bare, "bsr", out=tmp_path / "d", block=Block(7, 1)).blocks == {}


@pytest.mark.parametrize("manifest", ["", "[]", '{"pruning": 1}', '{"pruning": {"selection": {"block": [1, 1]}}}'])
def test_a_record_of_nothing_leaves_it_to_the_zeros(bare: Path, manifest: str) -> None:
    run = bare.parent / "run"
    prune(bare, 0.909, Selection(), run)  # what is zero already stays, and no more is dropped
    (run / "rnnprune.json").write_text(manifest)
    assert set(export(run, "bsr").blocks.values()) == {"16x1"}


def test_a_record_wins_over_what_the_zeros_show(bare: Path) -> None:
    run = bare.parent / "run"
    prune(bare, 0.909, Selection(), run)  # what is zero already stays, and no more is dropped
    (run / "rnnprune.json").write_text(json.dumps({"pruning": {"selection": {"block": [8, 1]}}}))
    assert set(export(run, "bsr").blocks.values()) == {"8x1"}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_become_float32_where_they_are_int8(bare: Path, dtype: torch.dtype) -> None:
    torch.save({name: tensor.to(dtype) for name, tensor in torch.load(bare).items()}, bare)
    exported = export(bare, "bsr", "int8")
    read = read_checkpoint(exported.path).tensors
    assert {name: tensor.dtype for name, tensor in read.items()} == {
        name: torch.float32 if name in exported.blocks else dtype for name in read
    }
    kept = read_checkpoint(export(bare, "bsr").path).tensors
    assert {tensor.dtype for tensor in kept.values()} == {dtype}


def test_what_makes_no_sense_is_refused(bare: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match="--values int8 goes with --format bitmask, or bsr for one pruned in blocks, not with csr"
    ):
        export(bare, "csr", "int8")
    with pytest.raises(UsageError, match="--block is for matrices in blocks, not for --format dense"):
        export(bare, "dense", block=Block(4, 1))
    torch.save(nn.LSTM(32, 64).state_dict(), tmp_path / "dense.pt")
    with pytest.raises(
        UsageError, match="nothing to store as int8; export with --format bitmask, or prune with --block 16x1"
    ):
        export(tmp_path / "dense.pt", "bsr", "int8")
    assert export(tmp_path / "dense.pt", "bsr").blocks == {}


@pytest.mark.skipif(bool(native.unavailable_reason()), reason="no C engine")
@pytest.mark.parametrize("values", ["keep", "int8"])
def test_a_layer_runs_in_the_blocks_of_its_file(bare: Path, values: Any) -> None:
    path = export(bare, "bsr", values).path
    x = torch.randn(5, 3, 32)
    dense = nn.LSTM(32, 64)
    dense.load_state_dict(read_checkpoint(path).state_dict())
    expected, _ = dense.double()(x.double())
    sparse = sparsify(nn.LSTM(32, 64), path, engine="native", threads=1)
    for batch in (x, x[:, :1]):
        y, _ = sparse(batch)
        torch.testing.assert_close(y.double(), expected[:, : batch.shape[1]], rtol=0, atol=1e-6)
    assert describe(sparse)[0].layout == ("16x1:int8" if values == "int8" else "16x1")
    again = sparsify(nn.LSTM(32, 64), sparse.state_dict(), engine="native", threads=1)
    assert describe(again)[0].layout == describe(sparse)[0].layout


def test_a_model_from_such_a_file_alone(run: Path) -> None:
    path = export(run, "bsr", "int8").path
    scores, _ = rnnprune.load(path)(torch.zeros(2, 5, dtype=torch.long))
    assert scores.shape == (2, 5, 11)

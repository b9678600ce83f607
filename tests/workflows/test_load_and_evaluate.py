"""load: a model from its file alone; evaluate: the same metric whatever engine runs the file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import rnnprune
from rnnprune import InputRefused, UsageError
from rnnprune.kernels import native
from rnnprune.pruning.options import Selection
from rnnprune.runtime.sparsify import engines_of
from rnnprune.tasks.builtin import BUILTIN
from rnnprune.tasks.lm import LmModel, LmModelSpec
from rnnprune.tasks.source import DataOptions
from rnnprune.workflows.evaluate import evaluate
from rnnprune.workflows.export import export
from rnnprune.workflows.prune import prune
from rnnprune.workflows.subject import TaskChoice
from tests.workflows.untrained_lm import untrained_lm

TINY = TaskChoice(options=DataOptions(batch_size=8, length=20))
ENGINES = [
    pytest.param("native", marks=pytest.mark.skipif(bool(native.unavailable_reason()), reason="no C engine")),
    "torch-csr",
    "scipy-csr",
    "reference",
]


@dataclass(frozen=True)
class Files:
    """One language model, never trained, cut at 80 %."""

    text: Path
    checkpoint: Path
    run: Path
    sparse: Path


@pytest.fixture(scope="module", params=["lstm", "gru"])
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("lm")
    checkpoint = untrained_lm(folder, cell=request.param, hidden=24, embedding=12, layers=2, dropout=0.2)
    prune(checkpoint, 0.8, Selection(), folder / "run")
    sparse = export(folder / "run", "csr").path
    return Files(folder / "letters.txt", checkpoint, folder / "run", sparse)


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_gives_the_metric_of_the_dense_model(files: Files, engine: Any) -> None:
    dense = evaluate(files.run, TINY)
    sparse = evaluate(files.sparse, TINY, engine=engine)
    assert (dense.engine, sparse.engine) == ("torch-dense-fp32", engine)
    assert sparse.value == pytest.approx(dense.value, rel=1e-6)
    assert [layer.name for layer in sparse.layers] == ["rnn", "output"]
    assert [layer.reason for layer in sparse.layers] == ["asked for", "asked for"]
    assert sparse.to_json()["layers"][0]["engine"] == engine


def test_the_engine_that_is_taken_when_none_is_named(files: Files) -> None:
    assert evaluate(files.checkpoint, TINY).layers == ()
    assert evaluate(files.run, TINY).engine == "torch-dense-fp32"
    auto = evaluate(files.sparse, TINY)
    assert auto.engine == engines_of(rnnprune.load(files.sparse))
    if native.unavailable_reason() is None:
        assert auto.engine == "native+torch-dense-fp32"  # the output layer is small
    assert evaluate(files.run, TINY, engine="reference").engine == "reference"


def test_a_sparse_engine_refuses_another_device(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rnnprune.workflows.evaluate.find_device", torch.device)
    with pytest.raises(UsageError, match="--engine native runs on the CPU; drop --device meta"):
        evaluate(files.sparse, TINY, device="meta", engine="native")


# load


@pytest.mark.parametrize("form", ["sparse", "run", "checkpoint"])
def test_a_model_from_its_file_alone(files: Files, form: str) -> None:
    files.text.rename(files.text.with_suffix(".away"))
    try:
        model = rnnprune.load(getattr(files, form))
    finally:
        files.text.with_suffix(".away").rename(files.text)
    assert isinstance(model, LmModel)
    assert not model.training
    scores, state = model(torch.zeros(2, 5, dtype=torch.long))
    assert scores.shape == (2, 5, 11)
    again, _ = model(torch.zeros(2, 1, dtype=torch.long), state)
    assert again.shape == (2, 1, 11)


def test_load_leaves_the_random_numbers_alone(files: Files) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    rnnprune.load(files.sparse)
    assert torch.equal(torch.rand(3), expected)


def test_a_file_without_a_built_in_task_names_the_way_on(tmp_path: Path) -> None:
    torch.save(nn.LSTM(4, 8).state_dict(), tmp_path / "theirs.pt")
    with pytest.raises(UsageError) as told:
        rnnprune.load(tmp_path / "theirs.pt")
    assert str(told.value) == (
        f"{tmp_path}/theirs.pt does not say how its model is built (built in: {', '.join(BUILTIN)}); "
        f"build the model yourself and call rnnprune.sparsify(model, '{tmp_path}/theirs.pt')"
    )


@pytest.mark.parametrize("sizes", [{"hidden": 12_000}, {"layers": 60}, {"embedding": 13}])
def test_a_model_that_its_own_file_does_not_hold_is_never_built(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: dict[str, int]
) -> None:
    """A few bytes of metadata describe gigabytes: the shapes come from the meta device, where nothing is allocated."""
    tree = torch.load(files.checkpoint, weights_only=True)
    tree["rnnprune"]["model"] |= sizes
    torch.save(tree, tmp_path / "ckpt.pt")
    build = LmModelSpec.build
    on_meta = lambda spec: build(spec) if torch.get_default_device().type == "meta" else pytest.fail("built")  # noqa: E731
    monkeypatch.setattr(LmModelSpec, "build", on_meta)
    for read in (rnnprune.load, lambda path: evaluate(path, TINY)):
        with pytest.raises(InputRefused, match=r"ckpt\.pt: its weights are not those of the model that it describes"):
            read(tmp_path / "ckpt.pt")

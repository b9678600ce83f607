"""The language model's two options: the state carried from window to window, and the embedding tied to the output."""

import json
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from rnnprune import describe, load
from rnnprune.errors import InputRefused, UsageError
from rnnprune.formats.checkpoint import read_checkpoint
from rnnprune.pruning.options import PruningOptions, Selection
from rnnprune.tasks.lm import LmModelSpec, LmTask
from rnnprune.tasks.source import DataOptions
from rnnprune.training.recipe import Recipe
from rnnprune.workflows.export import export
from rnnprune.workflows.finetune import FinetuneRequest, finetune
from rnnprune.workflows.subject import TaskChoice, load_model, open_subject
from rnnprune.workflows.train import train_task

CELLS = ("lstm", "gru", "rnn")
CARRIED = LmModelSpec(hidden=8, embedding=6, carry=True)


# -- carried state -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world_size", [1, 3])
def test_every_row_goes_on_where_it_stood(letters, world_size):
    task = LmTask.from_text(letters, CARRIED, batch_size=4, length=10)
    for epoch in range(3):
        first = []
        for rank in range(world_size):
            batches = list(task.train_batches(epoch=epoch, seed=1, rank=rank, world_size=world_size))
            assert [batch.place for batch in batches] == list(range(len(batches)))
            streams = torch.stack([batch.windows for batch in batches])  # steps, batch, window
            assert torch.equal(streams[1:, :, 0], streams[:-1, :, -1])  # the last target is the next first input
            first += streams[:, :, 0].T.tolist()
        assert len({str(row) for row in first}) == 4 * world_size  # no two read the same stretch


def test_streams_are_a_pure_function_of_epoch_and_seed(letters):
    def read(**which):
        batches = LmTask.from_text(letters, CARRIED, batch_size=4, length=10).train_batches(**which)
        return [batch.windows.tolist() for batch in batches]

    assert read(epoch=1, seed=2) == read(epoch=1, seed=2)
    assert len({str(read(epoch=epoch, seed=seed)) for epoch in range(2) for seed in range(2)}) > 1
    assert len(read(epoch=0, seed=0)) == len(read(epoch=1, seed=0)) == (1800 // 10 - 1) // 4


@pytest.mark.parametrize("cell", CELLS)
def test_windows_read_one_after_the_other_cost_what_the_whole_costs(letters, cell):
    spec = LmModelSpec(cell=cell, hidden=8, embedding=6, layers=2, carry=True)
    task = LmTask.from_text(letters, spec, batch_size=3, length=7)
    model = task.build_model()
    batches = list(task.train_batches(epoch=0, seed=0))[:4]
    losses = [task.loss(model, batch) for batch in batches]
    whole = torch.cat([batches[0].windows[:, :1], *(batch.windows[:, 1:] for batch in batches)], 1)
    logits, _ = model(whole[:, :-1])
    expected = nn.functional.cross_entropy(logits.flatten(0, 1), whole[:, 1:].flatten())
    torch.testing.assert_close(torch.stack(losses).mean(), expected)
    losses[-1].backward()  # ends at its own window: the graphs of those before are not asked for
    losses[0].backward()


def test_a_stream_that_begins_anew_begins_from_a_fresh_state(letters):
    task = LmTask.from_text(letters, CARRIED, batch_size=3, length=7)
    model = task.build_model()
    batches = list(task.train_batches(epoch=0, seed=0))
    fresh = [task.loss(model, batch).item() for batch in batches[:3]]
    assert [task.loss(model, batch).item() for batch in batches[:3]] == fresh
    task.loss(model, batches[5])  # not the one that follows: read from a fresh state, and kept as its own
    plain, _ = model(batches[1].windows[:, :-1])
    alone = nn.functional.cross_entropy(plain.flatten(0, 1), batches[1].windows[:, 1:].flatten()).item()
    assert task.loss(model, batches[1]).item() == pytest.approx(alone, rel=1e-6)
    assert alone != pytest.approx(fresh[1], rel=1e-6)


def test_a_run_that_is_gone_on_with_needs_the_carried_state_and_nothing_else(letters):
    def losses(task, model, batches):
        optimizer = torch.optim.SGD(model.parameters(), 0.5)
        found = []
        for batch in batches:
            optimizer.zero_grad()
            loss = task.loss(model, batch)
            loss.backward()
            optimizer.step()
            found.append(loss.item())
        return found

    def make():
        torch.manual_seed(3)
        task = LmTask.from_text(letters, CARRIED, batch_size=3, length=7)
        return task, task.build_model(), list(task.train_batches(epoch=2, seed=1))[:8]

    whole = losses(*make())
    task, model, batches = make()
    begun = losses(task, model, batches[:5])
    other, again, _ = make()
    again.load_state_dict(model.state_dict())
    other.carried = task.carried
    assert begun + losses(other, again, batches[5:]) == whole


# -- tied embeddings ---------------------------------------------------------------------------------------------------


def test_tied_means_one_parameter_under_two_names(letters):
    model = LmTask.from_text(letters, LmModelSpec(hidden=8, embedding=8, tied=True)).build_model()
    assert model.embedding.weight is model.output.weight
    assert sum(1 for _ in model.parameters()) == 6
    tokens = torch.tensor([[1, 2, 3]])
    hidden, _ = model.rnn(model.output.weight[tokens])
    torch.testing.assert_close(model(tokens)[0], hidden @ model.embedding.weight.T + model.output.bias)


def test_other_units_than_the_outputs_cannot_be_tied(letters):
    with pytest.raises(UsageError, match="same units; embedding 6, hidden 8"):
        LmModelSpec(hidden=8, embedding=6, tied=True)
    entry = json.loads(json.dumps(LmTask.from_text(letters, LmModelSpec(hidden=8, embedding=6)).metadata))
    entry["model"]["tied"] = True
    with pytest.raises(InputRefused, match="same units"):
        LmTask.from_checkpoint(entry)


@pytest.mark.parametrize("include", [(), ("embedding.weight",)])
def test_a_tied_model_is_pruned_exported_and_loaded_as_one(letters, tmp_path, include):
    spec = LmModelSpec(cell="gru", hidden=16, embedding=16, tied=True, carry=True)
    task = LmTask.from_text(letters, spec, batch_size=8, length=20)
    train_task(task, Recipe(steps=10), tmp_path / "ckpt.pt")
    request = FinetuneRequest(
        tmp_path / "ckpt.pt",
        TaskChoice(None, DataOptions(batch_size=8, length=20)),
        PruningOptions(selection=Selection(include=include, scope="tensor")),
        Recipe(steps=20),
        out=tmp_path / "run",
    )
    result = finetune(request)
    assert ("embedding.weight" in result.per_tensor) == bool(include)
    file = export(tmp_path / "run", "csr").path
    for path in (tmp_path / "run", file):
        state = read_checkpoint(path / "model.safetensors" if path.is_dir() else path)
        assert state.aliases == {"output.weight": "embedding.weight"}
    zeros = 1 - load(tmp_path / "run", engine="torch-dense-fp32").output.weight.count_nonzero() / (16 * 11)
    assert float(zeros) == pytest.approx(0.9 if include else 0.0, abs=0.01)
    sparse = load(file, engine="reference")
    pruned = {"rnn", "output"} if include else {"rnn"}
    assert {layer.name for layer in describe(sparse) if layer.engine == "reference"} == pruned
    tokens = torch.randint(11, (2, 5))
    dense = load(tmp_path / "run", engine="torch-dense-fp32")
    torch.testing.assert_close(sparse(tokens)[0], dense(tokens)[0], rtol=1e-5, atol=1e-5)


def test_a_tied_model_trained_on_another_device_is_saved_tied(letters, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "cpu", torch.Tensor.clone)  # as from a GPU: every call gives new memory
    task = LmTask.from_text(letters, LmModelSpec(hidden=8, embedding=8, tied=True), batch_size=8, length=20)
    train_task(task, Recipe(steps=1), tmp_path / "ckpt.pt")
    monkeypatch.undo()
    assert read_checkpoint(tmp_path / "ckpt.pt").aliases == {"output.weight": "embedding.weight"}


def test_a_file_whose_tied_names_differ_does_not_fit(letters, tmp_path):
    task = LmTask.from_text(letters, LmModelSpec(hidden=8, embedding=8, tied=True))
    state = {name: tensor.clone() for name, tensor in task.build_model().state_dict().items()}
    for change, fits in ((0.0, True), (1.0, False)):
        state["output.weight"] = state["embedding.weight"] + change
        torch.save({"rnnprune": task.metadata, "state_dict": state}, tmp_path / "ckpt.pt")
        with nullcontext() if fits else pytest.raises(UsageError, match=r"embedding\.weight and output\.weight are"):
            load_model(task, open_subject(tmp_path / "ckpt.pt"))

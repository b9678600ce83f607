"""The tasks `tag` and `classify` against slow loops over single items."""

import json

import numpy as np
import pytest
import safetensors.numpy
import torch

from rnnprune.errors import UsageError
from rnnprune.tasks.builtin import builtin_task
from rnnprune.tasks.protocol import Task
from rnnprune.tasks.source import DataOptions
from rnnprune.tasks.tag.model import ClassifyModelSpec, TagModelSpec
from rnnprune.tasks.tag.task import ClassifyTask, TagTask

SMALL = {"hidden": 6, "embedding": 5}


@pytest.fixture
def sentences(tmp_path):
    """80 sequences of letters; a vowel is V, any other letter C."""
    random = np.random.default_rng(0)
    drawn = ["".join(random.choice(list("abcdefgh"), random.integers(1, 9))) for _ in range(80)]
    path = tmp_path / "letters.tsv"
    path.write_text("".join(f"{word}\t{' '.join('V' if c in 'ae' else 'C' for c in word)}\n" for word in drawn))
    return path


@pytest.fixture
def frames(tmp_path):
    """80 series of three features, the third constant; the label is the sign of the first one's mean."""
    random = np.random.default_rng(0)
    tensors = {}
    for item in range(80):
        series = random.standard_normal((random.integers(1, 9), 3)).astype(np.float32) * [5, 0.1, 0] + [9, -1, 4]
        tensors[f"{item}.features"] = series.astype(np.float32)
        tensors[f"{item}.label"] = np.array([int(series[:, 0].mean() > 9)])
    path = tmp_path / "frames.safetensors"
    safetensors.numpy.save_file(tensors, path, {"labels": '["low", "high"]'})
    return path


def tag_task(path, **options):
    return TagTask.from_file(path, TagModelSpec(level="char", **SMALL), DataOptions(**options))


def classify_task(path, **options):
    return ClassifyTask.from_file(path, ClassifyModelSpec(cell="gru", **SMALL), DataOptions(**options))


@pytest.mark.parametrize("kind", ["tag", "classify"])
def test_loss_and_figures_equal_a_loop_over_single_items(sentences, frames, kind):
    task = tag_task(sentences, batch_size=7) if kind == "tag" else classify_task(frames, batch_size=7)
    assert isinstance(task, Task)
    model = task.build_model().eval()
    batch = next(iter(task.train_batches(epoch=0, seed=0)))
    alone = []
    for inputs, length, labels in zip(*batch, strict=True):
        scores = model(inputs[None, :length], length[None])[0]
        alone += [-torch.log_softmax(scores.view(-1, 2), -1)[i, y] for i, y in enumerate(labels.view(-1)[:length])]
    torch.testing.assert_close(task.loss(model, batch), torch.stack(alone).mean())

    right = []
    for item in task.corpus.splits["test"]:
        scores = model(torch.from_numpy(item.inputs)[None], torch.tensor([len(item.inputs)]))[0]
        right += (scores.view(-1, 2).argmax(-1).numpy() == item.labels).tolist()
    with torch.no_grad():
        figures = task.evaluate(model, "test")
    assert figures["accuracy"] == pytest.approx(np.mean(right))
    assert set(figures) == {"accuracy", "macro_f1", "auc"}


@pytest.mark.parametrize("split", ["validation", "test"])
def test_the_figures_do_not_depend_on_the_batch_size(sentences, split):
    model = tag_task(sentences).build_model().eval()
    with torch.no_grad():
        found = [tag_task(sentences, batch_size=size).evaluate(model, split) for size in (1, 3, 100)]
    assert found[0] == pytest.approx(found[1])
    assert found[0] == pytest.approx(found[2])


def test_features_are_scaled_to_the_training_split(frames):
    task = classify_task(frames)
    model = task.build_model()
    train = np.concatenate([item.inputs for item in task.corpus.splits["train"]]).astype(np.float64)
    np.testing.assert_allclose(model.embedding.mean, train.mean(axis=0), rtol=1e-6)
    expected = [1 / train[:, 0].std(), 1 / train[:, 1].std(), 1.0]  # the constant one stays as it is
    np.testing.assert_allclose(model.embedding.scale, expected, rtol=1e-5)


@pytest.mark.parametrize("kind", ["tag", "classify"])
def test_the_entry_survives_json_and_a_weights_only_load(sentences, frames, tmp_path, kind):
    task = tag_task(sentences) if kind == "tag" else classify_task(frames)
    torch.save({"rnnprune": task.metadata}, tmp_path / "ckpt.pt")
    for entry in (
        json.loads(json.dumps(task.metadata)),
        torch.load(tmp_path / "ckpt.pt", weights_only=True)["rnnprune"],
    ):
        again = builtin_task(entry)
        assert type(again) is type(task)
        assert again.spec == task.spec
        assert again.notes == ()
        assert builtin_task({**entry, "batches": {"batch_size": 3}}).batch_size == 3
        (item,) = again.corpus.splits["test"][:1]
        np.testing.assert_array_equal(item.inputs, task.corpus.splits["test"][0].inputs)


def test_data_that_changed_asks_for_the_flag(sentences):
    entry = tag_task(sentences).metadata
    sentences.write_text(sentences.read_text() + "a\tV\n")
    with pytest.raises(UsageError, match="is not the file that the model was trained on"):
        TagTask.from_checkpoint(entry)
    assert len(TagTask.from_checkpoint(entry, DataOptions(sentences)).notes) == 1


@pytest.mark.parametrize("kind", ["tag", "classify"])
def test_training_learns_what_can_be_learnt(sentences, frames, kind):
    task = tag_task(sentences, batch_size=16) if kind == "tag" else classify_task(frames, batch_size=16)
    model = task.build_model()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for epoch in range(25):
        for batch in task.train_batches(epoch=epoch, seed=0):
            optimizer.zero_grad()
            task.loss(model, batch).backward()
            optimizer.step()
    with torch.no_grad():
        assert task.evaluate(model.eval(), "test")["accuracy"] > 0.9

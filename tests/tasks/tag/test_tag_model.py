"""The models against plain torch: an item alone, without padding, is the truth for every batch that it is in."""

import pytest
import torch
from torch import nn

from rnnprune.errors import InputRefused, UsageError
from rnnprune.tasks.tag.model import ClassifyModelSpec, TagModelSpec

LENGTHS = (3, 7, 1, 5)
KIND = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
LABELS = ("a", "b", "c")


def spec_of(kind, **more):
    vocabulary = () if more.get("features") else ("<unk>", "x", "y", "z")
    return kind(hidden=6, embedding=5, vocabulary=vocabulary, labels=LABELS, **more)


def inputs_of(features, lengths=LENGTHS):
    """Items, and the batch of them, padded with what would be seen if it were computed with."""
    items = [torch.randn(n, features) * 3 + 1 if features else torch.randint(4, (n,)) for n in lengths]
    batch = nn.utils.rnn.pad_sequence(items, batch_first=True, padding_value=3)
    return items, batch, torch.tensor(lengths)


@pytest.mark.parametrize("features", [0, 4])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", KIND)
def test_an_item_alone_equals_itself_in_a_batch(cell, bidirectional, features):
    for kind in (TagModelSpec, ClassifyModelSpec):
        spec = spec_of(kind, cell=cell, layers=2, bidirectional=bidirectional, features=features)
        model = spec.build().double().eval()
        items, batch, lengths = inputs_of(features)
        batch = batch.double() if features else batch
        scores = model(batch, lengths)
        plain = KIND[cell](spec.features or 5, 6, 2, batch_first=True, bidirectional=bidirectional).double()
        plain.load_state_dict(model.rnn.state_dict())
        for row, item in enumerate(items):
            x = item.double() if features else model.embedding(item)
            outputs, state = plain(x[None])
            if kind is TagModelSpec:
                torch.testing.assert_close(scores[row, : len(item)], model.output(outputs[0]))
                continue
            # the forward direction's last output, and the backward one's at the first step
            ends = [outputs[0, -1, :6], *([outputs[0, 0, 6:]] if bidirectional else [])]
            torch.testing.assert_close(scores[row], model.output(torch.cat(ends)))
            h = state[0] if cell == "lstm" else state
            torch.testing.assert_close(torch.cat(tuple(h[-len(ends) :, 0])), torch.cat(ends))


@pytest.mark.parametrize("kind", [TagModelSpec, ClassifyModelSpec])
def test_the_state_dict_is_torchs_own(kind):
    names = set(spec_of(kind, cell="gru").build().state_dict())
    plain = {f"rnn.{name}" for name in nn.GRU(5, 6, bidirectional=True).state_dict()}
    assert names == plain | {"embedding.weight", "output.weight", "output.bias"}
    framed = set(spec_of(kind, cell="gru", features=4).build().state_dict())
    assert framed == plain | {"embedding.mean", "embedding.scale", "output.weight", "output.bias"}


def test_gradients_reach_every_parameter():
    model = spec_of(ClassifyModelSpec, layers=2).build()
    model(*inputs_of(0)[1:]).sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": 0}, "hidden: expected a whole number from 1"),
        ({"dropout": 1.0}, "dropout: expected 0 <= dropout < 1"),
        ({"features": -1}, "features: expected 0 with a vocabulary"),
        ({"features": 3, "vocabulary": ("<unk>",)}, "features: expected 0 with a vocabulary"),
        ({"vocabulary": ("a",)}, "vocabulary: expected to begin with <unk>"),
        ({"labels": ("a", "a")}, "labels: the same token stands in it twice"),
    ],
)
def test_impossible_sizes_are_usage_errors(change, message):
    with pytest.raises(UsageError, match=message):
        TagModelSpec(**change)


def test_a_spec_without_vocabulary_comes_back_from_a_checkpoint_and_one_without_labels_does_not():
    spec = spec_of(TagModelSpec, features=4)
    assert TagModelSpec.from_dict(spec.to_dict()) == spec
    with pytest.raises(InputRefused, match=r"rnnprune\.model\.labels: the checkpoint holds an empty one"):
        TagModelSpec.from_dict(spec.to_dict() | {"labels": []})

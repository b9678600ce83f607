"""The recogniser against torch's packed sequences, and against itself alone and in company."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

import rnnprune
from rnnprune.errors import InputRefused, UsageError
from rnnprune.tasks.ctc.model import BLANK, CtcModel, CtcModelSpec, RecurrentLayer, normalise, turned

LABELS = (BLANK, *"abc")
SMALL = {"hidden": 6, "layers": 2, "mels": 7, "channels": 3, "labels": LABELS}
CELLS = ("lstm", "gru", "rnn")


def lived_in(spec: CtcModelSpec) -> CtcModel:
    """A model whose batch norms have seen data, in eval mode."""
    model = spec.build()
    model(torch.randn(4, 30, spec.mels), torch.tensor([30, 30, 20, 10]))
    return model.eval()


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("stride", [1, 2, 3])
@torch.no_grad()
def test_an_utterance_never_hears_its_neighbours(cell, bidirectional, stride):
    model = lived_in(CtcModelSpec(cell=cell, bidirectional=bidirectional, stride=stride, **SMALL))
    lengths = [23, 8, 17, 1]
    utterances = [torch.randn(length, 7) for length in lengths]
    together, left = model(pad_sequence(utterances, batch_first=True, padding_value=torch.nan), torch.tensor(lengths))
    assert left.tolist() == [-(-length // stride) for length in lengths]
    for row, utterance, length in zip(together, utterances, left, strict=True):
        alone, _ = model(utterance[None], torch.tensor([len(utterance)]))
        assert alone.shape == (1, length, 4)
        torch.testing.assert_close(row[:length], alone[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_a_layer_is_torchs_bidirectional_layer_over_a_packed_sequence(cell):
    layer = RecurrentLayer(CtcModelSpec(cell=cell, hidden=5), 4)
    twin = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}[cell](4, 5, bidirectional=True, batch_first=True)
    twin.load_state_dict(
        layer.forwards.state_dict() | {f"{name}_reverse": w for name, w in layer.backwards.state_dict().items()}
    )
    x, lengths = torch.randn(3, 9, 4), torch.tensor([9, 6, 2])
    expected, _ = twin(pack_padded_sequence(x, lengths, batch_first=True))
    expected, _ = pad_packed_sequence(expected, batch_first=True)
    found = layer(x, lengths)
    for row, other, length in zip(found, expected, lengths, strict=True):
        torch.testing.assert_close(row[:length], other[:length])


def test_turning_round_is_within_the_length_and_its_own_inverse():
    x, lengths = torch.arange(10.0).view(2, 5, 1), torch.tensor([5, 3])
    assert turned(x, lengths).squeeze(2).tolist() == [[4, 3, 2, 1, 0], [7, 6, 5, 8, 9]]
    assert torch.equal(turned(turned(x, lengths), lengths), x)


def test_batch_norm_counts_real_frames_only():
    norm, x = nn.BatchNorm1d(2, momentum=1.0), torch.randn(2, 4, 2)
    valid = torch.tensor([[True, True, True, True], [True, False, False, False]])
    out = normalise(norm, x, valid)
    real = torch.cat((x[0], x[1, :1]))
    torch.testing.assert_close(norm.running_mean, real.mean(0))
    torch.testing.assert_close(norm.running_var, real.var(0))
    assert torch.equal(out[1, 1:], torch.zeros(3, 2))


def test_the_front_is_torchs_convolutions_clipped_at_twenty():
    model = lived_in(CtcModelSpec(stride=2, **SMALL))
    features = 1000 * torch.randn(1, 12, 7)
    seen = []
    model.norms[0].register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    with torch.no_grad():
        model(features, torch.tensor([12]))
        first, second = model.convolutions
        loud = first(features.transpose(1, 2)[:, None])
        by_hand = second(loud.clamp(0, 20)).clamp(0, 20)
    assert by_hand.shape == (1, 3, 2, 6)  # 7 mels halved twice, 12 frames halved once
    torch.testing.assert_close(seen[0], by_hand.permute(0, 3, 1, 2).reshape(6, 6))
    assert float(loud.max()) > 20


@pytest.mark.parametrize("cell", CELLS)
def test_the_state_dict_is_ordinary_and_every_weight_learns(cell):
    spec = CtcModelSpec(cell=cell, **SMALL)
    model = spec.build()
    names = {name for name in model.state_dict() if not name.endswith(("num_batches_tracked",))}
    assert {"layers.0.forwards.weight_ih_l0", "layers.1.backwards.bias_hh_l0", "output.weight"} < names
    assert {"convolutions.0.weight", "norms.2.running_mean"} < names
    scores, _ = model(torch.randn(3, 20, 7), torch.tensor([20, 20, 12]))
    scores.square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum()] == []
    copy.deepcopy(model).load_state_dict(model.state_dict())


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("engine", ["reference", "auto"])
@torch.no_grad()
def test_sparsify_gives_the_dense_models_answers(cell, engine):
    model = lived_in(CtcModelSpec(cell=cell, **(SMALL | {"hidden": 40})))
    for weight in model.parameters():
        if weight.ndim == 2:
            weight *= torch.rand(weight.shape) > 0.9
    features, lengths = torch.randn(3, 50, 7), torch.tensor([50, 31, 4])
    sparse = rnnprune.sparsify(copy.deepcopy(model), engine=engine)
    expected, left = model(features, lengths)
    found, _ = sparse(features, lengths)
    for row, other, length in zip(found, expected, left, strict=True):
        torch.testing.assert_close(row[:length], other[:length], rtol=0, atol=2e-5)
    if engine == "reference":
        assert {layer.engine for layer in rnnprune.describe(sparse)} == {"reference"}


BAD_SIZES = [
    ({"hidden": 0}, "hidden: expected a whole number from 1"),
    ({"stride": 17}, "stride: expected a whole number from 1 to 16"),
    ({"mels": 0}, "mels: expected"),
    ({"dropout": 1.0}, "dropout"),
    ({"cell": "transformer"}, "cell: expected one of"),
    ({"sample_rate": 0}, "sample_rate: expected"),
    ({"labels": ("a", BLANK)}, "labels: expected to begin with <blank>"),
    ({"labels": (BLANK, "a", "a")}, "the same token stands in it twice"),
    ({"labels": (BLANK, "ab")}, "expected single characters, found 'ab'"),
    ({"hidden": 2**20, "layers": 64}, "weights, over the limit"),
]


@pytest.mark.parametrize(("sizes", "reason"), BAD_SIZES)
def test_impossible_sizes_are_usage_errors_and_refused_in_a_checkpoint(sizes, reason):
    if sizes.keys() != {"cell"}:  # which the tests' type checker stops on its own
        with pytest.raises(UsageError, match=reason):
            CtcModelSpec(**sizes)
    stored = CtcModelSpec(labels=LABELS).to_dict()
    stored |= {name: list(value) if isinstance(value, tuple) else value for name, value in sizes.items()}
    with pytest.raises(InputRefused, match=reason):
        CtcModelSpec.from_dict(stored)


def test_a_spec_survives_its_own_dict():
    spec = CtcModelSpec(cell="rnn", bidirectional=False, stride=3, augment=True, labels=LABELS, sample_rate=16000)
    assert CtcModelSpec.from_dict(spec.to_dict()) == spec

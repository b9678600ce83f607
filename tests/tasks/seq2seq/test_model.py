"""The encoder-decoder against plain torch, slow loops, and itself one token at a time."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rnnprune import describe, sparsify
from rnnprune.tasks.seq2seq.decoding import padded
from rnnprune.tasks.seq2seq.model import AdditiveAttention, DotAttention
from rnnprune.tasks.seq2seq.tokens import END, PAD, START

CELLS = ("lstm", "gru", "rnn")
KINDS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
SOURCES = [[4, 5, 6], [7], [5, 5, 4, 6, 7, 4]]
BEFORE = torch.tensor([[START, 4, 5, 7], [START, 5, 6, 6], [START, 7, 7, 4]])


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("attention", ["dot", "additive"])
def test_the_state_dict_is_that_of_plain_layers(small, cell, attention):
    model = small(cell=cell, attention=attention, layers=2)
    assert type(model.encoder) is type(model.decoder) is KINDS[cell]
    plain = {
        "source_embedding": nn.Embedding(8, 5),
        "target_embedding": nn.Embedding(8, 5),
        "encoder": KINDS[cell](5, 3, 2, bidirectional=True),
        "decoder": KINDS[cell](5, 6, 2),
        "combine": nn.Linear(12, 6, bias=False),
        "output": nn.Linear(6, 8),
    }
    expected = {
        f"{name}.{key}": value.shape for name, layer in plain.items() for key, value in layer.state_dict().items()
    }
    if attention == "additive":
        expected |= {"attention.query.weight": (6, 6), "attention.query.bias": (6,), "attention.key.weight": (6, 6)}
        expected |= {"attention.score": (6,)}
    assert {name: value.shape for name, value in model.state_dict().items()} == expected
    copy.deepcopy(model).load_state_dict(pickle.loads(pickle.dumps(model)).state_dict())


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("attention", ["dot", "additive"])
def test_the_forward_pass_is_the_equations(small, cell, attention):
    model = small(cell=cell, attention=attention, layers=2).double()
    source = padded([SOURCES[0]])
    values, last = model.encoder(model.source_embedding(source))
    parts = []
    for part in last if cell == "lstm" else (last,):  # [layer 0 forward, layer 0 backward, layer 1 forward, ...]
        parts.append(torch.stack([torch.cat([part[0], part[1]], 1), torch.cat([part[2], part[3]], 1)]))
    queries, _ = model.decoder(model.target_embedding(BEFORE[:1]), tuple(parts) if cell == "lstm" else parts[0])
    for time, query in enumerate(queries[0]):
        if attention == "dot":
            scores = torch.stack([query @ value for value in values[0]])
        else:
            hidden = [model.attention.query(query) + model.attention.key(value) for value in values[0]]
            scores = torch.stack([model.attention.score @ torch.tanh(h) for h in hidden])
        weights = torch.exp(scores) / torch.exp(scores).sum()
        context = sum(weight * value for weight, value in zip(weights, values[0], strict=True))
        expected = model.output(torch.tanh(model.combine(torch.cat([context, query]))))
        torch.testing.assert_close(model(source, BEFORE[:1])[0, time], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("attention", ["dot", "additive"])
def test_padding_changes_nothing(small, cell, attention):
    model = small(cell=cell, attention=attention, layers=2).double()
    together = model(padded(SOURCES), BEFORE)
    wider = F.pad(padded(SOURCES), (0, 5), value=PAD)
    torch.testing.assert_close(model(wider, BEFORE), together, rtol=1e-10, atol=1e-12)
    for row, source in enumerate(SOURCES):
        alone = model(padded([source]), BEFORE[row : row + 1])
        torch.testing.assert_close(alone[0], together[row], rtol=1e-10, atol=1e-12)


def test_padding_gets_no_gradient(small):
    model = small(attention="additive").double()
    model(padded(SOURCES), BEFORE).sum().backward()
    assert model.source_embedding.weight.grad[PAD].abs().max() == 0
    assert model.source_embedding.weight.grad[END].abs().max() > 0
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("cell", CELLS)
def test_one_token_at_a_time_is_the_whole_at_once(small, cell):
    model = small(cell=cell, layers=2).double()
    source = padded(SOURCES)
    memory, state = model.encode(source)
    steps = []
    for time in range(BEFORE.shape[1]):
        logits, state = model.decode(BEFORE[:, time : time + 1], memory, state)
        steps.append(logits)
    torch.testing.assert_close(torch.cat(steps, 1), model(source, BEFORE), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("engine", ["auto", "reference"])
def test_sparsify_gives_the_dense_models_answers(small, cell, engine):
    model = small(cell=cell, hidden=16, layers=2, attention="additive")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and "embedding" not in name:
                parameter.mul_(torch.rand_like(parameter) < 0.2).mul_(4)
    sparse = sparsify(copy.deepcopy(model), engine=engine)
    twins = {layer.name: layer.engine for layer in describe(sparse)}
    assert all(twins[name] != "torch-dense-fp32" for name in ("encoder", "decoder"))
    source = padded(SOURCES)
    with torch.no_grad():
        torch.testing.assert_close(sparse(source, BEFORE), model(source, BEFORE), rtol=1e-5, atol=1e-5)
    texts = ["abc", "d", "bbacda", ""]
    assert sparse.translate(texts) == model.translate(texts)
    assert sparse.translate(texts, beam=3) == model.translate(texts, beam=3)


def test_both_attentions_take_the_same_arguments():
    queries, values = torch.randn(2, 3, 6), torch.randn(2, 4, 6)
    for attention in (DotAttention(), AdditiveAttention(6)):
        assert attention(queries, attention.keys(values)).shape == (2, 3, 4)

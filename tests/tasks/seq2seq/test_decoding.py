"""Greedy and beam search against every answer there is."""

import itertools

import pytest
import torch

from rnnprune.tasks.seq2seq.decoding import answers, beam_search, greedy, padded
from rnnprune.tasks.seq2seq.tokens import END, PAD, START, UNKNOWN

LONGEST = 4
OWN = (UNKNOWN, 4, 5)  # what an answer may hold, END aside
SOURCES = [[4], [5, 4, 4, 5, 5], [4, 5], [UNKNOWN, 5, 4]]
SIZES = {"longest": LONGEST, "source_vocabulary": ("<pad>", "<s>", "<unk>", "</s>", "a", "b")}
SIZES["target_vocabulary"] = SIZES["source_vocabulary"]


def lively(small, **sizes):
    """A model whose answers differ from source to source: larger weights than an untrained one has."""
    model = small(**SIZES | sizes).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    return model


def log_probability(model, source, answer) -> float:
    """Of every token of one answer given those before it, PAD and START aside; summed."""
    logits = model(padded([source]), torch.tensor([[START, *answer[:-1]]]))[0]
    logits[:, [PAD, START]] = -torch.inf
    return float(sum(torch.log_softmax(row, 0)[token] for row, token in zip(logits, answer, strict=True)))


def best_of_all(model, source) -> list[int]:
    """By log probability per token: answers that END, and those that are cut off at the longest."""
    ended = [[*answer, END] for size in range(LONGEST) for answer in itertools.product(OWN, repeat=size)]
    cut_off = [list(answer) for answer in itertools.product(OWN, repeat=LONGEST)]
    return max(ended + cut_off, key=lambda answer: log_probability(model, source, answer) / len(answer))


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("seed", [1, 2])
@torch.no_grad()
def test_a_wide_beam_finds_the_best_of_all_answers(small, cell, seed):
    torch.manual_seed(seed)
    model = lively(small, cell=cell, layers=2)
    expected = [best_of_all(model, source) for source in SOURCES]
    found = beam_search(model, padded(SOURCES), 4**LONGEST).tolist()
    assert [[token for token in answer if token != PAD] for answer in found] == expected


@torch.no_grad()
def test_greedy_takes_the_likeliest_token_at_every_step(small):
    model = lively(small)
    for source, found in zip(SOURCES, greedy(model, padded(SOURCES)).tolist(), strict=True):
        answer: list[int] = []
        while len(answer) < LONGEST and END not in answer:
            following = {token: log_probability(model, source, [*answer, token]) for token in (*OWN, END)}
            answer.append(max(following, key=following.__getitem__))
        assert found[: len(answer)] == answer


@torch.no_grad()
def test_a_beam_of_one_is_greedy(small):
    for seed in range(5):
        torch.manual_seed(seed)
        model = lively(small, longest=8)
        one, other = greedy(model, padded(SOURCES)), beam_search(model, padded(SOURCES), 1)
        for a, b in zip(one.tolist(), other.tolist(), strict=True):
            end = a.index(END) + 1 if END in a else len(a)
            assert a[:end] == [token for token in b if token != PAD]


@pytest.mark.parametrize("beam", [1, 3])
@torch.no_grad()
def test_a_source_alone_is_answered_as_in_a_batch_and_in_its_place(small, beam, monkeypatch):
    model = lively(small, longest=7)
    alone = [answers(model, [source], beam)[0] for source in SOURCES]
    assert len({str(answer) for answer in alone}) > 1
    assert answers(model, SOURCES, beam) == alone
    monkeypatch.setattr("rnnprune.tasks.seq2seq.decoding.TOGETHER", 2)
    assert answers(model, SOURCES, beam) == alone


@pytest.mark.parametrize("beam", [1, 3])
@torch.no_grad()
def test_an_answer_ends_at_its_mark_or_at_the_longest(small, beam):
    model = small(**SIZES)
    model.output.bias.data[END] = 50
    assert answers(model, SOURCES, beam) == [[]] * 4
    model.output.bias.data[END] = -50
    model.output.bias.data[[PAD, START]] = 80  # never given, however likely
    assert [len(answer) for answer in answers(model, SOURCES, beam)] == [LONGEST] * 4


def test_texts_go_in_and_come_out(small):
    model = small(longest=3)
    model.output.weight.data.zero_()
    model.output.bias.data[6] = 9
    assert model.translate(["abc", ""]) == ["ccc", "ccc"]
    assert model.translate(["abc"], beam=2) == ["ccc"]
    assert model.translate([]) == []

"""The example textgenrnn: a window is a window, Keras' arrays find their place."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

EXAMPLE = Path(__file__).parents[2] / "examples" / "textgenrnn"


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLE))
    return importlib.import_module


@pytest.fixture
def task(example, tmp_path):
    numbers = {character: i for i, character in enumerate("abcdefghijklmnopqrstuvwxyz ", start=1)} | {"<s>": 464}
    (tmp_path / "textgenrnn_vocab.json").write_text(json.dumps(numbers), encoding="utf-8")
    fortunes = [f"fortune of {letter * 30}\n\t\t-- Nobody\n" for letter in "abcdefghij"]
    (tmp_path / "fortunes.txt").write_text("%\n".join([*fortunes, "/_\\ (picture) /_\\\n"]), encoding="utf-8")
    return example("textgen_task").make(tmp_path)


def test_a_character_after_forty_is_told_from_forty_alone(example):
    """By the definition, position by position: softmax of the scores of the last forty, and their mean under it."""
    model = example("textgen_task").TextGenRNN()
    characters = torch.randint(1, 465, (2, 43))
    embedded = model.embedding(characters)
    first = model.rnn_1(embedded)[0]
    seen = torch.cat([embedded, first, model.rnn_2(first)[0]], dim=-1)
    expected = [
        model.output((seen[:, i : i + 40] * (seen[:, i : i + 40] @ model.attention.weight.T).softmax(dim=1)).sum(dim=1))
        for i in range(4)
    ]
    torch.testing.assert_close(model(characters), torch.stack(expected, dim=1))


def test_a_text_begins_with_zeros_and_ends_with_its_mark(task):
    assert task.encode("ab!").tolist() == [0] * 39 + [464, 1, 2, 0, 464]
    assert len(task.pieces) > 0
    assert {len(text) for split in task.splits.values() for text in split} == {39 + 2 + len("fortune of ") + 30}


def test_the_arrays_of_keras_fill_the_model(example):
    shapes = {
        "embedding/embeddings": (465, 100), "attention/attention_W": (356, 1), "output/kernel": (356, 465),
        "output/bias": (465,), "rnn_1/kernel": (100, 512), "rnn_2/kernel": (128, 512), "rnn_1/bias": (1024,),
        "rnn_1/recurrent_kernel": (128, 512), "rnn_2/recurrent_kernel": (128, 512), "rnn_2/bias": (1024,),
    }  # fmt: skip
    arrays = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    example("textgen_task").TextGenRNN().load_state_dict(example("convert").convert(arrays))

"""Vowel marks for bare Arabic letters: the network of the package arabic-diacritizer, as a user's own task.

    rnnprune finetune .cache/arabic_diacritizer/bilstm_best.pt \
        --task examples/arabic_diacritizer/diacritics_task.py:make --target 0.9

DER, the diacritic error rate: characters (spaces too) with a wrong mark, in percent. WER: words with any wrong mark.
The state dict's names and sizes are the package's; the model is written anew, in plain torch.nn, and without dropout,
since it is trained on for less than an epoch.

N sentences of one length, T characters, H = 256 units, C = 15 classes of marks.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CACHE = Path(".cache/arabic_diacritizer")
BATCH_CHARACTERS = 512  # of training; the attention takes memory for every pair of a sentence's characters
MARKS = "\u064b\u064c\u064d\u064e\u064f\u0650\u0651\u0652"
LETTERS = "ءآأؤإئابةتثجحخدذرزسشصضطظعغـفقكلمنهوي"
NUMBER = {character: 4 + i for i, character in enumerate(LETTERS + " .,،؛:؟!()-\"'\n")}  # before: pad, unknown, ends
UNKNOWN = 1
SHADDA = "\u0651"
PLAIN = ["", "\u064e", "\u064f", "\u0650", "\u0652", SHADDA, "\u064b", "\u064c", "\u064d"]
LABEL = {mark: i for i, mark in enumerate([*PLAIN, *(SHADDA + PLAIN[i] for i in (1, 2, 3, 6, 7, 8))])}

Batch = tuple[Tensor, Tensor]  # characters and labels, int64 [N, T]


class Sentence(NamedTuple):
    characters: list[int]
    labels: list[int]
    word: list[int]  # to which word a character belongs; spaces to none, -1


class Attention(nn.Module):
    """Additive: every character looks at every other, softmax(v tanh(W h_t + U h_s))."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.W, self.U = nn.Linear(units, units, bias=False), nn.Linear(units, units, bias=False)
        self.v = nn.Linear(units, 1, bias=False)

    def forward(self, states: Tensor) -> Tensor:
        pairs = torch.tanh(self.W(states).unsqueeze(2) + self.U(states).unsqueeze(1))  # [N, T, T, 2H]
        return self.v(pairs).squeeze(-1).softmax(dim=-1) @ states


class Diacritizer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(4 + len(NUMBER), 128, padding_idx=0)
        self.lstm = nn.LSTM(128, 256, num_layers=3, batch_first=True, bidirectional=True)
        self.attention = Attention(512)
        self.classifier = nn.Linear(512, len(LABEL))

    def forward(self, characters: Tensor) -> Tensor:
        """[N, T] -> logits [N, T, C]; without padding, which neither the LSTM nor the attention would see as such."""
        states, _ = self.lstm(self.embedding(characters))
        return self.classifier(self.attention(states))


class DiacriticsTask:
    metric, goal = "DER", "min"

    def __init__(self, folder: Path) -> None:
        with gzip.open(folder / "word_cache.json.gz", "rt", encoding="utf-8") as file:
            stored = json.load(file)["sentences"]
        self.splits: dict[str, list[Sentence]] = {"train": [], "validation": [], "test": []}
        for key, variants in stored.items():
            text = next(iter(variants.values()))
            if 30 <= len(text) <= 200 and (sentence := parse(text)) is not None:
                self.splits[split_of(key)].append(sentence)

    def build_model(self) -> Diacritizer:
        return Diacritizer()

    def train_batches(self, *, epoch: int, seed: int, rank: int, world_size: int) -> Sequence[Batch]:
        """Sentences of one length share a batch, so there is no padding; the batches come in random order."""
        shuffle = random.Random(f"{seed} {epoch}")
        sentences = self.splits["train"]
        order = sorted(range(len(sentences)), key=lambda i: (len(sentences[i].labels), shuffle.random()))
        batches = [stack(part) for part in batched((sentences[i] for i in order), BATCH_CHARACTERS)]
        shuffle.shuffle(batches)
        return batches[rank::world_size][: len(batches) // world_size]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        characters, labels = batch
        return F.cross_entropy(model(characters).flatten(0, 1), labels.flatten())

    def evaluate(self, model: nn.Module, split: str) -> Mapping[str, float]:
        device = next(model.parameters()).device
        errors = characters = wrong_words = words = 0
        for part in batched(sorted(self.splits[split], key=lambda s: len(s.labels)), 8 * BATCH_CHARACTERS):
            batch, labels = stack(part)
            wrong = model(batch.to(device)).argmax(dim=-1).cpu() != labels
            errors, characters = errors + int(wrong.sum()), characters + wrong.numel()
            for sentence, row in zip(part, wrong.tolist(), strict=True):
                wrong_words += len({w for w, is_wrong in zip(sentence.word, row, strict=True) if is_wrong} - {-1})
                words += len(set(sentence.word) - {-1})
        return {"DER": 100 * errors / characters, "WER": 100 * wrong_words / words}


def make(data: Path | None = None) -> DiacriticsTask:
    return DiacriticsTask(data or CACHE)


def parse(text: str) -> Sentence | None:
    """Base characters and the marks on each, shadda first; None for marks that the network has no class for."""
    characters, marks = [], []
    for character in unicodedata.normalize("NFKC", text):
        if character in MARKS and marks:
            marks[-1] += character
        else:
            characters.append(character)
            marks.append("")
    marks = [SHADDA + mark.replace(SHADDA, "") if SHADDA in mark else mark for mark in marks]
    if not set(marks) <= set(LABEL):
        return None
    word = [-1 if c.isspace() else sum(map(str.isspace, characters[:i])) for i, c in enumerate(characters)]
    return Sentence([NUMBER.get(c, UNKNOWN) for c in characters], [LABEL[mark] for mark in marks], word)


def split_of(key: str) -> str:
    return {0: "test", 1: "validation"}.get(int(hashlib.sha256(key.encode()).hexdigest(), 16) % 50, "train")


def batched(sentences: Iterable[Sentence], characters: int) -> list[list[Sentence]]:
    """Neighbours of one length, as many as come to about this many characters."""
    parts = []
    for length, group in groupby(sentences, key=lambda sentence: len(sentence.labels)):
        alike, size = list(group), max(1, characters // length)
        parts += [alike[i : i + size] for i in range(0, len(alike), size)]
    return parts


def stack(sentences: Sequence[Sentence]) -> Batch:
    return torch.tensor([s.characters for s in sentences]), torch.tensor([s.labels for s in sentences])

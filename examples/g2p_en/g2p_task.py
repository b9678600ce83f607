"""How an English word is pronounced: letters in, phonemes out. A user's own task for rnnprune.

    rnnprune finetune .cache/g2p_en/g2p.pt --task examples/g2p_en/g2p_task.py:make --target 0.9

PER, the phoneme error rate: insertions, deletions and substitutions between the greedy pronunciation and the
dictionary's, in percent of the dictionary's phonemes. WER: the percentage of words with any error. Of several
pronunciations of a word the nearest one counts; all are in the split that a hash of the spelling gives the word.

N words in a batch, L letters and P phonemes with their end marks, H = 256 units.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnnprune.tasks.seq2seq.scores import edit_distance

CACHE = Path(".cache/g2p_en")
BATCH_SIZE = 32
HIDDEN = 256
MAX_PHONEMES = 20  # where the package's own decoder gives up
LETTERS = ["<pad>", "<unk>", "</s>", *"abcdefghijklmnopqrstuvwxyz"]
PAD, END_LETTER, START, END = 0, 2, 2, 3  # the first phonemes are <pad>, <unk>, <s>, </s>

Pronunciations = dict[str, list[list[int]]]  # of each word one or several, as numbers of phonemes, no marks
Batch = tuple[Tensor, Tensor]  # letters [N, L] and phonemes [N, P], int64, with their end marks, padded


class Speller(nn.Module):
    """A GRU reads the word; from its last state a second GRU tells the phonemes."""

    def __init__(self, phonemes: int) -> None:
        super().__init__()
        self.letter_embedding = nn.Embedding(len(LETTERS), HIDDEN)
        self.phoneme_embedding = nn.Embedding(phonemes, HIDDEN)
        self.encoder = nn.GRU(HIDDEN, HIDDEN, batch_first=True)
        self.decoder = nn.GRU(HIDDEN, HIDDEN, batch_first=True)
        self.output = nn.Linear(HIDDEN, phonemes)

    def encode(self, letters: Tensor) -> Tensor:
        """The state [1, N, H] at each word's own end mark: what the GRU makes of the padding after it is not used."""
        states: Tensor = self.encoder(self.letter_embedding(letters))[0]
        end = (letters != PAD).sum(dim=1) - 1
        return states[torch.arange(len(letters)), end].unsqueeze(0)

    def decode(self, phonemes: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [N, P, phonemes] of the phoneme after each one given, and the last state [1, N, H]."""
        states, state = self.decoder(self.phoneme_embedding(phonemes), state)
        return self.output(states), state

    def forward(self, letters: Tensor, phonemes: Tensor) -> Tensor:
        """Teacher forcing: logits of every phoneme, given the true ones before it."""
        before = F.pad(phonemes[:, :-1], (1, 0), value=START)
        return self.decode(before, self.encode(letters))[0]

    def pronounce(self, letters: Tensor) -> list[list[int]]:
        """The greedy pronunciation of every word, until all have ended."""
        state, phoneme = self.encode(letters), torch.full_like(letters[:, :1], START)
        spoken, ended = [phoneme], torch.zeros_like(phoneme, dtype=torch.bool)
        while len(spoken) <= MAX_PHONEMES and not ended.all():
            logits, state = self.decode(phoneme, state)
            phoneme = logits.argmax(dim=-1)
            ended |= phoneme == END
            spoken.append(phoneme)
        words = torch.cat(spoken[1:], dim=1).tolist()
        return [word[: word.index(END)] if END in word else word for word in words]


class PronunciationTask:
    metric, goal = "PER", "min"

    def __init__(self, folder: Path) -> None:
        data = json.loads((folder / "words.json").read_text(encoding="utf-8"))
        self.phonemes = data["phonemes"]
        self.splits: dict[str, Pronunciations] = {"train": {}, "validation": {}, "test": {}}
        for word, references in data["words"].items():
            self.splits[split_of(word)][word] = references
        pairs = [(word, reference) for word, references in self.splits["train"].items() for reference in references]
        self.sizes = [(len(word), len(reference)) for word, reference in pairs]
        self.letters = spell([word for word, _ in pairs])
        self.targets = pad([[*reference, END] for _, reference in pairs])

    def build_model(self) -> Speller:
        return Speller(len(self.phonemes))

    def train_batches(self, *, epoch: int, seed: int, rank: int, world_size: int) -> Sequence[Batch]:
        """Words of one size share a batch, so hardly any padding is computed; the batches come in random order."""
        shuffle = random.Random(f"{seed} {epoch}")
        order = sorted(range(len(self.sizes)), key=lambda i: (self.sizes[i], shuffle.random()))
        batches = [order[i : i + BATCH_SIZE] for i in range(0, len(order) - BATCH_SIZE + 1, BATCH_SIZE)]
        shuffle.shuffle(batches)
        share = len(batches) // world_size  # every process takes equally many steps
        return [(trim(self.letters[b]), trim(self.targets[b])) for b in batches[rank::world_size][:share]]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        letters, phonemes = batch
        return F.cross_entropy(model(letters, phonemes).flatten(0, 1), phonemes.flatten(), ignore_index=PAD)

    def evaluate(self, model: Speller, split: str) -> Mapping[str, float]:
        words = sorted(self.splits[split], key=len)
        letters = spell(words).to(next(model.parameters()).device)
        guesses = [guess for part in torch.split(letters, 256) for guess in model.pronounce(trim(part))]
        scores = [score(guess, self.splits[split][word]) for guess, word in zip(guesses, words, strict=True)]
        edits, phonemes = (sum(column) for column in zip(*scores, strict=True))
        return {"PER": 100 * edits / phonemes, "WER": 100 * sum(e > 0 for e, _ in scores) / len(words)}


def make(data: Path | None = None) -> PronunciationTask:
    return PronunciationTask(data or CACHE)


def split_of(word: str) -> str:
    part = int(hashlib.sha256(word.encode()).hexdigest(), 16) % 42
    return {0: "test", 1: "validation"}.get(part, "train")  # 2,799, 2,870 and 111,824 words


def spell(words: list[str]) -> Tensor:
    return pad([[*map(LETTERS.index, word), END_LETTER] for word in words])


def pad(sequences: list[list[int]]) -> Tensor:
    return torch.from_numpy(np.array(list(zip_longest(*sequences, fillvalue=PAD))).T.copy())


def trim(padded: Tensor) -> Tensor:
    return padded[:, : int((padded != PAD).sum(dim=1).max())]


def score(guess: list[int], references: list[list[int]]) -> tuple[int, int]:
    """Edits to the nearest reference, and that reference's length."""
    return min((edit_distance(guess, reference), len(reference)) for reference in references)

"""The next character of a fortune, by textgenrnn's network. A user's own task for rnnprune.

    rnnprune finetune .cache/textgenrnn/textgenrnn.pt --task examples/textgenrnn/textgen_task.py:make --target 0.9

bpc, bits per character: minus the base-2 logarithm of the probability that the network gives the true next character,
mean over every character of the split's fortunes and the mark at the end of each. As in the package, the network sees
the 40 characters before, no more, and zeros where the text has not begun.

N texts in a batch, T characters, W = 40 characters of context, C = 465 characters known, 0 for all others.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CACHE = Path(".cache/textgenrnn")
CHARACTERS, EMBEDDED, HIDDEN, WINDOW = 465, 100, 128, 40
OTHER = 0  # a character that is not known, and what stands before the text
MARK = "<s>"  # begins and ends every text
BATCH_SIZE, TRAINED = 32, 12  # pieces in a batch, and of each the characters to be told

Batch = Tensor  # characters [N, W + TRAINED], int64


class TextGenRNN(nn.Module):
    """Two LSTMs; of the last W characters, their embedding and both states are averaged by attention."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(CHARACTERS, EMBEDDED)
        self.rnn_1 = nn.LSTM(EMBEDDED, HIDDEN, batch_first=True)
        self.rnn_2 = nn.LSTM(HIDDEN, HIDDEN, batch_first=True)
        self.attention = nn.Linear(EMBEDDED + 2 * HIDDEN, 1, bias=False)
        self.output = nn.Linear(EMBEDDED + 2 * HIDDEN, CHARACTERS)

    def forward(self, characters: Tensor) -> Tensor:
        """[N, T] -> logits [N, T - W + 1, C] of the character after each W in a row; the states run through all T."""
        embedded = self.embedding(characters)
        first = self.rnn_1(embedded)[0]
        seen = torch.cat([embedded, first, self.rnn_2(first)[0]], dim=-1)
        steps = torch.arange(characters.shape[1], device=characters.device)
        age = steps[WINDOW - 1 :, None] - steps  # [T - W + 1, T]
        scores = self.attention(seen).mT.masked_fill((age < 0) | (age >= WINDOW), -math.inf)
        logits: Tensor = self.output(scores.softmax(dim=-1) @ seen)
        return logits


class FortuneTask:
    metric, goal = "bpc", "min"

    def __init__(self, folder: Path) -> None:
        self.numbers = json.loads((folder / "textgenrnn_vocab.json").read_text(encoding="utf-8"))
        self.splits: dict[str, list[Tensor]] = {"train": [], "validation": [], "test": []}
        for text in read_fortunes(folder / "fortunes.txt"):
            self.splits[split_of(text)].append(self.encode(text))
        texts = [F.pad(text, (0, -(len(text) - WINDOW) % TRAINED)) for text in self.splits["train"]]
        self.pieces = torch.cat([text.unfold(0, WINDOW + TRAINED, TRAINED) for text in texts])

    def encode(self, text: str) -> Tensor:
        """W - 1 zeros, a mark, the text, a mark: so each character to be told has W before it."""
        known = [self.numbers.get(character, OTHER) for character in text]
        return torch.tensor([*[OTHER] * (WINDOW - 1), self.numbers[MARK], *known, self.numbers[MARK]])

    def build_model(self) -> TextGenRNN:
        return TextGenRNN()

    def train_batches(self, *, epoch: int, seed: int, rank: int, world_size: int) -> Sequence[Batch]:
        order = list(range(len(self.pieces)))
        random.Random(f"{seed} {epoch}").shuffle(order)
        batches = [order[i : i + BATCH_SIZE] for i in range(0, len(order) - BATCH_SIZE + 1, BATCH_SIZE)]
        share = len(batches) // world_size  # every process takes equally many steps
        return [self.pieces[b] for b in batches[rank::world_size][:share]]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Of TRAINED characters at once, which costs a tenth of as many windows. For the last ones the states have run
        for W + TRAINED - 1 characters: the network bears up to about 55, at 80 it would be off by a bit."""
        logits = model(batch[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1), batch[:, WINDOW:].flatten(), ignore_index=OTHER)

    def evaluate(self, model: nn.Module, split: str) -> Mapping[str, float]:
        device = next(model.parameters()).device
        nats = characters = 0.0
        for part in windows(self.splits[split]):
            window, told = part[:, :-1].to(device), part[:, -1].to(device)
            nats += F.cross_entropy(model(window)[:, -1], told, ignore_index=OTHER, reduction="sum").item()
            characters += int((told != OTHER).sum())
        return {"bpc": nats / characters / math.log(2)}


def make(data: Path | None = None) -> FortuneTask:
    return FortuneTask(data or CACHE)


def read_fortunes(source: Path) -> list[str]:
    """One line per fortune, for the network knows no line break; without attribution, and without pictures."""
    texts = re.split(r"^%\n", source.read_text(encoding="utf-8", errors="replace"), flags=re.MULTILINE)
    lines = {re.sub(r"\s+", " ", re.split(r"\n\s*-- ", text)[0]).strip() for text in texts}
    return sorted(line for line in lines if sum(c.isalpha() or c == " " for c in line) > 0.75 * len(line))


def split_of(text: str) -> str:
    part = int(hashlib.sha256(text.encode()).hexdigest(), 16) % 300
    return {0: "test", 3: "validation"}.get(part, "train")


def windows(texts: Sequence[Tensor]) -> Iterator[Tensor]:
    """[512 or fewer, W + 1]: the characters before, and the one to be told."""
    yield from torch.cat([text.unfold(0, WINDOW + 1, 1) for text in texts]).split(512)

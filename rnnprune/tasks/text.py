"""One text file as a corpus: read, cut into tokens, split 90 / 5 / 5 by position, numbered, and cut for training.

Character level: a token is one Unicode character, line ends included. Word level: a token is what stands between white
space, and `<eos>` at every line end. CRLF and CR count as one line end; a byte order mark is dropped.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int32, Int64
from torch import Tensor

from rnnprune.errors import InputRefused, UsageError
from rnnprune.tasks.options import Level

UNKNOWN, END_OF_LINE = "<unk>", "<eos>"
SPECIAL: dict[Level, tuple[str, ...]] = {"char": (UNKNOWN,), "word": (UNKNOWN, END_OF_LINE)}
SEGMENT = 4096  # tokens scored from one fresh state; part of the metric's definition, so never tuned for speed
IGNORED = -100  # the target that torch's cross entropy leaves out
UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # byte order marks
UNIT: dict[Level, str] = {"char": "characters", "word": "words"}


class Text(NamedTuple):
    """A decoded file; `sha256` is the fingerprint of its bytes, before line ends are made alike."""

    path: Path
    content: str
    sha256: str


class Splits(NamedTuple):
    """The three contiguous parts of a token sequence."""

    train: Sequence[str]
    validation: Sequence[str]
    test: Sequence[str]


@dataclass(frozen=True)
class Corpus:
    """The splits of one text as vocabulary indices, and where the text came from."""

    path: str
    sha256: str
    train: Int32[Tensor, " train"]
    validation: Int32[Tensor, " validation"]
    test: Int32[Tensor, " test"]


def read_text(path: Path) -> Text:
    """Read a UTF-8 file.

    Raises UsageError when there is no such file, InputRefused when its bytes are not UTF-8.
    """
    if not path.is_file():
        found = "is not a regular file" if path.exists() else "does not exist"
        raise UsageError(f"{path}: {found}; pass one UTF-8 text file as --data")
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); pass a readable text file as --data") from error
    try:
        content = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        if b"\0" in raw and raw[:2] not in UTF_16:
            raise InputRefused(f"{path}: not a text file, it holds zero bytes; pass UTF-8 text as --data") from error
        encoding = "utf-16" if raw[:2] in UTF_16 else "latin1"
        raise InputRefused(
            f"{path}: the byte 0x{raw[error.start]:02x} at offset {error.start} is not UTF-8; "
            f"convert the file first, for example `iconv -f {encoding} -t utf-8 {path.name} > utf8.txt`"
        ) from error
    content = content.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    return Text(path, content, hashlib.sha256(raw).hexdigest())


def tokenize(content: str, level: Level) -> Sequence[str]:
    """The tokens in order; at character level the string itself, which is a sequence of its characters."""
    if level == "char":
        return content
    lines = content.split("\n")  # not splitlines(), which also cuts at form feeds and U+2028
    if not lines[-1]:
        lines.pop()  # the file ended with a line end: nothing follows it
    return [token for line in lines for token in (*line.split(), END_OF_LINE)]


def split_by_position(tokens: Sequence[str]) -> Splits:
    """The first 90 % for training, the next 5 % for validation, the last 5 % for the test."""
    validation_start, test_start = len(tokens) * 90 // 100, len(tokens) * 95 // 100
    return Splits(tokens[:validation_start], tokens[validation_start:test_start], tokens[test_start:])


def build_vocabulary(train: Sequence[str], level: Level, limit: int) -> tuple[str, ...]:
    """`<unk>` first, then every character by code point, or `<eos>` and the `limit` most frequent words.

    Words of equal frequency keep the order in which they first appear, so the same text gives the same vocabulary.
    """
    special = SPECIAL[level]
    if level == "char":
        return (*special, *sorted(set(train)))
    counts = Counter(train)
    for token in special:
        del counts[token]  # a text may spell out <unk>: it is the same token, not a second one
    return (*special, *(word for word, _ in counts.most_common(limit)))


def encode(tokens: Sequence[str], vocabulary: Sequence[str]) -> Int32[Tensor, " tokens"]:
    """Every token's place in the vocabulary; 0, `<unk>`, for tokens that have none."""
    place = {token: index for index, token in enumerate(vocabulary)}
    indices = np.fromiter(map(place.get, tokens, itertools.repeat(0)), dtype=np.int32, count=len(tokens))
    return torch.from_numpy(indices)


def build_corpus(text: Text, splits: Splits, vocabulary: Sequence[str]) -> Corpus:
    """The splits of a text, numbered."""
    return Corpus(text.path.as_posix(), text.sha256, *(encode(part, vocabulary) for part in splits))


def refuse_short(corpus: Corpus, length: int, level: Level) -> None:
    """Raise InputRefused unless every split holds a token to score, and the training split a window of length + 1."""
    found = len(corpus.train) + len(corpus.validation) + len(corpus.test)
    needed = max(40, math.ceil((length + 1) * 10 / 9))  # 5 % of 40: one token to read, one to score
    if found < needed:
        unit = UNIT[level]
        raise InputRefused(
            f"{corpus.path}: {found} {unit} are too few to train and score on; for windows of {length} {unit} "
            f"at least {needed} are needed: use a longer text or a shorter sequence length"
        )


@dataclass(frozen=True)
class WindowBatches:
    """Windows of consecutive tokens, cut out batch by batch. Sized; may be iterated any number of times.

    starts: the first token of every window, [batches, batch].
    window: tokens per window, the inputs and one more.
    """

    tokens: Int32[Tensor, " tokens"]
    starts: Int64[Tensor, "batches batch"]
    window: int

    def __len__(self) -> int:
        return len(self.starts)

    def __iter__(self) -> Iterator[Int64[Tensor, "batch window"]]:
        windows = self.tokens.unfold(0, self.window, 1)
        return (windows[starts].long() for starts in self.starts)


class StreamBatch(NamedTuple):
    """Windows that go on where those of the batch before ended; place 0 begins an epoch."""

    place: int
    windows: Int64[Tensor, "batch window"]


@dataclass(frozen=True)
class StreamBatches:
    """Windows in the order of the text, each batch with its place. Sized; may be iterated any number of times."""

    batches: WindowBatches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[StreamBatch]:
        return itertools.starmap(StreamBatch, enumerate(self.batches))


def window_starts(
    tokens: Int32[Tensor, " tokens"], length: int, epoch: int, seed: int, *, shuffled: bool
) -> Int64[Tensor, " windows"]:
    """Where one epoch's windows of length + 1 tokens start, in random order or in that of the text.

    The windows tile the text from a random offset on, so that their borders differ from epoch to epoch; their number is
    the same in every epoch.
    """
    count = max(1, len(tokens) // length - 1)
    random = np.random.default_rng((seed, epoch))
    offset = random.integers(min(length, len(tokens) - count * length))
    return torch.from_numpy(offset + length * (random.permutation(count) if shuffled else np.arange(count)))


class Segments(NamedTuple):
    """A text in rows that are scored independently; targets past its end are IGNORED."""

    inputs: Int64[Tensor, "segments time"]
    targets: Int64[Tensor, "segments time"]


def segments_of(tokens: Int32[Tensor, " tokens"]) -> Segments:
    """Cut a split at fixed places, every SEGMENT tokens, so that its score does not depend on the batch size."""
    transitions = len(tokens) - 1
    time = min(SEGMENT, transitions)
    rows = math.ceil(transitions / time)
    padding = (0, rows * time - transitions)
    inputs = F.pad(tokens[:-1].long(), padding, value=0)
    targets = F.pad(tokens[1:].long(), padding, value=IGNORED)
    return Segments(inputs.view(rows, time), targets.view(rows, time))

"""Pairs of texts from one file: a source, a tab, a target on every line; which split a source belongs to.

UTF-8, a byte order mark is dropped, white space around a text too. A source may stand on several lines, with other
targets: all of them are in the split that a hash of the source gives it, so that no source is trained and scored on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rnnprune.errors import InputRefused, UsageError, printable
from rnnprune.tasks.source import sha256_of

TOLD = 5  # bad lines that a message names
PARTS = 20  # one for the test, one for validation, the rest for training
References = Mapping[str, Sequence[str]]  # every source's targets


class Pair(NamedTuple):
    """Two texts that mean the same."""

    source: str
    target: str


class BadLine(NamedTuple):
    """A line that holds no pair; `number` from 1."""

    number: int
    problem: str


@dataclass(frozen=True)
class Corpus:
    """The pairs of one file in their splits; `notes`: what was left out of it."""

    path: str
    sha256: str
    train: Sequence[Pair]
    validation: References
    test: References
    notes: tuple[str, ...] = ()


def read_corpus(path: Path, *, skip_bad: bool) -> Corpus:
    """Read a file of pairs.

    Raises UsageError when there is no such file; InputRefused for lines without a pair (unless skip_bad: then a note
    counts and lists them), and for so few pairs that a split stays empty.
    """
    sha256 = sha256_of(path)
    pairs, bad = _parse(path)
    if bad and not skip_bad:
        raise InputRefused(f"{path}:{_listed(bad)}; correct the file, or pass --skip-bad to leave such lines out")
    splits: dict[str, list[Pair]] = {"train": [], "validation": [], "test": []}
    for pair in pairs:
        splits[split_of(pair.source)].append(pair)
    if empty := [name for name, found in splits.items() if not found]:
        raise InputRefused(f"{path}: {len(pairs)} pairs are too few, none fell into {' and '.join(empty)}; use more")
    notes = (f"{len(bad)} of {len(pairs) + len(bad)} lines left out: {path}:{_listed(bad)}",) if bad else ()
    held_out = (_references(splits["validation"]), _references(splits["test"]))
    return Corpus(path.as_posix(), sha256, splits["train"], *held_out, notes)


def split_of(source: str) -> str:
    """By a hash of the text: the same in every file, order and year."""
    part = int.from_bytes(hashlib.sha256(source.encode()).digest()) % PARTS
    return {0: "test", 1: "validation"}.get(part, "train")


def _parse(path: Path) -> tuple[list[Pair], list[BadLine]]:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); pass a readable file as --data") from error
    lines = raw.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if not lines[-1]:
        lines.pop()  # the file ended with a line end: nothing follows it
    pairs, bad = [], []
    for number, line in enumerate(lines, start=1):
        found = _pair(line)
        if isinstance(found, str):
            bad.append(BadLine(number, found))
        else:
            pairs.append(found)
    return pairs, bad


def _pair(line: bytes) -> Pair | str:
    """The pair of one line, or what is wrong with it."""
    try:
        columns = [column.strip() for column in line.decode("utf-8").split("\t")]
    except UnicodeDecodeError as error:
        return f"the byte 0x{line[error.start]:02x} is not UTF-8"
    if len(columns) != 2:
        shown = printable(" | ".join(columns), 40)
        return f"expected source, tab, target; found {len(columns) - 1} tabs in {shown!r}"
    if not all(columns):
        return f"the {'target' if columns[0] else 'source'} is empty"
    return Pair(*columns)


def _listed(bad: Sequence[BadLine]) -> str:
    """`4: the target is empty; line 9: ...`, to follow `path:`."""
    told = "; line ".join(f"{number}: {problem}" for number, problem in bad[:TOLD])
    return f"{told} (and {len(bad) - TOLD} more)" if len(bad) > TOLD else told


def _references(pairs: Sequence[Pair]) -> References:
    found: dict[str, dict[str, None]] = {}
    for source, target in pairs:
        found.setdefault(source, {})[target] = None
    return {source: tuple(targets) for source, targets in found.items()}

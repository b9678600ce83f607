"""The utterances of a manifest as features and labels: checked, split by text, kept in memory as far as they fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from rnnprune.errors import InputRefused
from rnnprune.tasks.ctc.audio import read_audio
from rnnprune.tasks.ctc.features import log_mel
from rnnprune.tasks.ctc.manifest import BadLine, Utterance, left_out, read_manifest, split_of
from rnnprune.tasks.ctc.model import BLANK, MAX_RATE, CtcModelSpec
from rnnprune.tasks.source import sha256_of

ROOM = 2**31  # bytes of features that stay in memory (37 hours at 40 mels); those beyond are computed when needed
LOWEST_RATE = 4_000


class Features:
    """Log-mel features of audio files, computed once as long as they fit into memory."""

    def __init__(self, mels: int, room: int = ROOM) -> None:
        self.mels, self.room = mels, room
        self._kept: dict[Path, tuple[Float32[Tensor, "frames mels"], int]] = {}

    def read(self, audio: Path) -> tuple[Float32[Tensor, "frames mels"], int]:
        """Features and sample rate. Raises InputRefused for a file that gives none."""
        if audio in self._kept:
            return self._kept[audio]
        samples, rate = read_audio(audio)
        if not LOWEST_RATE <= rate <= MAX_RATE:
            raise InputRefused(f"{audio}: {rate} samples a second, expected {LOWEST_RATE:,} to {MAX_RATE:,}")
        features = log_mel(samples, rate, self.mels)
        if not torch.isfinite(features).all():
            raise InputRefused(f"{audio}: its features are not finite; are the samples between -1 and 1?")
        if features.nbytes <= self.room:
            self.room -= features.nbytes
            self._kept[audio] = features, rate
        return features, rate


class Item(NamedTuple):
    """One usable utterance, the length of its features, and its characters as numbers of labels."""

    audio: Path
    text: str
    frames: int
    targets: Int64[Tensor, " targets"]


@dataclass(frozen=True)
class Corpus:
    """A manifest's usable utterances by split, and where they came from.

    splits: "train", "validation" and "test". notes: what was left out.
    """

    path: str
    sha256: str
    splits: Mapping[str, list[Item]]
    features: Features
    notes: tuple[str, ...] = ()


def read_corpus(path: Path, spec: CtcModelSpec, *, skip_bad: bool = False) -> tuple[Corpus, CtcModelSpec]:
    """Read a manifest and all its audio.

    A spec without labels comes back with those of the manifest, and with the sample rate that most files have. Raises
    UsageError when there is no such manifest, InputRefused for lines that cannot be used (unless skip_bad) and for a
    split without any utterance.
    """
    sha256 = sha256_of(path)
    utterances, bad = read_manifest(path)
    features = Features(spec.mels)
    heard: list[tuple[Utterance, int, int]] = []
    for utterance in utterances:
        try:
            found, rate = features.read(utterance.audio)
        except InputRefused as error:
            bad.append(BadLine(utterance.line, str(error)))
        else:
            heard.append((utterance, len(found), rate))
    if heard and not spec.labels:
        (rate, _), *_ = Counter(rate for *_, rate in heard).most_common(1)
        spec = replace(spec, sample_rate=rate, labels=labels_of(u.text for u, _, found in heard if found == rate))
    splits: dict[str, list[Item]] = {"train": [], "validation": [], "test": []}
    numbers = {label: number for number, label in enumerate(spec.labels)}
    for utterance, frames, rate in heard:
        if (reason := _problem(utterance, frames, rate, spec)) is not None:
            bad.append(BadLine(utterance.line, reason))
            continue
        targets = torch.tensor([numbers[character] for character in utterance.text])
        splits[split_of(utterance.text) or "train"].append(Item(utterance.audio, utterance.text, frames, targets))
    notes = left_out(path, bad, len(bad) + sum(map(len, splits.values())), skip=skip_bad)
    for name, items in splits.items():
        if not items:
            raise InputRefused(
                f"{path}: no utterance falls into the split {name!r}, which a hash of the text decides; "
                "a few dozen different texts are needed"
            )
    return Corpus(path.as_posix(), sha256, splits, features, notes), spec


def labels_of(texts: Iterable[str]) -> tuple[str, ...]:
    """The blank, then every character of the texts by code point."""
    return (BLANK, *sorted(set().union(*texts)))


def frames_needed(text: Sequence[object]) -> int:
    """The fewest frames in which CTC can spell a text: one a character, and a blank between two that are alike."""
    return len(text) + sum(a == b for a, b in pairwise(text))


def _problem(utterance: Utterance, frames: int, rate: int, spec: CtcModelSpec) -> str | None:
    """Why an utterance does not fit the model, or None."""
    if rate != spec.sample_rate:
        name = utterance.audio.name
        return (
            f"{utterance.audio}: {rate} samples a second, expected {spec.sample_rate}; "
            f"convert it: `sox {name} -r {spec.sample_rate} new/{name}`"
        )
    if unknown := sorted(set(utterance.text) - set(spec.labels[1:])):
        return f"the model has no label for {', '.join(map(repr, unknown))}"
    left, needed = -(-frames // spec.stride), max(2, frames_needed(utterance.text))  # batch norm needs two
    if left < needed:
        return (
            f"{utterance.audio}: {frames} frames of 10 ms, {left} behind the model's stride of {spec.stride}, "
            f"are too few for the {len(utterance.text)} characters of its transcript, which need {needed}"
        )
    return None

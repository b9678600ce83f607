"""A data file read, checked, split and numbered for `tag` and `classify`.

T steps, F features.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from rnnprune.errors import InputRefused
from rnnprune.tasks.source import sha256_of
from rnnprune.tasks.tag.items import BadItem, Frames, Item, SplitName, left_out, split_of
from rnnprune.tasks.tag.lines import read_lines
from rnnprune.tasks.tag.model import SequenceModelSpec
from rnnprune.tasks.tag.tensors import read_tensors
from rnnprune.tasks.text import UNKNOWN

Spec = TypeVar("Spec", bound=SequenceModelSpec)


class Numbered(NamedTuple):
    """One item as numbers: tokens int64 [T] or frames float32 [T, F]; labels int64 [T], or [1] for the whole."""

    inputs: NDArray[np.int64] | Frames
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class LabelledFile:
    """What a file holds, sorted into what can be used and what cannot yet be numbered. total: items, bad ones too."""

    path: Path
    sha256: str
    items: list[Item]
    bad: list[BadItem]
    total: int

    def shape(self) -> str:
        """What most steps are: `tokens`, `13 features`; of as many the first."""
        return Counter(item.shape for item in self.items).most_common(1)[0][0]


@dataclass(frozen=True)
class Corpus:
    """The splits as numbers and where they came from. notes: what was left out."""

    path: str
    sha256: str
    splits: Mapping[SplitName, list[Numbered]]
    notes: tuple[str, ...]


def read_file(path: Path, spec: SequenceModelSpec, *, per_step: bool) -> LabelledFile:
    """Raises UsageError when there is no such file, InputRefused when it is damaged or holds no item."""
    sha256 = sha256_of(path)
    if path.suffix == ".safetensors":
        items, bad = read_tensors(path, per_step=per_step)
    else:
        items, bad = read_lines(path, spec.level, per_step=per_step)
    if not items:
        found = f"; {bad[0].where}: {bad[0].reason}" if bad else ""
        raise InputRefused(f"{path}: there is no item in it that can be used{found}")
    return LabelledFile(path, sha256, items, bad, len(items) + len(bad))


def fill_spec(spec: Spec, file: LabelledFile, vocab: int) -> Spec:
    """The spec of a new model: features or vocabulary, and labels, all from the training split.

    vocab: how many of the most frequent tokens to keep beside `<unk>`; of equally frequent ones the first.
    """
    shape = file.shape()
    train = [item for item in file.items if split_of(item) == "train" and item.shape == shape]
    labels = tuple(sorted({label for item in train for label in item.labels}, key=_by_number))
    if len(labels) < 2:
        found = f"only the label {labels[0]!r}" if labels else "no item"
        raise InputRefused(f"{file.path}: the training split holds {found}; at least two labels are needed")
    if shape != "tokens":
        return replace(spec, features=int(shape.split()[0]), vocabulary=(), labels=labels)
    counts = Counter(token for item in train for token in item.inputs)
    del counts[UNKNOWN]  # a text may spell it out: it is the same token, not a second one
    vocabulary = (UNKNOWN, *(str(token) for token, _ in counts.most_common(vocab)))
    return replace(spec, features=0, vocabulary=vocabulary, labels=labels)


def build_corpus(file: LabelledFile, spec: SequenceModelSpec, *, skip_bad: bool) -> Corpus:
    """Number the items. Raises InputRefused for what cannot be used, unless `skip_bad`, and for an empty split."""
    shape = f"{spec.features} features" if spec.features else "tokens"
    token_of = {token: number for number, token in enumerate(spec.vocabulary)}
    label_of = {label: number for number, label in enumerate(spec.labels)}
    splits: dict[SplitName, list[Numbered]] = {"train": [], "validation": [], "test": []}
    bad = list(file.bad)
    for item in file.items:
        if (reason := _problem(item, shape, label_of)) is not None:
            bad.append(BadItem(item.where, reason))
            continue
        labels = np.array([label_of[label] for label in item.labels])
        splits[split_of(item)].append(Numbered(_numbered(item, token_of), labels))
    notes = left_out(file.path, bad, file.total, skip=skip_bad)
    for split, items in splits.items():
        if not items:
            raise InputRefused(
                f"{file.path}: no item for the split {split!r}; use more data, or give every item a split of its own"
            )
    return Corpus(file.path.as_posix(), file.sha256, splits, notes)


def feature_scale(items: Sequence[Numbered]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and one over the standard deviation of every feature, [F]; 1 for a feature that is constant."""
    frames = np.concatenate([item.inputs for item in items])
    mean, deviation = frames.mean(axis=0, dtype=np.float64), frames.std(axis=0, dtype=np.float64)
    constant = deviation <= 1e-6 * np.maximum(1.0, np.abs(mean))
    scale = 1.0 / np.where(constant, 1.0, deviation)
    return mean.astype(np.float32), scale.astype(np.float32)


def _problem(item: Item, shape: str, label_of: Mapping[str, int]) -> str | None:
    if item.shape != shape:
        return f"steps of {item.shape}: expected {shape}"
    unknown = next((label for label in item.labels if label not in label_of), None)
    if unknown is not None:
        return f"the label {unknown!r:.40} is not among the {len(label_of)} that the model knows"
    return None


def _numbered(item: Item, token_of: Mapping[str, int]) -> NDArray[np.int64] | Frames:
    if isinstance(item.inputs, np.ndarray):
        return item.inputs
    return np.array([token_of.get(token, 0) for token in item.inputs])


def _by_number(label: str) -> tuple[bool, int, str]:
    """10 after 9, and names after numbers."""
    is_number = label.isascii() and label.isdigit()
    return (not is_number, int(label) if is_number else 0, label)

"""Items as lines of text: TSV of tokens and labels, or JSONL that also knows frames.

TSV: `the cat sat<TAB>DT NN VB` with a label for every token, or `the cat sat<TAB>animals` with one for the line; a
third column may hold the split. JSONL: an object with `tokens` (a list), `text` or `features` (rows, or the path of an
.npy file beside this one); `labels` (a list) or `label`; and, where they are known, `key` and `split`. Empty lines do
not count.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnnprune.errors import InputRefused
from rnnprune.tasks.options import Level
from rnnprune.tasks.tag.items import BadItem, Frames, Item, parse_frames, parse_split, require_lengths

INPUTS = ("tokens", "text", "features")


def read_lines(path: Path, level: Level, *, per_step: bool) -> tuple[list[Item], list[BadItem]]:
    """Every line, sorted into what can be used and what cannot.

    level: whether a text is cut into words at white space, or into characters. Raises InputRefused unless the file is
    UTF-8.
    """
    try:
        content = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputRefused(f"{path}: the byte at offset {error.start} is not UTF-8; convert the file first") from error
    items: list[Item] = []
    bad: list[BadItem] = []
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"line {number}"
        try:
            read = _from_json if line.lstrip().startswith("{") else _from_tsv
            item = read(line.rstrip("\r"), where, level, path.parent, per_step)
            require_lengths(item.inputs, item.labels, per_step=per_step)
        except ValueError as error:
            bad.append(BadItem(where, str(error)))
        else:
            items.append(item)
    return items, bad


def cut(text: str, level: Level) -> tuple[str, ...]:
    """The text's tokens."""
    return tuple(text.split()) if level == "word" else tuple(text)


def _from_tsv(line: str, where: str, level: Level, _: Path, per_step: bool) -> Item:
    columns = line.split("\t")
    if len(columns) not in (2, 3):
        raise ValueError(f"expected text, tab, label{'s' if per_step else ''} and perhaps a split, found {line!r:.60}")
    labels = tuple(columns[1].split()) if per_step else (columns[1].strip(),)
    return Item(where, cut(columns[0], level), _named(labels), split=parse_split((*columns, None)[2]))


def _from_json(line: str, where: str, level: Level, folder: Path, per_step: bool) -> Item:
    try:
        fields = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"not valid JSON: {error}") from error
    if sum(name in fields for name in INPUTS) != 1:
        raise ValueError(f"expected one of {', '.join(INPUTS)}; found {', '.join(fields) or 'no key'}")
    wanted = "labels" if per_step else "label"
    if wanted not in fields:
        raise ValueError(f"no `{wanted}`; found {', '.join(fields)}")
    labels = fields[wanted] if per_step else [fields[wanted]]
    key = fields.get("key")
    if key is not None and not isinstance(key, str):
        raise ValueError(f"key {key!r:.40}: expected a string")
    return Item(where, _inputs(fields, level, folder), _named(labels), key, parse_split(fields.get("split")))


def _inputs(fields: Mapping[str, Any], level: Level, folder: Path) -> tuple[str, ...] | Frames:
    if "features" in fields:
        return parse_frames(_array(fields["features"], folder))
    if "text" in fields:
        if not isinstance(fields["text"], str):
            raise ValueError(f"text {fields['text']!r:.40}: expected a string")
        return cut(fields["text"], level)
    tokens = fields["tokens"]
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise ValueError(f"tokens {tokens!r:.40}: expected a list of strings")
    return tuple(tokens)


def _array(features: object, folder: Path) -> NDArray[Any]:
    """Rows of numbers as they stand, or out of an .npy file, from which nothing is unpickled."""
    if isinstance(features, str):
        try:
            with (folder / features).open("rb") as file:
                return np.lib.format.read_array(file, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(f"{features} cannot be read as an .npy file: {error}") from error
    if not isinstance(features, list) or not all(isinstance(row, list) for row in features):
        raise ValueError(f"features {features!r:.40}: expected rows of numbers, or the path of an .npy file")
    if len(widths := {len(row) for row in features}) > 1:
        raise ValueError(f"features with rows of {min(widths)} and of {max(widths)} numbers: expected one width")
    return np.asarray(features)


def _named(labels: Sequence[object]) -> tuple[str, ...]:
    """Labels as strings; whole numbers may stand for themselves."""
    if not isinstance(labels, list | tuple):
        raise ValueError(f"labels {labels!r:.40}: expected a list")
    for label in labels:
        if not isinstance(label, str | int) or isinstance(label, bool) or label == "":
            raise ValueError(f"label {label!r:.40}: expected a name or a whole number")
    return tuple(map(str, labels))

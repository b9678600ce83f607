"""Items as tensors of one safetensors file: `KEY.features` [T, F] with `KEY.labels` [T] or `KEY.label` [].

Labels are whole numbers. The file's metadata may name them (`labels`, a JSON list) and may give every key its split
(`splits`, a JSON object).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from rnnprune.errors import InputRefused
from rnnprune.tasks.tag.items import BadItem, Item, parse_frames, parse_split, require_lengths

FEATURES = ".features"


def read_tensors(path: Path, *, per_step: bool) -> tuple[list[Item], list[BadItem]]:
    """Every `KEY.features`, sorted into what can be used and what cannot. Raises InputRefused for a damaged file."""
    items: list[Item] = []
    bad: list[BadItem] = []
    try:
        with safe_open(path, framework="numpy") as file:
            names, splits = _metadata(path, file.metadata() or {})
            keys = set(file.keys())
            for key in sorted(name.removesuffix(FEATURES) for name in keys if name.endswith(FEATURES)):
                where = f"item {key}"
                try:
                    labels = _labels(file, keys, key, names, per_step=per_step)
                    frames = parse_frames(file.get_tensor(key + FEATURES))
                    require_lengths(frames, labels, per_step=per_step)
                    items.append(Item(where, frames, labels, key, parse_split(splits.get(key))))
                except (ValueError, TypeError) as error:  # TypeError: bfloat16, which numpy does not have
                    bad.append(BadItem(where, str(error)))
    except (SafetensorError, OSError) as error:
        raise InputRefused(f"{path}: cannot be read as safetensors: {error}") from error
    return items, bad


def _metadata(path: Path, metadata: dict[str, str]) -> tuple[list[str] | None, dict[str, Any]]:
    try:
        names, splits = json.loads(metadata.get("labels", "null")), json.loads(metadata.get("splits", "{}"))
    except ValueError as error:
        raise InputRefused(f"{path}: its metadata is not JSON: {error}") from error
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise InputRefused(f"{path}: metadata `labels`: expected a JSON list of names")
    if not isinstance(splits, dict):
        raise InputRefused(f"{path}: metadata `splits`: expected a JSON object, key to split")
    return names, splits


def _labels(file: Any, keys: set[str], key: str, names: list[str] | None, *, per_step: bool) -> tuple[str, ...]:
    name = f"{key}.labels" if per_step else f"{key}.label"
    if name not in keys:
        raise ValueError(f"there is no tensor {name}")
    numbers = file.get_tensor(name)
    if numbers.dtype.kind not in "iu" or (numbers.ndim != 1 if per_step else numbers.size != 1):
        expected = "[steps]" if per_step else "one"
        raise ValueError(f"{name} is {numbers.dtype} {list(numbers.shape)}: expected whole numbers, {expected}")
    if names is None:
        return tuple(str(number) for number in numbers.reshape(-1))
    if outside := [int(number) for number in np.unique(numbers) if not 0 <= number < len(names)]:
        raise ValueError(f"{name} holds {outside[0]}, and the file names {len(names)} labels")
    return tuple(names[number] for number in numbers.reshape(-1))

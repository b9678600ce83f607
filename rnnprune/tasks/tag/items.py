"""What a data file holds before it is numbered: sequences with the names of their labels, and what is wrong with some.

T steps, F features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from rnnprune.errors import InputRefused, printable

SplitName = Literal["train", "validation", "test"]
Frames = NDArray[np.float32]  # [T, F]
SHOWN = 5  # bad items that a message or a note spells out


@dataclass(frozen=True, eq=False)
class Item:
    """One labelled sequence.

    where: the line or key that an error names. inputs: T tokens, or frames [T, F]. labels: T names, or one for the
    whole. key: what decides the split where `split` does not; None: the inputs themselves.
    """

    where: str
    inputs: tuple[str, ...] | Frames
    labels: tuple[str, ...]
    key: str | None = None
    split: SplitName | None = None

    @property
    def shape(self) -> str:
        """What one step is: items of one file must agree on it."""
        return f"{self.inputs.shape[1]} features" if isinstance(self.inputs, np.ndarray) else "tokens"


class BadItem(NamedTuple):
    """An item that cannot be used, and why."""

    where: str
    reason: str


def split_of(item: Item) -> SplitName:
    """The item's own split, else tenths for test and validation by sha256 of its key or of its inputs.

    The hash keeps what was said twice on one side, whatever the order of the file.
    """
    if item.split is not None:
        return item.split
    if item.key is not None:
        content = item.key.encode()
    elif isinstance(item.inputs, np.ndarray):
        content = item.inputs.tobytes()
    else:
        content = "\0".join(item.inputs).encode("utf-8", "surrogatepass")
    part = int(hashlib.sha256(content).hexdigest(), 16) % 10
    return "test" if part == 0 else "validation" if part == 1 else "train"


def parse_split(value: object) -> SplitName | None:
    """None for no split. Raises ValueError for anything but a split's name."""
    if value is None:
        return None
    if value not in get_args(SplitName):
        raise ValueError(f"split {value!r:.40}: expected one of {', '.join(get_args(SplitName))}")
    return value  # type: ignore[return-value]  # one of SplitName's, as was just checked


def parse_frames(array: NDArray[Any]) -> Frames:
    """Frames as float32. Raises ValueError for another shape or type, no step or feature, and values not finite."""
    if array.dtype.kind not in "fiu":
        raise ValueError(f"features of type {array.dtype}: expected numbers")
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"features of shape {list(array.shape)}: expected [steps, features], at least one of each")
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, which is refused here
        frames = array.astype(np.float32)
    if not np.isfinite(frames).all():
        step, feature = np.argwhere(~np.isfinite(frames))[0]
        raise ValueError(f"feature {feature} of step {step} is {frames[step, feature]}")
    return frames


def require_lengths(inputs: Sequence[str] | Frames, labels: Sequence[str], *, per_step: bool) -> None:
    """Raise ValueError for an empty sequence, or labels that are not as many as its steps."""
    if len(inputs) == 0:
        raise ValueError("the sequence is empty")
    if per_step and len(inputs) != len(labels):
        raise ValueError(f"{len(inputs)} steps and {len(labels)} labels: expected one label per step")


def left_out(path: Path, bad: Sequence[BadItem], total: int, *, skip: bool) -> tuple[str, ...]:
    """A note that counts the bad items and lists the first of them; () where there is none.

    Raises InputRefused with the same list unless they may be skipped.
    """
    if not bad:
        return ()
    listed = "; ".join(f"{path}, {where}: {printable(reason)}" for where, reason in bad[:SHOWN])
    more = f"; and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
    if not skip:
        remedy = "mend them, or pass --skip-bad to leave them out"
        raise InputRefused(f"{listed}{more}; {len(bad)} of {total} items cannot be used: {remedy}")
    return (f"left out {len(bad)} of {total} items: {listed}{more}",)

"""Arrays with one element changed, to break an invariant at a time."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def at(tensor: Tensor, place: Any, value: float) -> Tensor:
    """A copy with this value at this place."""
    changed = tensor.clone()
    changed[place] = value
    return changed

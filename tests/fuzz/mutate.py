"""A number becomes a file: the same number the same file, so a failure is told by its number alone."""

from __future__ import annotations

import functools
import random
from typing import NamedTuple

from tests.fuzz import mutate_safetensors, mutate_zip
from tests.fuzz.bases import Base, bases
from tests.fuzz.mutate_pickle import wreck_legacy
from tests.fuzz.tokens import wreck_bytes


class Victim(NamedTuple):
    """A changed file, and the name of the base that it was."""

    base: str
    data: bytes


def victim(seed: int) -> Victim:
    """The file of this number. Half of all are sparse files; one in eight is changed without regard to what it is."""
    rng = random.Random(seed)
    everything = bases()
    kind = rng.choice(("sparse", "sparse", "sparse", "safetensors", "torch zip", "torch zip", "legacy pickle", "npz"))
    name = rng.choice(_names(kind))
    base = everything[name]
    if rng.random() < 0.125:
        return Victim(name, wreck_bytes(rng, base.data, everything[rng.choice(list(everything))].data))
    data = _wreck(rng, base)
    return Victim(name, wreck_bytes(rng, data, base.data) if rng.random() < 0.05 else data)


@functools.cache
def _names(kind: str) -> list[str]:
    return [name for name, base in bases().items() if base.kind == kind]


def _wreck(rng: random.Random, base: Base) -> bytes:
    if base.kind == "legacy pickle":
        return wreck_legacy(rng, base.data)
    if base.kind in ("torch zip", "npz"):
        return mutate_zip.mutate(rng, base.data)
    return mutate_safetensors.mutate(rng, base.data)

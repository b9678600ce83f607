"""How a run is kept and spread out, as plain data: no torch here, so that a command line starts at once."""

from __future__ import annotations

import math
import re
from typing import Literal, NamedTuple

from rnnprune.errors import UsageError

Resume = Literal["auto", "never"]


class SaveEvery(NamedTuple):
    """How often the state is saved: after so many optimizer steps, or so many seconds; the other one is None."""

    steps: int | None = None
    seconds: float | None = None


class Keeping(NamedTuple):
    """Whether an interrupted run is gone on with, and how often a running one is saved."""

    resume: Resume = "auto"
    save_every: SaveEvery = SaveEvery(seconds=600.0)


def parse_save_every(text: str) -> SaveEvery:
    """`500` -> every 500 steps, `10m` -> every ten minutes. Raises UsageError for anything else."""
    found = re.fullmatch(r"(\d+)|(\d+(?:\.\d+)?)m", text.strip())
    if found and found[1] and int(found[1]) > 0:
        return SaveEvery(steps=int(found[1]))
    if found and found[2] and 0 < float(found[2]) < math.inf:
        return SaveEvery(seconds=60 * float(found[2]))
    raise UsageError(f"--save-every takes steps (500) or minutes (10m), above 0; found {text!r}")

"""What a user may choose about pruning, as plain data: no torch here, so that a command line starts at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from rnnprune.errors import UsageError

ScheduleName = Literal["gradual", "cubic", "hard"]
SaliencyName = Literal["magnitude", "fisher"]
BlockNorm = Literal["max", "l2"]
Scope = Literal["tensor", "type", "model"]


class Block(NamedTuple):
    """Rows x columns of a weight that are pruned together; 1x1 is a single weight."""

    rows: int
    cols: int

    def __str__(self) -> str:
        return f"{self.rows}x{self.cols}"


SINGLE_WEIGHT = Block(1, 1)


def parse_block(text: str) -> Block:
    """`16x1` -> Block(16, 1). Raises UsageError for anything else."""
    rows, _, cols = text.partition("x")
    if not (rows.isdecimal() and cols.isdecimal() and int(rows) > 0 and int(cols) > 0):
        raise UsageError(f"--block takes ROWSxCOLUMNS, such as 16x1 or 8x4; found {text!r}")
    return Block(int(rows), int(cols))


@dataclass(frozen=True)
class Timing:
    """Where a schedule's steps fall, as shares of the planned training: Table 1's heuristics by default.

    start 5 % (the second of twenty epochs), ramp 25 %, end 50 %; `frequency` in steps, or None for the paper's 100,
    lowered where the planned pruning is so short that it would get fewer than 30 updates.
    """

    start: float = 0.05
    ramp: float = 0.25
    end: float = 0.50
    frequency: int | None = None
    slope_ratio: float = 1.5
    revive: bool = False


@dataclass(frozen=True)
class Selection:
    """What is pruned and in which pieces: blocks of rows x columns of the torch weight, and patterns over names.

    `block_norm` scores a block by its largest saliency or its L2 norm; `scope` is what shares a threshold and the
    target: each "tensor", each "type" of layer, or the whole "model". Patterns are shell patterns such as `decoder.*`.
    """

    block: Block = SINGLE_WEIGHT
    block_norm: BlockNorm = "max"
    scope: Scope = "tensor"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True)
class PruningOptions:
    """A whole pruning run: target share of zeros, schedule and its timing, saliency, selection."""

    target: float = 0.9
    schedule: ScheduleName = "cubic"
    saliency: SaliencyName = "fisher"
    timing: Timing = field(default_factory=Timing)
    selection: Selection = field(default_factory=Selection)

    def __post_init__(self) -> None:
        require_target(self.target)


def require_target(target: float) -> None:
    """Raise UsageError unless 0 < target < 1."""
    if not 0.0 < target < 1.0:
        raise UsageError(f"--target is the share of zeros, between 0 and 1 (0.9 keeps a tenth); found {target}")

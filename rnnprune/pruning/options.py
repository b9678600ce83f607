"""What a user may choose about pruning, as plain data: no torch here, so that a command line starts at once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from numbers import Real
from typing import Any, Literal, NamedTuple, get_args

from rnnprune.errors import UsageError

ScheduleName = Literal["gradual", "cubic", "hard"]
SaliencyName = Literal["magnitude", "fisher"]
BlockNorm = Literal["max", "l2"]
Scope = Literal["gate", "tensor", "type", "model"]


class Block(NamedTuple):
    """Rows x columns of a weight that are pruned together; 1x1 is a single weight."""

    rows: int
    cols: int

    def __str__(self) -> str:
        return f"{self.rows}x{self.cols}"


SINGLE_WEIGHT = Block(1, 1)


def parse_block(text: str) -> Block:
    """`16x1` -> Block(16, 1). Raises UsageError for anything else."""
    sizes = _two_counts(text, "x")
    if not sizes or 0 in sizes:
        raise UsageError(f"--block takes ROWSxCOLUMNS, such as 16x1 or 8x4; found {text!r}")
    return Block(*sizes)


class NOfM(NamedTuple):
    """At most `keep` of every `of` neighbouring columns of a row stay: N:M sparsity."""

    keep: int
    of: int

    def __str__(self) -> str:
        return f"{self.keep}:{self.of}"


def parse_n_of_m(text: str) -> NOfM:
    """`1:8` -> NOfM(1, 8). Raises UsageError for anything else."""
    counts = _two_counts(text, ":")
    if not counts or not 0 < counts[0] < counts[1]:
        raise UsageError(f"--n-of-m takes COLUMNS:OF, fewer of more, such as 1:8 or 4:32; found {text!r}")
    return NOfM(*counts)


def _two_counts(text: str, between: str) -> tuple[int, int] | None:
    found = re.fullmatch(f"([0-9]{{1,9}}){between}([0-9]{{1,9}})", text)
    return (int(found[1]), int(found[2])) if found else None


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
    aim: bool = False


READ_BY: Mapping[ScheduleName, tuple[str, ...]] = {  # the settings of Timing that make a schedule
    "gradual": ("start", "ramp", "end", "frequency", "slope_ratio", "revive", "aim"),
    "cubic": ("start", "end", "frequency"),
    "hard": ("start",),
}

NO_COLUMNS_BY_THRESHOLD = (
    "--n-of-m goes by rank, and gradual by a threshold; take cubic or hard (--schedule; of sweep --methods)"
)

# A rise in loss means the same in every matrix, the size of a weight does not.
SCOPE_OF: Mapping[SaliencyName, Scope] = {"fisher": "model", "magnitude": "tensor"}


@dataclass(frozen=True)
class Selection:
    """What is pruned and in which pieces: blocks of rows x columns of the torch weight, and patterns over names.

    `block_norm` scores a block by its largest saliency or its L2 norm; `scope` is what shares a threshold and the
    target: each "gate" of a recurrent layer, each "tensor", each "type" of layer, or the whole "model", where saliency
    alone shares the zeros out; None leaves it to the saliency, see SCOPE_OF. Patterns are shell patterns such as
    `decoder.*`. `keep_diagonal`: what feeds a unit back to itself is never dropped (Valin & Skoglund, LPCNet, ICASSP
    2019). `target_of`: pairs of a pattern and a target of its own for each tensor that it matches, or each gate
    (`rnn.weight_hh_l0.g`) under scope "gate"; of several that match the last one holds. `n_of_m`: what every row keeps
    of so many neighbouring columns, at most (Mishra et al., Accelerating Sparse Deep Neural Networks, 2021); for single
    weights, not under `gradual`; zeros of a model that was pruned before may leave it sparser than the target.
    """

    block: Block = SINGLE_WEIGHT
    block_norm: BlockNorm = "max"
    scope: Scope | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    keep_diagonal: bool = False
    target_of: tuple[tuple[str, float], ...] = ()
    n_of_m: NOfM | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "block", _as_block(self.block))
        if self.n_of_m is not None:
            object.__setattr__(self, "n_of_m", _as_n_of_m(self.n_of_m))
            if self.block != SINGLE_WEIGHT:
                raise UsageError(f"--n-of-m counts single weights: drop it or --block {self.block}")
        require_one_of("block_norm", self.block_norm, BlockNorm)
        if self.scope is not None:
            require_one_of("scope", self.scope, Scope)
        for flag in ("include", "exclude"):
            object.__setattr__(self, flag, _as_patterns(flag, getattr(self, flag)))
        object.__setattr__(self, "target_of", _as_targets(self.target_of))

    def under(self, saliency: SaliencyName) -> Selection:
        """The same with the scope of that saliency, where none was chosen."""
        return self if self.scope else replace(self, scope=SCOPE_OF[saliency])


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
        require_one_of("schedule", self.schedule, ScheduleName)
        require_one_of("saliency", self.saliency, SaliencyName)
        if self.schedule == "gradual" and self.selection.n_of_m:
            raise UsageError(NO_COLUMNS_BY_THRESHOLD)

    def settled(self) -> PruningOptions:
        """The same with nothing left open."""
        return replace(self, selection=self.selection.under(self.saliency))


def require_target(target: float, flag: str = "--target") -> None:
    """Raise UsageError unless 0 < target < 1."""
    if not 0.0 < target < 1.0:
        raise UsageError(f"{flag} is the share of zeros, between 0 and 1 (0.9 keeps a tenth); found {target}")


def parse_target_of(texts: Iterable[str]) -> tuple[tuple[str, float], ...]:
    """`output.*=0.8` -> ("output.*", 0.8). Raises UsageError for anything else."""
    found = []
    for text in texts:
        pattern, _, share = text.rpartition("=")
        try:
            found.append((pattern, float(share)))
        except ValueError:
            pattern = ""
        if not pattern:
            raise UsageError(f"--target-of takes PATTERN=SHARE, such as 'output.*=0.8'; found {text!r}")
    return tuple(found)


def require_one_of(what: str, found: str, names: Any) -> None:
    """Raise UsageError unless `found` is one of a Literal's names."""
    if found not in get_args(names):
        raise UsageError(f"{what} must be one of {', '.join(get_args(names))}; found {found!r}")


def told_flags(options: Any) -> list[str]:
    """`--scope`, and so on: the flags of all settings that are not at their defaults, those of nested ones as well."""
    usual, flags = type(options)(), []
    for name in (each.name for each in fields(options)):
        value = getattr(options, name)
        if is_dataclass(value):
            flags += told_flags(value)
        elif value != getattr(usual, name):
            flags.append(_flag(name))
    return flags


def require_read(timing: Timing, schedules: Sequence[ScheduleName]) -> None:
    """Raise UsageError for a setting that is not at its default, and that none of these schedules reads."""
    read = [_flag(name) for name in READ_BY["gradual"] if any(name in READ_BY[each] for each in schedules)]
    if unread := [flag for flag in told_flags(timing) if flag not in read]:
        names = f"{', '.join(schedules)} {'reads' if len(schedules) == 1 else 'read'}"
        raise UsageError(f"{', '.join(unread)}: {names} {', '.join(read)}; drop the others, or choose gradual")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _as_block(block: Any) -> Block:
    """A plain pair will do."""
    whole = isinstance(block, tuple | list) and len(block) == 2 and all(type(size) is int for size in block)
    if not whole or min(block) < 1:
        raise UsageError(f"a block is (rows, columns), whole numbers of at least 1, such as (16, 1); found {block!r}")
    return Block(*block)


def _as_n_of_m(given: Any) -> NOfM:
    """A plain pair will do."""
    whole = isinstance(given, tuple | list) and len(given) == 2 and all(type(count) is int for count in given)
    if not whole or not 0 < given[0] < given[1]:
        raise UsageError(f"n_of_m is (columns kept, of how many), such as (1, 8) for 1:8; found {given!r}")
    return NOfM(*given)


def _as_patterns(flag: str, patterns: Any) -> tuple[str, ...]:
    if isinstance(patterns, str) or not isinstance(patterns, Iterable):
        raise UsageError(f"{flag} takes a tuple of patterns; write ({patterns!r},), found {patterns!r}")
    given = tuple(patterns)
    if wrong := [pattern for pattern in given if not isinstance(pattern, str)]:
        raise UsageError(f"{flag} takes patterns over the names of tensors, such as 'decoder.*'; found {wrong[0]!r}")
    return given


def _as_targets(targets: Any) -> tuple[tuple[str, float], ...]:
    pairs = tuple(targets) if isinstance(targets, Iterable) else (targets,)
    if not all(
        isinstance(pair, tuple | list) and len(pair) == 2 and isinstance(pair[0], str) and isinstance(pair[1], Real)
        for pair in pairs
    ):
        raise UsageError(f"target_of takes pairs such as (('output.*', 0.8),); found {targets!r}")
    for pattern, target in pairs:
        require_target(target, f"--target-of {pattern}")
    return tuple((pattern, float(target)) for pattern, target in pairs)

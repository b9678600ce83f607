"""The cells of a sweep: every combination of what is tried, and the dense control of every seed."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from rnnprune.errors import UsageError
from rnnprune.pruning.options import SINGLE_WEIGHT, Block, SaliencyName, ScheduleName
from rnnprune.workflows.finetune_plan import FinetuneRequest, check

CONTROL = "control"


class Setting(NamedTuple):
    """What one point of the frontier stands for; its cells differ by their seed alone."""

    method: ScheduleName
    saliency: SaliencyName
    block: Block
    target: float
    taught: bool = False

    def __str__(self) -> str:
        block = "" if self.block == SINGLE_WEIGHT else f"-{self.block}"
        teacher = "-distill" if self.taught else ""
        return f"{self.method}-{self.saliency}{block}{teacher}-s{100 * self.target:g}"


@dataclass(frozen=True)
class Grid:
    """What is tried: every combination. seeds: how many, from the recipe's on. distill: with a teacher besides."""

    targets: tuple[float, ...] = (0.8, 0.9, 0.95)
    methods: tuple[ScheduleName, ...] = ("gradual", "cubic", "hard")
    saliencies: tuple[SaliencyName, ...] = ("fisher",)
    blocks: tuple[Block, ...] = field(default=(SINGLE_WEIGHT,))
    seeds: int = 3
    distill: bool = False

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise UsageError(f"--seeds must be at least 1, found {self.seeds}")
        for flag, values in (
            ("--targets", self.targets),
            ("--methods", self.methods),
            ("--saliency", self.saliencies),
            ("--block", self.blocks),
        ):
            if len(set(values)) != len(values) or not values:
                raise UsageError(f"{flag} names each value once; found {', '.join(map(str, values))}")

    def settings(self) -> list[Setting]:
        """Every combination, by target."""
        teachers = (False, True) if self.distill else (False,)
        combined = itertools.product(self.targets, self.methods, self.saliencies, self.blocks, teachers)
        return [
            Setting(method, saliency, block, target, taught) for target, method, saliency, block, taught in combined
        ]


class Cells(NamedTuple):
    """The runs by their names, which are also their folders': the controls, and of every setting one for each seed."""

    controls: dict[str, FinetuneRequest]
    pruned: dict[Setting, dict[str, FinetuneRequest]]

    def all(self) -> dict[str, FinetuneRequest]:
        """By name; the controls first, and seed by seed, so that a sweep that is cut off has whole seeds."""
        cells = [each for group in self.pruned.values() for each in group.items()]
        return self.controls | dict(sorted(cells, key=lambda cell: cell[1].recipe.seed))


def cells_of(grid: Grid, base: FinetuneRequest, folder: Path) -> Cells:
    """base: what all cells share. Raises UsageError for a combination that cannot work."""
    seeds = range(base.recipe.seed, base.recipe.seed + grid.seeds)
    controls = {f"{CONTROL}-seed{seed}": _control(base, folder / f"{CONTROL}-seed{seed}", seed) for seed in seeds}
    pruned = {
        setting: {
            f"{setting}-seed{seed}": _pruned(base, setting, folder / f"{setting}-seed{seed}", seed) for seed in seeds
        }
        for setting in grid.settings()
    }
    for group in pruned.values():
        for request in group.values():
            check(request)
    return Cells(controls, pruned)


def _control(base: FinetuneRequest, run: Path, seed: int) -> FinetuneRequest:
    lr = base.recipe.lr if base.control_lr is None else base.control_lr
    recipe = replace(base.recipe, seed=seed, lr=lr)
    return replace(base, out=run, recipe=recipe, dense=True, distill=None, control_lr=None)


def _pruned(base: FinetuneRequest, setting: Setting, run: Path, seed: int) -> FinetuneRequest:
    pruning = replace(
        base.pruning,
        target=setting.target,
        schedule=setting.method,
        saliency=setting.saliency,
        selection=replace(base.pruning.selection, block=setting.block),
    )
    distill = base.distill if setting.taught else None
    recipe = replace(base.recipe, seed=seed)
    return replace(base, out=run, recipe=recipe, pruning=pruning, distill=distill, control_lr=None)

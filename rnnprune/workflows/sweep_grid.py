"""The cells of a sweep: every combination of what is tried, and the dense control of every seed."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from rnnprune.errors import UsageError
from rnnprune.pruning.options import SINGLE_WEIGHT, Block, PruningOptions, SaliencyName, ScheduleName
from rnnprune.workflows.finetune_plan import FinetuneRequest, check

CONTROL = "control"


class Setting(NamedTuple):
    """What one point of the frontier stands for; its cells differ by their seed alone."""

    method: ScheduleName
    saliency: SaliencyName
    block: Block
    target: float

    def __str__(self) -> str:
        block = "" if self.block == SINGLE_WEIGHT else f"-{self.block}"
        return f"{self.method}-{self.saliency}{block}-s{100 * self.target:g}"


@dataclass(frozen=True)
class Grid:
    """What is tried: every combination. seeds: how many, from the recipe's on."""

    targets: tuple[float, ...] = (0.8, 0.9, 0.95)
    methods: tuple[ScheduleName, ...] = ("gradual", "cubic", "hard")
    saliencies: tuple[SaliencyName, ...] = ("fisher",)
    blocks: tuple[Block, ...] = field(default=(SINGLE_WEIGHT,))
    seeds: int = 3

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
        combined = itertools.product(self.targets, self.methods, self.saliencies, self.blocks)
        return [Setting(method, saliency, block, target) for target, method, saliency, block in combined]


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

    def request(name: str, seed: int, pruning: PruningOptions, recipe_lr: float, *, dense: bool) -> FinetuneRequest:
        recipe = replace(base.recipe, seed=seed, lr=recipe_lr)
        found = replace(
            base, out=folder / name, recipe=recipe, pruning=pruning, dense=dense, control=False, control_lr=None
        )
        check(found)
        return found

    lr, control_lr = base.recipe.lr, base.control_lr
    controls = {
        f"{CONTROL}-seed{seed}": request(
            f"{CONTROL}-seed{seed}", seed, PruningOptions(saliency="magnitude"), control_lr or lr, dense=True
        )
        for seed in seeds
    }
    pruned: dict[Setting, dict[str, FinetuneRequest]] = {}
    for setting in grid.settings():
        selection = replace(base.pruning.selection, block=setting.block)
        pruning = replace(
            base.pruning,
            target=setting.target,
            schedule=setting.method,
            saliency=setting.saliency,
            selection=selection,
        )
        names = {seed: f"{setting}-seed{seed}" for seed in seeds}
        pruned[setting] = {name: request(name, seed, pruning, lr, dense=False) for seed, name in names.items()}
    return Cells(controls, pruned)

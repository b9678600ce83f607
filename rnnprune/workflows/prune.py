"""`rnnprune prune`: one cut by magnitude, no data, no task, no training: for a quick look at size and speed."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rnnprune.architecture import roles_from_shapes
from rnnprune.formats.lock import folder_lock
from rnnprune.formats.run_folder import open_stage
from rnnprune.pruning.groups import group_weights
from rnnprune.pruning.options import Selection, require_target
from rnnprune.pruning.saliency import magnitude
from rnnprune.pruning.schedules import Cut
from rnnprune.pruning.selection import choose
from rnnprune.pruning.tying import tie
from rnnprune.workflows.finetune_plan import default_run
from rnnprune.workflows.run_output import Story, write_tensors
from rnnprune.workflows.subject import open_subject, require_finite


@dataclass(frozen=True)
class Pruned:
    """What a one-shot cut left behind."""

    run: Path
    target: float
    achieved: float
    per_tensor: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """The contract of `--json`."""
        return {
            "run": str(self.run),
            "sparsity": {"target": self.target, "achieved": self.achieved, "per_tensor": self.per_tensor},
        }


def prune(
    checkpoint: Path, target: float, selection: Selection, out: Path | None = None, *, overwrite: bool = False
) -> Pruned:
    """Drop the smallest weights of every recurrent and linear matrix and write a run folder."""
    require_target(target)
    selection = selection.under("magnitude")
    began = time.perf_counter()
    subject = open_subject(checkpoint)
    shapes = subject.shapes
    tensors = {name: tensor.clone() for name, tensor in subject.checkpoint.tensors.items()}
    choices = choose(roles_from_shapes(shapes), shapes, selection.include, selection.exclude)
    aliases = subject.checkpoint.aliases
    weights, choices = tie(tensors | {alias: tensors[name] for alias, name in aliases.items()}, choices)
    require_finite(((weight.name, weight.weight) for weight in weights), subject.checkpoint.path)
    for group in group_weights(weights, selection, shapes, target):
        group.cut(Cut(sparsity=group.target), lambda weight: magnitude(weight.weight, {}))
    for weight in weights:
        weight.apply_to(weight.weight)

    run = out or default_run(checkpoint, target)
    pruning = {
        "target": target,
        "schedule": {"name": "one shot"},
        "saliency": "magnitude",
        "selection": asdict(selection),
    }
    settings = {"checkpoint": checkpoint, "target": target, "selection": asdict(selection), "out": out}
    story = Story(subject, None, pruning, settings, seconds=time.perf_counter() - began)
    with folder_lock(run):
        stage = open_stage(run, overwrite=overwrite)
        written = write_tensors(run, stage, tensors, aliases, choices, story)
    return Pruned(run, target, written.achieved, written.per_tensor)

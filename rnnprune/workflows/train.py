"""`rnnprune train`: a dense model of a built-in task, so that everything can be tried from nothing."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from rnnprune.errors import StorageError, UsageError
from rnnprune.formats.atomic import write_atomic
from rnnprune.formats.state_folder import StateFolder, require_room
from rnnprune.tasks.builtin import BuiltinTask
from rnnprune.training.keeper import Keeper, RunParts
from rnnprune.training.loop import StepRecord, build_optimizer, evaluate, planned_steps
from rnnprune.training.options import Keeping
from rnnprune.training.recipe import Recipe
from rnnprune.training.workers import ALONE
from rnnprune.workflows.machine import find_device, require_precision
from rnnprune.workflows.resume import (
    environment,
    fingerprint_of_data,
    notes_of_resuming,
    plain_json,
    room_for_training,
    saved_state,
    seconds_of_run,
)
from rnnprune.workflows.run_output import state_of


@dataclass(frozen=True)
class Trained:
    """A dense checkpoint and its figures on the test split."""

    path: Path
    metric: str
    figures: dict[str, float]
    parameters: int
    steps: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """The contract of `--json`."""
        return {
            "checkpoint": str(self.path),
            "metric": {"name": self.metric, "value": self.figures[self.metric]},
            "parameters": self.parameters,
            "steps": self.steps,
            "seconds": self.seconds,
        }


def require_free(out: Path, *, overwrite: bool, other: str = "--out") -> None:
    """Raise, before any work is spent, where the checkpoint could not be written or would replace a file.

    other: what the user can choose another one of.
    """
    if not out.parent.is_dir():
        raise StorageError(f"{out} cannot be written: there is no folder {out.parent}; create the folder first")
    if out.is_dir():
        raise StorageError(f"{out} cannot be written: a folder has that name; choose another name")
    if out.exists() and not overwrite:
        raise UsageError(f"{out} is already there; choose another {other}, or pass --overwrite")


def train_task(
    task: BuiltinTask,
    recipe: Recipe,
    out: Path,
    device: str = "cpu",
    on_step: Callable[[StepRecord], None] = lambda record: None,  # noqa: ARG005
    note: Callable[[str], None] = lambda text: None,  # noqa: ARG005
    *,
    keeping: Keeping = Keeping(),  # noqa: B008 - immutable
) -> Trained:
    """Train a built-in task's model and save it, with all that later commands need to know, as one torch file.

    Until that is written, `OUT.state/` beside it holds what an interrupted training goes on from.
    """
    began = time.perf_counter()
    require_precision(recipe.precision, device)
    torch.manual_seed(recipe.seed)
    model = task.build_model().to(find_device(device))
    folder = StateFolder(out.with_name(f"{out.name}.state"))
    with folder.in_use(keeping.resume == "auto"):
        fingerprint = {
            "model": task.metadata["model"],
            "data": fingerprint_of_data(task, None),
            "task": {name: value for name, value in vars(task).items() if isinstance(value, bool | int | float | str)},
            "recipe": asdict(recipe),
        }
        saved = saved_state(folder.path, keeping.resume, fingerprint, ALONE)
        require_room(folder.path, room_for_training(model, folder.path), "this training and the states it saves")
        total_steps = planned_steps(task, recipe)
        identity = plain_json(
            {"fingerprint": fingerprint, "environment": environment(None, next(model.parameters()).device, ALONE)}
        )
        for text in notes_of_resuming(saved, identity, folder.path):
            note(text)
        keeper = Keeper(folder, keeping.save_every, saved, lambda: identity | {"seconds": seconds_of_run(began, saved)})
        with keeper.telling_what_is_saved():
            parts = RunParts(model, task, recipe, build_optimizer(model, recipe), total_steps)
            keeper.train("training", parts, on_step)
            figures = evaluate(model, task, "test")
            tensors, aliases = state_of(model)
            state = tensors | {alias: tensors[name] for alias, name in aliases.items()}
            buffer = io.BytesIO()
            torch.save({"rnnprune": task.metadata, "state_dict": state}, buffer)
            write_atomic(out, buffer.getvalue())
        folder.remove()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Trained(out, task.metric, figures, parameters, total_steps, seconds_of_run(began, saved))

"""`rnnprune evaluate`: the task's metric of a run, a checkpoint or a sparse file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rnnprune.errors import UsageError
from rnnprune.formats.sparse import is_sparse_file
from rnnprune.runtime.int8 import quantize, stored_bytes
from rnnprune.runtime.options import DENSE, INT8, TRITON, ScoringEngine
from rnnprune.runtime.sparsify import LayerEngine, describe, engines_of, sparsify
from rnnprune.tasks.options import Goal, Split
from rnnprune.tasks.protocol import Task
from rnnprune.training import loop
from rnnprune.workflows.machine import find_device
from rnnprune.workflows.subject import Subject, TaskChoice, find_task, load_model, notes_of, open_subject


@dataclass(frozen=True)
class Evaluation:
    """`value` is the figure named `metric`; `figures` holds all that the task gives.

    engine: what really computed them, `native` or, where some layers stayed dense, `native+torch-dense-fp32`;
    layers: each layer's own, with the reason; () where nothing but dense was asked for. bytes: of the file, or of what
    torch would save of the model that it quantized. notes: what the task has to say about its data.
    """

    path: Path
    split: Split
    metric: str
    goal: Goal
    value: float
    figures: dict[str, float]
    engine: str
    bytes: int
    layers: tuple[LayerEngine, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The contract of `--json`."""
        return {
            "path": str(self.path),
            "split": self.split,
            "metric": self.metric,
            "goal": self.goal,
            "value": self.value,
            "figures": self.figures,
            "engine": self.engine,
            "bytes": self.bytes,
            "layers": [asdict(layer) for layer in self.layers],
            "notes": list(self.notes),
        }


def evaluate(
    path: Path | None,
    choice: TaskChoice,
    split: Split = "test",
    device: str = "cpu",
    engine: ScoringEngine | None = None,
) -> Evaluation:
    """Score one split. engine None: `auto` for a sparse file, dense for anything else.

    `torch-dense-int8` is torch's dynamic quantization of the dense model, the one-line rival. UsageError where torch
    has none for it.
    """
    subject = open_subject(path, lazily=True)  # the sparse engines read the file themselves
    task = find_task(subject, choice, "evaluate")
    place = find_device(device)
    if engine is None:
        engine = "auto" if is_sparse_file(subject.checkpoint.path) else DENSE
    if engine not in (DENSE, TRITON, "auto") and place.type != "cpu":
        raise UsageError(
            f"--engine {engine} runs on the CPU; drop --device {device}, or use --engine {TRITON} or {DENSE}"
        )
    model = _build(task, subject, engine, place).to(place)
    figures = loop.evaluate(model, task, split)
    value = figures[task.metric]
    nbytes = stored_bytes(model) if engine == INT8 else subject.checkpoint.path.stat().st_size
    told = (engines_of(model), nbytes, describe(model), notes_of(task))
    return Evaluation(subject.path, split, task.metric, task.goal, value, figures, *told)


def _build(task: Task, subject: Subject, engine: ScoringEngine, place: torch.device) -> nn.Module:
    if engine == DENSE:
        return load_model(task, subject)
    if engine == INT8:
        return quantize(load_model(task, subject))
    return sparsify(task.build_model().to(place), subject.checkpoint.path, engine=engine)

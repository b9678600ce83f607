"""What a cell is made of: a dense checkpoint, a fine-tuning, its files; each by its `rnnprune` commands."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from examples.studies.cells import Cell
from examples.studies.tasks import TASKS
from examples.studies.variants import Form

CACHE = Path(".cache/studies")
RAW = Path("docs/results/studies/raw")
ALONE = ("--threads", "1")
EXPORTS: dict[Form, str] = {
    "csr": "--format csr",
    "csr-fp16": "--format csr --values fp16",
    "bitmask-int8": "--format bitmask --values int8",
    "bsr": "--format bsr",
    "bsr-int8": "--format bsr --values int8",
}
TEACHER_COSTS = 1.35  # times the step of a run without one
SECONDS_TO_START = 4.0  # a command, with torch


class Dense(NamedTuple):
    """A dense checkpoint; fresh: after a single step at a rate of nothing, as it was drawn."""

    task: str
    size: str
    seed: int
    fresh: bool = False

    @property
    def name(self) -> str:
        return f"{'fresh' if self.fresh else 'dense'}-{self.size}-seed-{self.seed}"

    @property
    def folder(self) -> Path:
        return CACHE / self.task / self.name

    @property
    def file(self) -> Path:
        return self.folder / "ckpt.pt"

    @property
    def steps(self) -> int:
        return 1 if self.fresh else TASKS[self.task].dense_steps

    def commands(self) -> dict[str, list[str]]:
        """Name -> words."""
        task = TASKS[self.task]
        words = f"train {task.train} {task.both} {task.sizes[self.size]} --steps {self.steps}".split()
        if self.fresh:
            words[words.index("--lr") + 1] = "1e-12"
        return {"train": [*words, "--seed", str(self.seed), *ALONE, "--out", str(self.file)]}

    def minutes(self) -> float:
        """On one quiet core, about."""
        task = TASKS[self.task]
        return (self.steps * task.milliseconds[self.size] / 1000 + task.evaluation + SECONDS_TO_START) / 60


class Run(NamedTuple):
    """A fine-tuning of a dense checkpoint. flags: all after `finetune CHECKPOINT`, the teacher still as {large}."""

    dense: Dense
    flags: str
    steps: int

    @property
    def task(self) -> str:
        return self.dense.task

    @property
    def name(self) -> str:
        """The words as a file name."""
        words = self.flags.replace("{large}", "large").replace("--", "").replace(":", "-").split()
        return "-".join([*(["fresh"] if self.dense.fresh else []), self.dense.size, *words])

    @property
    def folder(self) -> Path:
        return CACHE / self.task / self.name

    @property
    def run(self) -> Path:
        """The run folder."""
        return self.folder / "run"

    def needs(self) -> list[Dense]:
        """The checkpoints that must be there."""
        return [self.dense, *([self.teacher] if "{large}" in self.flags else [])]

    @property
    def teacher(self) -> Dense:
        return self.dense._replace(size="large", fresh=False)

    def commands(self) -> dict[str, list[str]]:
        """Name -> words."""
        flags = self.flags.format(large=self.teacher.file).split()
        both = TASKS[self.task].both.split()
        return {
            "finetune": ["finetune", str(self.dense.file), *flags, *both, *ALONE, "--out", str(self.run)],
            "report": ["report", str(self.run)],
        }

    def minutes(self) -> float:
        """On one quiet core, about."""
        task = TASKS[self.task]
        step = task.milliseconds[self.dense.size] * (TEACHER_COSTS if "--distill" in self.flags else 1)
        return (self.steps * step / 1000 + 4 * task.evaluation + 2 * SECONDS_TO_START) / 60


class Stored(NamedTuple):
    """The files of a run, and their figures on the engine that reads them."""

    made: Run
    forms: tuple[Form, ...]

    @property
    def task(self) -> str:
        return self.made.task

    @property
    def name(self) -> str:
        return f"{self.made.name}.stored"

    @property
    def folder(self) -> Path:
        return self.made.folder

    def file(self, form: Form) -> Path:
        """Where the form lies; of dense ones the run's own model."""
        if form in EXPORTS:
            return self.folder / f"model.{form}.safetensors"
        return self.made.run / "model.safetensors"

    def commands(self) -> dict[str, list[str]]:
        """Name -> words."""
        found = {}
        for form in self.forms:
            if form in EXPORTS:
                file = str(self.file(form))
                found[f"export-{form}"] = ["export", str(self.made.run), *EXPORTS[form].split(), "--out", file]
                found[f"evaluate-{form}"] = ["evaluate", file, *ALONE]
            else:
                engine = "torch-dense-int8" if form == "dense-int8" else "torch-dense-fp32"
                found[f"evaluate-{form}"] = ["evaluate", str(self.made.run), "--engine", engine, *ALONE]
        return found

    def minutes(self) -> float:
        """On one quiet core, about."""
        return len(self.forms) * (2 * SECONDS_TO_START + TASKS[self.task].evaluation) / 60


class Timed(NamedTuple):
    """The latency of a stored run, of its file with float32 values; see timing.py."""

    stored: Stored

    @property
    def task(self) -> str:
        return self.stored.task

    @property
    def name(self) -> str:
        return f"{self.stored.made.name}.timed"

    @property
    def file(self) -> Path:
        return self.stored.file(self.stored.forms[0])

    def commands(self) -> dict[str, list[str]]:
        """None of the program's: the figure is that of `rnnprune sweep`."""
        return {}


Work = Dense | Run | Stored


def key(work: Work | Timed) -> str:
    """What no other work is called."""
    return f"{work.task}/{work.name}"


def run_of(cell: Cell, rate: str) -> Run:
    """The fine-tuning of a cell at a learning rate."""
    variant, task = cell.variant, TASKS[cell.task]
    steps = task.dense_steps + task.steps if variant.fresh else variant.longer * task.steps
    flags = variant.flags.replace("{matched}", str(task.matched.get(variant.size)))
    dense = Dense(cell.task, variant.size, cell.seed, variant.fresh)
    return Run(dense, f"{flags} --steps {steps} --lr {rate} --seed {cell.seed}", steps)

"""The built-in tasks by name: the only code that a checkpoint can ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from rnnprune.errors import InputRefused
from rnnprune.tasks.ctc.model import CtcModelSpec
from rnnprune.tasks.ctc.task import CtcTask
from rnnprune.tasks.lm import LmModelSpec, LmTask
from rnnprune.tasks.protocol import Task
from rnnprune.tasks.seq2seq.spec import Seq2SeqModelSpec
from rnnprune.tasks.seq2seq.task import Seq2SeqTask
from rnnprune.tasks.source import DataOptions
from rnnprune.tasks.spec import ModelSpec
from rnnprune.tasks.tag.model import ClassifyModelSpec, TagModelSpec
from rnnprune.tasks.tag.task import ClassifyTask, TagTask


class BuiltinTask(Task, Protocol):
    """A task that a checkpoint can describe.

    metadata: what a checkpoint stores under `rnnprune`. notes: what a person should know about how the data was found.
    """

    notes: tuple[str, ...]

    @property
    def metadata(self) -> dict[str, Any]: ...


class Builtin(NamedTuple):
    """How one built-in task comes back from a checkpoint."""

    spec: type[ModelSpec]
    from_checkpoint: Callable[[Mapping[str, object], DataOptions], BuiltinTask]


BUILTIN: Mapping[str, Builtin] = {
    "lm": Builtin(LmModelSpec, LmTask.from_checkpoint),
    "seq2seq": Builtin(Seq2SeqModelSpec, Seq2SeqTask.from_checkpoint),
    "tag": Builtin(TagModelSpec, TagTask.from_checkpoint),
    "classify": Builtin(ClassifyModelSpec, ClassifyTask.from_checkpoint),
    "ctc": Builtin(CtcModelSpec, CtcTask.from_checkpoint),
}


def builtin_task(metadata: object, options: DataOptions | None = None) -> BuiltinTask:
    """The built-in task that a checkpoint's `rnnprune` entry names.

    Raises InputRefused when it names none, or describes it wrongly; UsageError when the data is not where it was.
    """
    name = metadata.get("task") if isinstance(metadata, Mapping) else None
    if not isinstance(metadata, Mapping) or not isinstance(name, str) or name not in BUILTIN:
        raise InputRefused(
            f"rnnprune.task: {name!r:.60} is not built in (built in: {', '.join(BUILTIN)}); "
            "pass --task FILE.py:FUNCTION to use a task of your own"
        )
    return BUILTIN[name].from_checkpoint(metadata, options or DataOptions())


def builtin_spec(metadata: Mapping[str, object]) -> ModelSpec | None:
    """The sizes of the model that a checkpoint's entry describes; None when it names no built-in task.

    A few bytes describe gigabytes: hold `shapes()` against the file before you `build()`. Raises InputRefused for sizes
    that are damaged.
    """
    name = metadata.get("task")
    if not isinstance(name, str) or name not in BUILTIN:
        return None
    return BUILTIN[name].spec.from_dict(metadata.get("model"))

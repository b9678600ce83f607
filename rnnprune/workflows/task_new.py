"""`rnnprune task new`: a task file to start from, complete and commented."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rnnprune.errors import UsageError
from rnnprune.formats.atomic import write_atomic
from rnnprune.tasks import template
from rnnprune.workflows.train import require_free

_NAME = "my_task.py"


@dataclass(frozen=True)
class TaskFile:
    """The file that was written."""

    path: Path

    def to_json(self) -> dict[str, Any]:
        """The contract of `--json`."""
        return {"path": str(self.path)}


def write_template(path: Path, *, overwrite: bool = False) -> TaskFile:
    """Write the template, its own commands filled in. Raises UsageError for a name that is no Python file's."""
    if path.suffix != ".py":
        raise UsageError(f"{path}: a task is a Python file; choose a name that ends in .py")
    require_free(path, overwrite=overwrite, other="name")
    text = Path(template.__file__).read_text(encoding="utf-8")
    write_atomic(path, text.replace(_NAME, path.name).encode())
    return TaskFile(path)

"""rnnprune: make trained recurrent networks small and fast.

The public names below are loaded when first used, so that `import rnnprune` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rnnprune.errors import Diverged as Diverged
    from rnnprune.errors import GoalMissed as GoalMissed
    from rnnprune.errors import InputRefused as InputRefused
    from rnnprune.errors import RnnpruneError as RnnpruneError
    from rnnprune.errors import StorageError as StorageError
    from rnnprune.errors import UsageError as UsageError
    from rnnprune.formats.checkpoint import read_checkpoint as read_checkpoint
    from rnnprune.formats.sparse import read_sparse as read_sparse
    from rnnprune.pruning.options import Block as Block
    from rnnprune.pruning.options import Selection as Selection
    from rnnprune.pruning.options import Timing as Timing
    from rnnprune.pruning.pruner import Pruner as Pruner
    from rnnprune.pruning.schedules import Cubic as Cubic
    from rnnprune.pruning.schedules import Gradual as Gradual
    from rnnprune.pruning.schedules import Hard as Hard
    from rnnprune.pruning.schedules import plan_schedule as plan_schedule
    from rnnprune.runtime.sparsify import describe as describe
    from rnnprune.runtime.sparsify import sparsify as sparsify
    from rnnprune.workflows.load import load as load

__version__ = "0.1.0"

_HOME = {
    "Block": "rnnprune.pruning.options",
    "Cubic": "rnnprune.pruning.schedules",
    "Diverged": "rnnprune.errors",
    "GoalMissed": "rnnprune.errors",
    "Gradual": "rnnprune.pruning.schedules",
    "Hard": "rnnprune.pruning.schedules",
    "InputRefused": "rnnprune.errors",
    "Pruner": "rnnprune.pruning.pruner",
    "RnnpruneError": "rnnprune.errors",
    "Selection": "rnnprune.pruning.options",
    "StorageError": "rnnprune.errors",
    "Timing": "rnnprune.pruning.options",
    "UsageError": "rnnprune.errors",
    "describe": "rnnprune.runtime.sparsify",
    "load": "rnnprune.workflows.load",
    "plan_schedule": "rnnprune.pruning.schedules",
    "read_checkpoint": "rnnprune.formats.checkpoint",
    "read_sparse": "rnnprune.formats.sparse",
    "sparsify": "rnnprune.runtime.sparsify",
}

__all__ = sorted([*_HOME, "__version__"])


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'rnnprune' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return list(__all__)

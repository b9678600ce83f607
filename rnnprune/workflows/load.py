"""`rnnprune.load`: a file that says what model it holds, as a module that is ready to run."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from rnnprune.errors import UsageError
from rnnprune.formats.checkpoint import read_checkpoint
from rnnprune.formats.run_folder import model_of
from rnnprune.formats.sparse import is_sparse_file, read_sparse
from rnnprune.runtime.options import EngineName
from rnnprune.runtime.sparsify import sparsify
from rnnprune.tasks.builtin import BUILTIN
from rnnprune.workflows.subject import described_spec


def load(
    path: Path | str, *, engine: EngineName = "auto", threads: int | None = None, device: torch.device | str = "cpu"
) -> nn.Module:
    """The model of a sparse file, run folder or checkpoint of a built-in task, ready to run; its data is not needed.

    device: where the model goes before its layers are swapped. engine, threads: see `sparsify`; `describe(model)` tells
    what each layer took. Raises UsageError for a file that names no built-in task, InputRefused for a damaged one.
    """
    path = Path(path)
    file = model_of(path)
    stored = read_sparse(file) if is_sparse_file(file) else read_checkpoint(file)
    shapes = {name: tuple(tensor.shape) for name, tensor in stored.tensors.items()}
    spec = described_spec(path, stored.metadata, shapes | {alias: shapes[of] for alias, of in stored.aliases.items()})
    if spec is None:
        raise UsageError(
            f"{path} does not say how its model is built (built in: {', '.join(BUILTIN)}); "
            f"build the model yourself and call rnnprune.sparsify(model, {str(path)!r})"
        )
    with torch.random.fork_rng(devices=[]):  # the random weights made here are replaced at once
        model = spec.build()
    return sparsify(model.to(device), path, engine=engine, threads=threads)

"""`rnnprune report`: what is in a file, tensor by tensor, and how many bytes it takes in every form."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rnnprune.architecture import Recognised, Shape, find_stacks, roles_from_shapes
from rnnprune.formats.checkpoint import Checkpoint, open_checkpoint
from rnnprune.formats.forms import Stored
from rnnprune.formats.lazy import LazyTensor, MappedFile, lazy
from rnnprune.formats.run_folder import model_of, newest_run
from rnnprune.formats.sparse import SparseFile, is_sparse_file, read_sparse
from rnnprune.kernels import native
from rnnprune.kernels.bitmask import Bitmask, bitmask_nbytes
from rnnprune.kernels.bsr import Bsr
from rnnprune.kernels.csr import Csr, csr_nbytes
from rnnprune.kernels.torch_csr import packed_nbytes
from rnnprune.pruning.selection import PRUNED_BY_DEFAULT

FLOAT32 = 4


@dataclass(frozen=True)
class Bytes:
    """One tensor's bytes: dense, CSR and bitmask as float32; in this file; packed in memory by engine torch-csr."""

    dense: int
    csr: int
    bitmask: int
    file: int
    runtime: int

    def __add__(self, other: Bytes) -> Bytes:
        return Bytes(
            self.dense + other.dense,
            self.csr + other.csr,
            self.bitmask + other.bitmask,
            self.file + other.file,
            self.runtime + other.runtime,
        )


@dataclass(frozen=True)
class TensorReport:
    """One tensor: whether this project pruned it, and why or why not."""

    name: str
    shape: Shape
    pruned: bool
    reason: str
    nnz: int
    sparsity: float
    bytes: Bytes


@dataclass(frozen=True)
class Report:
    """Every tensor once (tied names are aliases), the recurrent stacks, and the file on disk."""

    path: Path
    file: Path
    file_bytes: int
    stacks: tuple[str, ...]
    tensors: tuple[TensorReport, ...]
    aliases: dict[str, str]
    notes: tuple[str, ...]

    @property
    def total(self) -> TensorReport:
        """All tensors together."""
        return _sum("total", self.tensors)

    @property
    def pruned(self) -> TensorReport:
        """The pruned tensors together."""
        return _sum("pruned", [tensor for tensor in self.tensors if tensor.pruned])

    def to_json(self) -> dict[str, Any]:
        """The contract of `--json`."""
        total, pruned = self.total, self.pruned
        return {
            "file": str(self.file),
            "tensors": [asdict(tensor) | {"shape": list(tensor.shape)} for tensor in self.tensors],
            "total": {
                "nnz": total.nnz,
                "sparsity": total.sparsity,
                "bytes": asdict(total.bytes),
                "on_disk": self.file_bytes,
            },
            "pruned": {"nnz": pruned.nnz, "sparsity": pruned.sparsity, "bytes": asdict(pruned.bytes)},
            "stacks": list(self.stacks),
            "aliases": self.aliases,
            "notes": list(self.notes),
        }


def report(path: Path | None) -> Report:
    """Read a run folder, any checkpoint or a sparse file; no task, no user code."""
    path = newest_run(Path()) if path is None else path
    file = model_of(path)
    stored = read_sparse(file) if is_sparse_file(file) else open_checkpoint(file)  # a sparse file stays sparse
    items: Mapping[str, Stored | LazyTensor] = stored.stored if isinstance(stored, Checkpoint) else stored.tensors
    mapped = None if isinstance(stored, Checkpoint) else stored.mapped
    shapes = {name: tuple(tensor.shape) for name, tensor in items.items()}
    shapes |= {alias: shapes[name] for alias, name in stored.aliases.items()}
    found = find_stacks(shapes)
    reasons = _reasons(stored, shapes, found)
    return Report(
        path=path,
        file=file,
        file_bytes=file.stat().st_size,
        stacks=tuple(f"{stack.prefix or 'top level'}: {stack.label}" for stack in found.stacks),
        tensors=tuple(_describe(name, item, _nnz(item, mapped), *reasons[name]) for name, item in items.items()),
        aliases=dict(stored.aliases),
        notes=(*(stored.notes if isinstance(stored, Checkpoint) else ("This is a sparse file.",)), *_missing_engine()),
    )


def _missing_engine() -> tuple[str, ...]:
    """What a person should know who wonders why a sparse model is slow here."""
    reason = native.unavailable_reason()
    return () if reason is None else (f"No native engine here, torch.sparse runs sparse layers: {reason}.",)


def _reasons(
    stored: SparseFile | Checkpoint, shapes: dict[str, Shape], found: Recognised
) -> dict[str, tuple[bool, str]]:
    """Pruned or not and why: as the pruning run recorded it, else what a run with default settings would decide."""
    recorded = stored.metadata.get("choices", {})
    roles = roles_from_shapes(shapes)
    ties = {name: alias for alias, name in stored.aliases.items() if roles[alias] not in PRUNED_BY_DEFAULT}
    reasons = {}
    for name, role in roles.items():
        choice = recorded.get(name, {}) if isinstance(recorded, dict) else {}
        if isinstance(choice, dict) and isinstance(choice.get("reason"), str):
            reasons[name] = (choice.get("pruned") is True, choice["reason"])
        elif role in PRUNED_BY_DEFAULT and (tied := ties.get(name)):
            reasons[name] = (False, f"tied to {tied} ({roles[tied]}: not pruned by default)")
        elif role in PRUNED_BY_DEFAULT:
            why = "not trained by the run, so left as it is" if recorded else "not pruned yet"
            reasons[name] = (False, f"{role} weight, {why}")
        else:
            reasons[name] = (False, found.problems.get(name, f"{role}: not pruned by default"))
    return reasons


def _nnz(item: Stored | LazyTensor, mapped: MappedFile | None) -> int:
    if isinstance(item, Csr | Bitmask):
        return item.nnz
    return lazy(item.values if isinstance(item, Bsr) else item, mapped).count_nonzero()


def _describe(name: str, tensor: Stored | LazyTensor, nnz: int, pruned: bool, reason: str) -> TensorReport:
    shape = tuple(tensor.shape)
    count = math.prod(shape)
    dense = count * FLOAT32
    csr = bitmask = in_memory = dense  # what is no matrix stays dense in every form
    if len(shape) == 2:
        csr = csr_nbytes((shape[0], shape[1]), nnz, FLOAT32)
        bitmask = bitmask_nbytes(shape, nnz, FLOAT32)
        in_memory = min(dense, packed_nbytes((shape[0], shape[1]), nnz))
    sizes = Bytes(dense, csr, bitmask, tensor.nbytes, in_memory)
    return TensorReport(name, shape, pruned, reason, nnz, 1.0 - nnz / count if count else 0.0, sizes)


def _sum(name: str, tensors: list[TensorReport] | tuple[TensorReport, ...]) -> TensorReport:
    count = sum(math.prod(tensor.shape) for tensor in tensors)
    nnz = sum(tensor.nnz for tensor in tensors)
    sizes = sum((tensor.bytes for tensor in tensors), Bytes(0, 0, 0, 0, 0))
    return TensorReport(name, (count,), True, "", nnz, 1.0 - nnz / count if count else 0.0, sizes)

"""`rnnprune export`: a file that is as small as the model is sparse, read back and compared before it counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rnnprune.errors import StorageError, UsageError
from rnnprune.formats.checkpoint import read_checkpoint
from rnnprune.formats.container import write_dense
from rnnprune.formats.options import ExportFormat, Values
from rnnprune.formats.sparse import Cast, cast_values, csr_or_dense, write_sparse
from rnnprune.workflows.subject import Subject, open_subject

DTYPES: dict[Values, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Exported:
    """The file, its size, and the size of the same tensors dense in float32."""

    source: Path
    path: Path
    format: ExportFormat
    values: Values
    bytes: int
    dense_bytes: int
    underflowed: int

    def to_json(self) -> dict[str, Any]:
        """The contract of `--json`."""
        return {
            "source": str(self.source),
            "file": str(self.path),
            "format": self.format,
            "values": self.values,
            "bytes": self.bytes,
            "dense_bytes": self.dense_bytes,
            "underflowed": self.underflowed,
        }


def export(path: Path | None, form: ExportFormat, values: Values = "fp32", out: Path | None = None) -> Exported:
    """Write the file, read it back, compare it with its source to the bit; a difference removes it again."""
    subject = open_subject(path)
    source = subject.checkpoint
    out = out or default_file(subject, form, values)
    if out.exists() and out.resolve() == source.path.resolve():
        raise UsageError(f"--out {out} is the file that is being exported; choose another name")
    cast = {name: _cast(tensor, values, name) for name, tensor in source.tensors.items()}
    tensors = {name: each.tensor for name, each in cast.items()}
    metadata = {**source.metadata, "values": values}
    if form == "csr":
        write_sparse(out, {name: csr_or_dense(tensor) for name, tensor in tensors.items()}, source.aliases, metadata)
    else:
        write_dense(out, tensors, source.aliases, metadata)
    _compare(out, tensors, source.aliases)
    return Exported(
        source=subject.path,
        path=out,
        format=form,
        values=values,
        bytes=out.stat().st_size,
        dense_bytes=sum(tensor.numel() * 4 for tensor in source.tensors.values()),
        underflowed=sum(each.underflowed for each in cast.values()),
    )


def default_file(subject: Subject, form: ExportFormat, values: Values) -> Path:
    """`model.csr.safetensors` in a run folder, `<stem>.csr.safetensors` beside any other file; fp16 and bf16 say so."""
    source = subject.checkpoint.path
    suffix = "" if values == "fp32" else f".{values}"
    stem = source.name.removesuffix(source.suffix)
    return source.with_name(f"{stem}.{form}{suffix}.safetensors")


def _cast(tensor: Tensor, values: Values, name: str) -> Cast:
    """Float matrices in the dtype of the values; biases and norms, small and delicate, keep their own."""
    if not tensor.is_floating_point() or tensor.ndim < 2:
        return Cast(tensor, underflowed=0)
    return cast_values(tensor, DTYPES[values], name=name)


def _compare(out: Path, tensors: Mapping[str, Tensor], aliases: Mapping[str, str]) -> None:
    written = read_checkpoint(out)
    wrong = [name for name, tensor in tensors.items() if not _same(written.tensors.get(name), tensor)]
    if wrong or written.aliases != aliases:
        out.unlink()
        raise StorageError(
            f"{out} did not read back as it was written ({', '.join(wrong) or 'aliases'}); it was removed, "
            "try another disk"
        )


def _same(found: Tensor | None, expected: Tensor) -> bool:
    if found is None or found.dtype != expected.dtype or found.shape != expected.shape:
        return False
    return bool(((found == expected) | (found.isnan() & expected.isnan())).all())

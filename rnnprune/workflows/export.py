"""`rnnprune export`: a file that is as small as the model is sparse, read back and compared before it counts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rnnprune.errors import StorageError, UsageError
from rnnprune.formats.checkpoint import read_checkpoint
from rnnprune.formats.container import read_metadata, write_dense
from rnnprune.formats.options import ExportFormat, Values
from rnnprune.formats.sparse import Cast, cast_values, csr_or_dense, write_sparse
from rnnprune.workflows.subject import Subject, open_subject

SOURCE_KEY = "source"  # in the metadata of an export: the name of the file it was made from
DTYPES: Mapping[Values, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


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


def export(
    path: Path | None, form: ExportFormat, values: Values = "keep", out: Path | None = None, *, overwrite: bool = False
) -> Exported:
    """Write the file beside its final name, read it back, compare it with what it should hold, then name it.

    "keep" leaves every tensor's dtype as it is; others cast the matrices, and the comparison is with the cast values.
    """
    subject = open_subject(path)
    source = subject.checkpoint
    out = out or default_file(subject, form, values)
    _require_free(out, source.path, overwrite=overwrite)
    cast = {name: _cast(tensor, values, name) for name, tensor in source.tensors.items()}
    tensors = {name: each.tensor for name, each in cast.items()}
    metadata = {**source.metadata, "values": values, SOURCE_KEY: source.path.name}
    unchecked = out.with_name(f".{out.name}.unchecked")
    try:
        if form == "csr":
            stored = {name: csr_or_dense(tensor) for name, tensor in tensors.items()}
            write_sparse(unchecked, stored, source.aliases, metadata)
        else:
            write_dense(unchecked, tensors, source.aliases, metadata)
        _compare(unchecked, tensors, source.aliases)
        unchecked.replace(out)
    except OSError as error:
        raise StorageError(f"{out} cannot be written: {error.strerror}; choose another --out") from error
    finally:
        unchecked.unlink(missing_ok=True)
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
    suffix = "" if values in ("keep", "fp32") else f".{values}"
    stem = source.name.removesuffix(source.suffix)
    return source.with_name(f"{stem}.{form}{suffix}.safetensors")


def _require_free(out: Path, source: Path, *, overwrite: bool) -> None:
    """An older export of the same file may be replaced; anything else only when that was asked for."""
    if not out.exists():
        return
    if out.resolve() == source.resolve():
        raise UsageError(f"--out {out} is the file that is being exported; choose another name")
    try:
        exported_from = json.loads(read_metadata(out).get("rnnprune", "{}")).get(SOURCE_KEY)
    except (ValueError, AttributeError):
        exported_from = None
    if exported_from != source.name and not overwrite:
        raise UsageError(
            f"{out} is already there and no export of {source.name}; choose another --out, or pass --overwrite"
        )


def _cast(tensor: Tensor, values: Values, name: str) -> Cast:
    """Float matrices in the dtype of the values; biases and norms, small and delicate, keep their own."""
    if values == "keep" or not tensor.is_floating_point() or tensor.ndim < 2:
        return Cast(tensor, underflowed=0)
    return cast_values(tensor, DTYPES[values], name=name)


def _compare(path: Path, tensors: Mapping[str, Tensor], aliases: Mapping[str, str]) -> None:
    written = read_checkpoint(path)
    wrong = [name for name, tensor in tensors.items() if not _same(written.tensors.get(name), tensor)]
    if wrong or written.aliases != aliases:
        raise StorageError(
            f"{path} did not read back as it was written ({', '.join(wrong) or 'aliases'}); it was removed, "
            "try another disk"
        )


def _same(found: Tensor | None, expected: Tensor) -> bool:
    if found is None or found.dtype != expected.dtype or found.shape != expected.shape:
        return False
    return bool(((found == expected) | (found.isnan() & expected.isnan())).all())

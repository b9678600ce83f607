"""`rnnprune export`: a file that is as small as the model is sparse, read back and compared before it counts."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from rnnprune.errors import StorageError, UsageError
from rnnprune.formats.bitmask import bitmask_layout
from rnnprune.formats.bsr import bsr_layout
from rnnprune.formats.checkpoint import open_checkpoint
from rnnprune.formats.container import read_metadata, write_dense
from rnnprune.formats.int8 import SCALES, rounded_to_int8
from rnnprune.formats.layout import Layout, csr_layout, dense_layout, underflow
from rnnprune.formats.lazy import LazyTensor, in_dtype
from rnnprune.formats.options import ExportFormat, Values
from rnnprune.formats.run_folder import MANIFEST
from rnnprune.formats.sparse import write_sparse
from rnnprune.kernels.csr import nonzero_count
from rnnprune.pruning.options import SINGLE_WEIGHT, Block
from rnnprune.workflows.subject import Subject, open_subject

SOURCE_KEY = "source"  # in the metadata of an export: the name of the file it was made from
DTYPES: Mapping[Values, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Exported:
    """The file, its size, the size of the same tensors dense in float32, and what became of the values.

    sparse: how many matrices are stored so; blocks: which of them in blocks, and of what size; bitmasks: which as
    bitmasks. rounding_error: the largest of int8, as a share of the matrix's largest weight.
    """

    source: Path
    path: Path
    format: ExportFormat
    values: Values
    bytes: int
    dense_bytes: int
    underflowed: int
    sparse: int
    blocks: dict[str, str]
    bitmasks: tuple[str, ...]
    rounding_error: float

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
            "blocks": self.blocks,
            "bitmasks": list(self.bitmasks),
            "rounding_error": self.rounding_error,
        }


def export(
    path: Path | None,
    form: ExportFormat,
    values: Values = "keep",
    out: Path | None = None,
    *,
    block: Block | None = None,
    overwrite: bool = False,
) -> Exported:
    """Write the file beside its final name, read it back, compare it with what it should hold, then name it.

    values: "keep" leaves every tensor's dtype as it is; others cast the matrices, int8 those alone that are stored in
    blocks or as a bitmask, and the comparison is with the cast values. block, of `bsr`: the one of the pruning run if
    not given, else what each matrix's zeros show; a matrix that blocks, or a bitmask, do not make smaller is stored as
    `csr` would.
    """
    _require_sense(form, values, block)
    subject = open_subject(path, lazily=True)
    source = subject.checkpoint
    default = default_file(subject, form, values)
    out = out or default
    _require_free(out, source.path, default, overwrite=overwrite)
    wanted = block or (_recorded_block(subject.path) if form == "bsr" else None)
    prepared = {name: _prepare(name, tensor, form, values, wanted) for name, tensor in source.stored.items()}
    if values == "int8" and not any(SCALES in each.layout.arrays for each in prepared.values()):
        place, remedy = ("as a bitmask", "prune it first, or export with --format csr")
        if form == "bsr":
            place, remedy = ("in blocks", "export with --format bitmask, or prune with --block 16x1")
        raise UsageError(
            f"{source.path}: no matrix in it gets smaller {place}, so there is nothing to store as int8; {remedy}"
        )
    _write(out, form, prepared, source.aliases, {**source.metadata, "values": values, SOURCE_KEY: source.path.name})
    described = {name: each.layout.descriptor for name, each in prepared.items() if each.layout.descriptor is not None}
    return Exported(
        source=subject.path,
        path=out,
        format=form,
        values=values,
        bytes=out.stat().st_size,
        dense_bytes=sum(math.prod(tensor.shape) * 4 for tensor in source.stored.values()),
        underflowed=sum(each.underflowed for each in prepared.values()),
        sparse=len(described),
        blocks={name: str(Block(*each.layout.block)) for name, each in prepared.items() if each.layout.block},
        bitmasks=tuple(name for name, descriptor in described.items() if descriptor["format"] == "bitmask"),
        rounding_error=max((each.rounding_error for each in prepared.values()), default=0.0),
    )


def _require_sense(form: ExportFormat, values: Values, block: Block | None) -> None:
    if form not in ("bsr", "bitmask") and values == "int8":
        raise UsageError(f"--values int8 goes with --format bitmask, or bsr for one pruned in blocks, not with {form}")
    if form != "bsr" and block is not None:
        raise UsageError(f"--block is for matrices in blocks, not for --format {form}; add --format bsr")


def form_for(run: Path) -> ExportFormat:
    """The form in which its zeros pay: `bsr` for a run that was pruned in blocks, else `csr`."""
    return "csr" if _recorded_block(run) is None else "bsr"


def _recorded_block(path: Path) -> Block | None:
    """The block in which a run was pruned; None for single weights, and for a file that no run tells about."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        rows, cols = manifest["pruning"]["selection"]["block"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    is_block = type(rows) is int and type(cols) is int and min(rows, cols) > 0 and (rows, cols) != SINGLE_WEIGHT
    return Block(rows, cols) if is_block else None


def _write(
    out: Path, form: ExportFormat, prepared: Mapping[str, _Prepared], aliases: dict[str, str], metadata: dict[str, Any]
) -> None:
    dense = {name: each.dense for name, each in prepared.items()}
    unchecked = out.with_name(f".{out.name}.unchecked")
    try:
        if form == "dense":
            write_dense(unchecked, dense, aliases, metadata, told_as=out)
        else:
            layouts = {name: each.layout for name, each in prepared.items()}
            write_sparse(unchecked, layouts, aliases, metadata, told_as=out)
        _compare(unchecked, out, dense, aliases)
        unchecked.replace(out)
    except OSError as error:
        raise StorageError(f"{out} cannot be written: {error.strerror}; choose another --out") from error
    finally:
        with contextlib.suppress(OSError):  # a disk that cannot be written has been told already
            unchecked.unlink(missing_ok=True)


def default_file(subject: Subject, form: ExportFormat, values: Values) -> Path:
    """`model.csr.safetensors` in a run folder, `<stem>.csr.safetensors` beside any other file; narrow values say so."""
    source = subject.checkpoint.path
    suffix = "" if values in ("keep", "fp32") else f".{values}"
    stem = source.name.removesuffix(source.suffix)
    return source.with_name(f"{stem}.{form}{suffix}.safetensors")


def _require_free(out: Path, source: Path, default: Path, *, overwrite: bool) -> None:
    """An older export of the same file may be replaced under its default name; all else only when asked for.

    Under any other name it may be another run's: the models of all runs have one name.
    """
    if not out.exists():
        return
    if out.resolve() == source.resolve():
        raise UsageError(f"--out {out} is the file that is being exported; choose another name")
    if not overwrite and not (out == default and _exported_from(out) == source.name):
        raise UsageError(f"{out} is already there; choose another --out, or pass --overwrite")


def _exported_from(path: Path) -> object:
    """The name of the file that this one is an export of, or None."""
    try:
        return json.loads(read_metadata(path).get("rnnprune", "{}")).get(SOURCE_KEY)
    except (ValueError, AttributeError):
        return None


class _Prepared(NamedTuple):
    """How the file will hold a tensor, and what must read back; what the values lost on the way."""

    layout: Layout
    dense: LazyTensor
    underflowed: int
    rounding_error: float = 0.0


def _prepare(name: str, tensor: LazyTensor, form: ExportFormat, values: Values, block: Block | None) -> _Prepared:
    if values == "int8" and (layout := _int8_layout(name, tensor, form, block)) is not None:
        return _in_int8(tensor, layout)
    dense, underflowed = _cast(tensor, values, name)
    layout = None
    if form == "bsr":
        layout = bsr_layout(dense, block)
    elif form == "bitmask":
        layout = bitmask_layout(dense)
    elif form == "dense":
        layout = dense_layout(dense)
    return _Prepared(layout or csr_layout(dense) or dense_layout(dense), dense, underflowed)


def _int8_layout(name: str, tensor: LazyTensor, form: ExportFormat, block: Block | None) -> Layout | None:
    try:
        return bsr_layout(tensor, block, int8=True) if form == "bsr" else bitmask_layout(tensor, int8=True)
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from error


def _in_int8(tensor: LazyTensor, layout: Layout) -> _Prepared:
    dense = rounded_to_int8(tensor)
    error = largest = 0.0
    underflowed = 0
    for before, after in zip(tensor.slabs(), dense.parts(tensor.rows_of_a_slab()), strict=True):
        error = max(error, float((after.double() - before).abs().max()))
        largest = max(largest, float(before.double().abs().max()))
        underflowed += nonzero_count(before) - nonzero_count(after)
    return _Prepared(layout, dense, underflowed, error / largest if largest else 0.0)


def _cast(tensor: LazyTensor, values: Values, name: str) -> tuple[LazyTensor, int]:
    """Float matrices in the dtype of the values, and how many nonzeros became zero; biases and norms, small and
    delicate, keep their own."""
    if values in ("keep", "int8") or not tensor.dtype.is_floating_point or len(tensor.shape) < 2:
        return tensor, 0
    underflowed = underflow(tensor, DTYPES[values], name)
    return in_dtype(tensor, DTYPES[values]), underflowed


def _compare(path: Path, out: Path, tensors: Mapping[str, LazyTensor], aliases: Mapping[str, str]) -> None:
    written = open_checkpoint(path)
    wrong = [name for name, tensor in tensors.items() if not _same(written.stored.get(name), tensor)]
    if wrong or written.aliases != aliases:
        raise StorageError(
            f"{out} did not read back as it was written ({', '.join(wrong) or 'aliases'}); it was removed, "
            "try another disk"
        )


def _same(found: LazyTensor | None, expected: LazyTensor) -> bool:
    if found is None or found.dtype != expected.dtype or found.shape != expected.shape:
        return False
    pairs = zip(found.slabs(), expected.slabs(), strict=True)
    return all(bool(((a == b) | (a.isnan() & b.isnan())).all()) for a, b in pairs)

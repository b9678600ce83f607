"""The sparse file, format 1: plain safetensors with CSR or block arrays. docs/format.md is the specification.

A sparse parameter P of shape [rows, cols] is stored as `P.values`, `P.indices_1` and `P.pointers_to_1` (the names of
binsparse 0.1; single weights, or blocks: formats/bsr.py), or as `P.values` and `P.bits` (formats/bitmask.py); with
`P.scales` where the values are int8. Every other tensor is stored dense under its own name. Metadata:
`rnnprune_format`, `binsparse` (one descriptor per sparse parameter) and `rnnprune` (aliases, order of the names, and
whatever the writer adds).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from rnnprune.errors import InputRefused, UsageError, printable
from rnnprune.formats import forms
from rnnprune.formats.container import (
    check_aliases,
    dump_json,
    in_order,
    parse_json_object,
    read_container,
    read_metadata,
    write_container,
)
from rnnprune.formats.forms import Stored
from rnnprune.formats.kinds import MAX_NAME
from rnnprune.formats.layout import Arrays, Layout
from rnnprune.formats.layout import Cast as Cast
from rnnprune.formats.layout import cast_values as cast_values
from rnnprune.formats.layout import csr_or_dense as csr_or_dense
from rnnprune.formats.lazy import Item, MappedFile

FORMAT = "1"
FREE_DENSE_BYTES = 2**26
DENSE_BYTES_PER_FILE_BYTE = 1000  # 99.9 % sparse is about 600: beyond that, a file of kilobytes claims gigabytes


@dataclass(frozen=True, eq=False)
class SparseFile:
    """What a sparse file holds: `aliases` maps the further names of tied tensors to keys of `tensors`."""

    tensors: dict[str, Stored]
    aliases: dict[str, str]
    metadata: dict[str, Any]
    mapped: MappedFile


def is_sparse_file(path: Path) -> bool:
    """Whether the header says that this is a sparse file, of whatever version; reads nothing else.

    `binsparse` alone says it too, and `read_sparse` then refuses the file: its arrays are no dense tensors.
    """
    return not read_metadata(path).keys().isdisjoint({"rnnprune_format", "binsparse"})


def write_sparse(
    path: Path,
    tensors: Mapping[str, Stored | Layout],
    aliases: Mapping[str, str],
    metadata: Mapping[str, Any],
    *,
    told_as: Path | None = None,
) -> None:
    """Write the file, whole or not at all. Nothing in memory is written that `read_sparse` would refuse.

    told_as: the name that the file is to have, for errors.
    """
    arrays: Arrays = {}
    descriptors: dict[str, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        layout = tensor if isinstance(tensor, Layout) else forms.layout_of(tensor, name)
        parts = {f"{name}.{part}" if part else name: array for part, array in layout.arrays.items()}
        if clash := {name, *parts} & (arrays.keys() | aliases.keys()):
            raise UsageError(
                f"{sorted(clash)[0]}: two tensors would take this name in {told_as or path}; rename one of them"
            )
        arrays |= parts
        if layout.descriptor is not None:
            descriptors[name] = layout.descriptor
    if unknown := sorted(set(aliases.values()) - tensors.keys()):
        raise UsageError(
            f"alias of {unknown[0]}, which is not among the tensors of {told_as or path}; name a stored tensor"
        )
    write_container(
        path,
        arrays,
        {
            "format": "pt",
            "rnnprune_format": FORMAT,
            "binsparse": dump_json(descriptors),
            "rnnprune": dump_json({**metadata, "aliases": dict(aliases), "order": list(tensors)}),
        },
        told_as=told_as,
    )


def read_sparse(path: Path | str) -> SparseFile:
    """Read a sparse file of format 1 (docs/format.md), every matrix as it is stored.

    tensors: by name, a Csr, Bsr or Bitmask for a sparse matrix, a Tensor for all else. metadata: the JSON object
    `rnnprune` of the header, without its `aliases` and `order`. InputRefused, for a missing file too, names the tensor
    and the broken invariant.
    """
    path = Path(path)
    arrays, metadata = read_container(path)
    version = metadata.get("rnnprune_format")
    if version is not None and version != FORMAT:
        raise InputRefused(
            f"{path}: sparse format {version!r}; this rnnprune reads {FORMAT!r}; upgrade rnnprune, or export again"
        )
    if version is None or "binsparse" not in metadata:
        lacking = "rnnprune_format" if version is None else "binsparse"
        raise InputRefused(
            f"{path}: its metadata lack `{lacking}`, so it is not a sparse one; write one with `rnnprune export`"
        )
    about = parse_json_object(path, metadata, "rnnprune")
    mapped = MappedFile(path, arrays.values())
    tensors: dict[str, Stored] = {}
    for name, descriptor in parse_json_object(path, metadata, "binsparse").items():
        tensors[name] = matrix = forms.read_matrix(f"{path}: {printable(name)}", name, descriptor, arrays)
        mapped.drop(*forms.arrays_of(matrix))  # looked at to be checked
    if clash := tensors.keys() & arrays.keys():
        raise InputRefused(
            f"{path}: {printable(sorted(clash)[0])} is stored both sparse and dense; export the file again"
        )
    tensors |= arrays
    aliases = check_aliases(path, about.pop("aliases", {}), tensors)
    _refuse_inflation(path, tensors.values())
    if long := next((name for name in (*tensors, *aliases) if len(name) > MAX_NAME), None):
        raise InputRefused(f"{path}: a name of {len(long)} characters, the limit is {MAX_NAME}; export the file again")
    return SparseFile(in_order(tensors, about.pop("order", [])), aliases, about, mapped)


def densify(file: SparseFile) -> dict[str, Tensor]:
    """Every tensor dense under every one of its names; an alias is the same tensor object, not a copy."""
    dense = {name: forms.to_dense(item) for name, item in file.tensors.items()}
    return dense | {alias: dense[name] for alias, name in file.aliases.items()}


def lazily_dense(file: SparseFile) -> dict[str, Item]:
    """The same, each matrix made dense when it is read."""
    dense = {name: forms.lazily_dense(item, file.mapped) for name, item in file.tensors.items()}
    return dense | {alias: dense[name] for alias, name in file.aliases.items()}


def _refuse_inflation(path: Path, tensors: Iterable[Stored]) -> None:
    """A shape costs its writer nothing, so the dense size it claims is held against the size of the file."""
    matrices = [item for item in tensors if not isinstance(item, Tensor)]
    claimed = sum(math.prod(item.shape) * forms.dtype_of(item).itemsize for item in matrices)
    limit = FREE_DENSE_BYTES + DENSE_BYTES_PER_FILE_BYTE * path.stat().st_size
    if claimed > limit:
        raise InputRefused(
            f"{path}: {path.stat().st_size} bytes that would become {claimed} once dense, the limit is {limit}; "
            "export the file again with its all-zero matrices left out"
        )

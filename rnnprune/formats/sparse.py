"""The sparse file, format 1: plain safetensors with CSR or block arrays. docs/format.md is the specification.

A sparse parameter P of shape [rows, cols] is stored as `P.values`, `P.indices_1` and `P.pointers_to_1` (the names of
binsparse 0.1), with `P.scales` where blocks have int8 values (formats/bsr.py); every other tensor is stored dense under
its own name. Metadata: `rnnprune_format`, `binsparse` (one descriptor per sparse parameter) and `rnnprune` (aliases,
order of the names, and whatever the writer adds).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rnnprune.errors import InputRefused, UsageError, printable
from rnnprune.formats import bsr as blocks
from rnnprune.formats.container import (
    check_aliases,
    dump_json,
    in_order,
    parse_json_object,
    read_container,
    read_metadata,
    write_container,
)
from rnnprune.formats.kinds import MAX_NAME
from rnnprune.formats.layout import (
    BINSPARSE_VERSION,
    CSR,
    PARTS,
    Arrays,
    Layout,
    dense_layout,
    dtype_name,
    layout_of_csr,
)
from rnnprune.formats.layout import Cast as Cast
from rnnprune.formats.layout import cast_values as cast_values
from rnnprune.formats.layout import csr_or_dense as csr_or_dense
from rnnprune.formats.lazy import Item, LazyTensor, MappedFile
from rnnprune.kernels.bsr import Bsr, bsr_rows, bsr_to_dense, validate_bsr
from rnnprune.kernels.csr import Csr, csr_problem, csr_rows, csr_to_dense, validate_csr

FORMAT = "1"
FREE_DENSE_BYTES = 2**26
DENSE_BYTES_PER_FILE_BYTE = 1000  # 99.9 % sparse is about 600: beyond that, a file of kilobytes claims gigabytes

Stored = Csr | Bsr | Tensor


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
        layout = tensor if isinstance(tensor, Layout) else _layout(tensor, name)
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

    tensors: by name, a Csr or Bsr for a sparse matrix, a Tensor for all else. metadata: the JSON object `rnnprune` of
    the header, without its `aliases` and `order`. InputRefused, for a missing file too, names the tensor and the broken
    invariant.
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
        tensors[name] = matrix = _read_matrix(f"{path}: {printable(name)}", name, descriptor, arrays)
        mapped.drop(*_arrays(matrix))  # looked at to be checked
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
    dense = {name: _to_dense(item) for name, item in file.tensors.items()}
    return dense | {alias: dense[name] for alias, name in file.aliases.items()}


def lazily_dense(file: SparseFile) -> dict[str, Item]:
    """The same, each matrix made dense when it is read."""
    dense = {name: _lazily_dense(item, file.mapped) for name, item in file.tensors.items()}
    return dense | {alias: dense[name] for alias, name in file.aliases.items()}


def _to_dense(item: Stored) -> Tensor:
    if isinstance(item, Bsr):
        return bsr_to_dense(item)
    return csr_to_dense(item) if isinstance(item, Csr) else item


def _lazily_dense(item: Stored, mapped: MappedFile) -> Item:
    if isinstance(item, Tensor):
        return item
    high = item.block[0] if isinstance(item, Bsr) else 1

    def parts(rows: int) -> Iterator[Tensor]:
        for begin in range(0, item.shape[0], rows):
            end = min(begin + rows, item.shape[0])
            low = begin - begin % high
            held = _rows(item, low, end + -end % high)
            yield _to_dense(held)[begin - low : end - low]
            mapped.drop(*_arrays(held))

    dtype = torch.float32 if isinstance(item, Bsr) and item.scales is not None else item.values.dtype
    return LazyTensor(item.shape, dtype, lambda: _to_dense(item), parts)


def _rows(matrix: Csr | Bsr, begin: int, end: int) -> Csr | Bsr:
    return bsr_rows(matrix, begin, end) if isinstance(matrix, Bsr) else csr_rows(matrix, begin, end)


def _arrays(matrix: Csr | Bsr) -> tuple[Tensor, ...]:
    if isinstance(matrix, Csr):
        return matrix.crow_indices, matrix.col_indices, matrix.values
    scales = () if matrix.scales is None else (matrix.scales,)
    return matrix.block_crow_indices, matrix.block_col_indices, matrix.values, *scales


def _layout(tensor: Stored, name: str) -> Layout:
    """Of one in memory, once it is known to keep every rule."""
    if isinstance(tensor, Tensor):
        return dense_layout(tensor)
    if isinstance(tensor, Bsr):
        validate_bsr(tensor, name)
        return blocks.layout_of_bsr(tensor)
    validate_csr(tensor, name)
    return layout_of_csr(tensor)


def _read_matrix(where: str, name: str, descriptor: object, arrays: dict[str, Tensor]) -> Csr | Bsr:
    """Take the arrays of one parameter out of `arrays`; everything is checked before the matrix exists."""
    if not isinstance(descriptor, dict):
        raise InputRefused(f"{where}: its binsparse descriptor is not a JSON object; export the file again")
    in_blocks = {key: descriptor.get(key) for key in blocks.FORMAT} == blocks.FORMAT
    if descriptor.get("version") != BINSPARSE_VERSION or not (in_blocks or descriptor.get("format") == CSR):
        told = printable(f"{descriptor.get('version')!r} {descriptor.get('format')!r}")
        raise InputRefused(
            f"{where}: binsparse {told} is not known here, only {BINSPARSE_VERSION!r} {CSR!r} and blocks; "
            "upgrade rnnprune"
        )
    names = blocks.part_names(descriptor) if in_blocks else PARTS
    if missing := [part for part in names if f"{name}.{part}" not in arrays]:
        raise InputRefused(f"{where}: the array {printable(name)}.{missing[0]} is missing; export the file again")
    parts = {part: arrays.pop(f"{name}.{part}") for part in names}
    of_parts = blocks.bsr_of_parts if in_blocks else _csr_of_parts
    found = _descriptor_problem(descriptor, parts) or of_parts(descriptor.get("shape"), parts)
    if isinstance(found, str):
        raise InputRefused(
            f"{where}: {printable(found)}; the file is corrupt or was not written by rnnprune, export it again"
        )
    return found


def _csr_of_parts(claimed: object, parts: Mapping[str, Tensor]) -> Csr | str:
    """The matrix of a described shape, or the first broken invariant."""
    crow_indices, col_indices, values = (parts[part] for part in PARTS)
    shape = tuple(claimed) if isinstance(claimed, list) else ()
    problem = csr_problem(crow_indices, col_indices, values, shape)
    return problem or Csr(crow_indices, col_indices, values, (shape[0], shape[1]))


def _descriptor_problem(descriptor: Mapping[str, Any], parts: Mapping[str, Tensor]) -> str | None:
    """Where the descriptor and the arrays disagree, or None."""
    stored = {part: dtype_name(array.dtype) for part, array in parts.items()}
    if descriptor.get("data_types") != stored:
        return f"data_types {descriptor.get('data_types')} do not match the arrays, {stored}"
    nnz = parts["values"].numel()
    if descriptor.get("number_of_stored_values") != nnz:
        return f"number_of_stored_values is {descriptor.get('number_of_stored_values')}, but there are {nnz} values"
    return None


def _refuse_inflation(path: Path, tensors: Iterable[Stored]) -> None:
    """A shape costs its writer nothing, so the dense size it claims is held against the size of the file."""
    matrices = [item for item in tensors if not isinstance(item, Tensor)]
    claimed = sum(
        math.prod(item.shape) * (item if isinstance(item, Bsr) else item.values).dtype.itemsize for item in matrices
    )
    limit = FREE_DENSE_BYTES + DENSE_BYTES_PER_FILE_BYTE * path.stat().st_size
    if claimed > limit:
        raise InputRefused(
            f"{path}: {path.stat().st_size} bytes that would become {claimed} once dense, the limit is {limit}; "
            "export the file again with its all-zero matrices left out"
        )

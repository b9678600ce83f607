"""The sparse file, format 1: plain safetensors with CSR arrays. docs/format.md is the specification.

A sparse parameter P of shape [rows, cols] is stored as `P.values`, `P.indices_1` and `P.pointers_to_1` (the names of
binsparse 0.1); every other tensor is stored dense under its own name. Metadata: `rnnprune_format`, `binsparse` (one
descriptor per sparse parameter) and `rnnprune` (aliases, order of the names, and whatever the writer adds).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Shaped
from torch import Tensor

from rnnprune.errors import InputRefused, UsageError, printable
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
from rnnprune.kernels.csr import (
    VALUE_DTYPES,
    Csr,
    csr_from_dense,
    csr_nbytes,
    csr_problem,
    csr_to_dense,
    nonzero_count,
    validate_csr,
)

FORMAT = "1"
BINSPARSE_VERSION = "0.1"
PARTS = ("pointers_to_1", "indices_1", "values")  # the names of binsparse; in memory: crow_indices, col_indices, values
FREE_DENSE_BYTES = 2**26
DENSE_BYTES_PER_FILE_BYTE = 1000  # 99.9 % sparse is about 600: beyond that, a file of kilobytes claims gigabytes


@dataclass(frozen=True, eq=False)
class SparseFile:
    """What a sparse file holds: `aliases` maps the further names of tied tensors to keys of `tensors`."""

    tensors: dict[str, Csr | Tensor]
    aliases: dict[str, str]
    metadata: dict[str, Any]


class Cast(NamedTuple):
    """A tensor in another float dtype, and how many nonzeros became zero on the way."""

    tensor: Tensor
    underflowed: int


def is_sparse_file(path: Path) -> bool:
    """Whether the header says that this is one of our sparse files, of whatever version; reads nothing else."""
    return "rnnprune_format" in read_metadata(path)


def cast_values(tensor: Shaped[Tensor, " ..."], dtype: torch.dtype, *, name: str = "tensor") -> Cast:
    """`tensor` in `dtype`; UsageError when a finite value would become infinite, names the largest."""
    if tensor.element_size() == 1:
        tensor = tensor.float()  # torch asks no float8 whether it is infinite; float32 holds them all
    cast = tensor.to(dtype)
    if bool((cast.isinf() & ~tensor.isinf()).any()):
        largest = float(tensor[tensor.isfinite()].abs().max())
        raise UsageError(
            f"{name}: {largest:g} is beyond {_dtype_name(dtype)}, which ends at {torch.finfo(dtype).max:g}; "
            "export with --values bf16 or fp32"
        )
    return Cast(cast, nonzero_count(tensor) - nonzero_count(cast))


def csr_or_dense(
    tensor: Shaped[Tensor, " ..."], values_dtype: torch.dtype | None = None, *, name: str = "tensor"
) -> Csr | Tensor:
    """What the file will hold for one tensor: CSR for a float matrix when that takes fewer bytes, else dense.

    `values_dtype` applies to float tensors of two dimensions or more; biases and norms, small and delicate,
    keep their own.
    """
    if values_dtype is not None and tensor.is_floating_point() and tensor.ndim >= 2:
        tensor = cast_values(tensor, values_dtype, name=name).tensor
    if tensor.ndim != 2 or tensor.dtype not in VALUE_DTYPES or not tensor.isfinite().all():
        return tensor
    rows, cols = tensor.shape
    sparse_bytes = csr_nbytes((rows, cols), nonzero_count(tensor), tensor.element_size())
    return csr_from_dense(tensor) if sparse_bytes < tensor.numel() * tensor.element_size() else tensor


def write_sparse(
    path: Path, tensors: Mapping[str, Csr | Tensor], aliases: Mapping[str, str], metadata: Mapping[str, Any]
) -> None:
    """Write the file, whole or not at all. Nothing is written that `read_sparse` would refuse."""
    arrays: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if isinstance(tensor, Csr):
            validate_csr(tensor, name)
        parts = _stored_arrays(name, tensor)
        if clash := {name, *parts} & (arrays.keys() | aliases.keys()):
            raise UsageError(f"{sorted(clash)[0]}: two tensors would take this name in {path}; rename one of them")
        arrays |= parts
    if unknown := sorted(set(aliases.values()) - tensors.keys()):
        raise UsageError(f"alias of {unknown[0]}, which is not among the tensors of {path}; name a stored tensor")
    descriptors = {name: _descriptor(tensor) for name, tensor in tensors.items() if isinstance(tensor, Csr)}
    write_container(
        path,
        arrays,
        {
            "format": "pt",
            "rnnprune_format": FORMAT,
            "binsparse": dump_json(descriptors),
            "rnnprune": dump_json({**metadata, "aliases": dict(aliases), "order": list(tensors)}),
        },
    )


def read_sparse(path: Path) -> SparseFile:
    """Read a sparse file; InputRefused names the tensor and the broken invariant."""
    arrays, metadata = read_container(path)
    version = metadata.get("rnnprune_format")
    if version is None:
        raise InputRefused(f"{path}: a safetensors file, but not a sparse one; write one with `rnnprune export`")
    if version != FORMAT:
        raise InputRefused(
            f"{path}: sparse format {version!r}; this rnnprune reads {FORMAT!r}; upgrade rnnprune, or export again"
        )
    about = parse_json_object(path, metadata, "rnnprune")
    tensors: dict[str, Csr | Tensor] = {}
    for name, descriptor in parse_json_object(path, metadata, "binsparse").items():
        tensors[name] = _read_csr(f"{path}: {printable(name)}", name, descriptor, arrays)
    if clash := tensors.keys() & arrays.keys():
        raise InputRefused(
            f"{path}: {printable(sorted(clash)[0])} is stored both sparse and dense; export the file again"
        )
    tensors |= arrays
    aliases = check_aliases(path, about.pop("aliases", {}), tensors)
    _refuse_inflation(path, tensors.values())
    if long := next((name for name in (*tensors, *aliases) if len(name) > MAX_NAME), None):
        raise InputRefused(f"{path}: a name of {len(long)} characters, the limit is {MAX_NAME}; export the file again")
    return SparseFile(in_order(tensors, about.pop("order", [])), aliases, about)


def densify(file: SparseFile) -> dict[str, Tensor]:
    """Every tensor dense under every one of its names; an alias is the same tensor object, not a copy."""
    dense = {name: csr_to_dense(item) if isinstance(item, Csr) else item for name, item in file.tensors.items()}
    return dense | {alias: dense[name] for alias, name in file.aliases.items()}


def _stored_arrays(name: str, tensor: Csr | Tensor) -> dict[str, Tensor]:
    if isinstance(tensor, Tensor):
        return {name: tensor}
    parts = (tensor.crow_indices, tensor.col_indices, tensor.values)
    return {f"{name}.{part}": array for part, array in zip(PARTS, parts, strict=True)}


def _descriptor(csr: Csr) -> dict[str, Any]:
    parts = (csr.crow_indices, csr.col_indices, csr.values)
    return {
        "version": BINSPARSE_VERSION,
        "format": "CSR",
        "shape": list(csr.shape),
        "number_of_stored_values": csr.nnz,
        "data_types": {part: _dtype_name(array.dtype) for part, array in zip(PARTS, parts, strict=True)},
    }


def _read_csr(where: str, name: str, descriptor: object, arrays: dict[str, Tensor]) -> Csr:
    """Take the three arrays of one parameter out of `arrays`; everything is checked before the Csr exists."""
    if not isinstance(descriptor, dict):
        raise InputRefused(f"{where}: its binsparse descriptor is not a JSON object; export the file again")
    if (descriptor.get("version"), descriptor.get("format")) != (BINSPARSE_VERSION, "CSR"):
        told = printable(f"{descriptor.get('version')!r} {descriptor.get('format')!r}")
        raise InputRefused(
            f"{where}: binsparse {told} is not known here, only {BINSPARSE_VERSION!r} 'CSR'; upgrade rnnprune"
        )
    if missing := [part for part in PARTS if f"{name}.{part}" not in arrays]:
        raise InputRefused(f"{where}: the array {printable(name)}.{missing[0]} is missing; export the file again")
    crow_indices, col_indices, values = (arrays.pop(f"{name}.{part}") for part in PARTS)
    claimed = descriptor.get("shape")
    shape = tuple(claimed) if isinstance(claimed, list) else ()
    problem = _descriptor_problem(descriptor, (crow_indices, col_indices, values)) or csr_problem(
        crow_indices, col_indices, values, shape
    )
    if problem is not None:
        raise InputRefused(
            f"{where}: {printable(problem)}; the file is corrupt or was not written by rnnprune, export it again"
        )
    return Csr(crow_indices, col_indices, values, (shape[0], shape[1]))


def _descriptor_problem(descriptor: Mapping[str, Any], parts: Sequence[Tensor]) -> str | None:
    """Where the descriptor and the arrays disagree, or None."""
    stored = {part: _dtype_name(array.dtype) for part, array in zip(PARTS, parts, strict=True)}
    if descriptor.get("data_types") != stored:
        return f"data_types {descriptor.get('data_types')} do not match the arrays, {stored}"
    nnz = parts[-1].numel()
    if descriptor.get("number_of_stored_values") != nnz:
        return f"number_of_stored_values is {descriptor.get('number_of_stored_values')}, but there are {nnz} values"
    return None


def _refuse_inflation(path: Path, tensors: Iterable[Csr | Tensor]) -> None:
    """A shape costs its writer nothing, so the dense size it claims is held against the size of the file."""
    claimed = sum(math.prod(item.shape) * item.values.element_size() for item in tensors if isinstance(item, Csr))
    limit = FREE_DENSE_BYTES + DENSE_BYTES_PER_FILE_BYTE * path.stat().st_size
    if claimed > limit:
        raise InputRefused(
            f"{path}: {path.stat().st_size} bytes that would become {claimed} once dense, the limit is {limit}; "
            "export the file again with its all-zero matrices left out"
        )


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")

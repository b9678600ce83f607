"""The forms that a matrix may have in a sparse file, CSR, blocks or a bitmask, and what each can do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rnnprune.errors import InputRefused, printable
from rnnprune.formats import bitmask as bitmasks
from rnnprune.formats import bsr as blocks
from rnnprune.formats.int8 import SCALES
from rnnprune.formats.layout import BINSPARSE_VERSION, CSR, PARTS, Layout, dense_layout, dtype_name, layout_of_csr
from rnnprune.formats.lazy import Item, LazyTensor, MappedFile
from rnnprune.kernels.bitmask import Bitmask, bitmask_rows, bitmask_to_csr, bitmask_to_dense, validate_bitmask
from rnnprune.kernels.bsr import Bsr, bsr_rows, bsr_to_csr, bsr_to_dense, validate_bsr
from rnnprune.kernels.csr import Csr, csr_problem, csr_rows, csr_to_dense, validate_csr

Matrix = Csr | Bsr | Bitmask
Stored = Matrix | Tensor


class Form(NamedTuple):
    """said: what its descriptor holds; parts: its arrays in the file, and the names that they have in memory.

    of_parts: the matrix of a described shape, or the first broken invariant. rows: some of a matrix, as one of its own.
    scaled: whether values may be int8, with their scales.
    """

    said: Mapping[str, Any]
    parts: Mapping[str, str]
    scaled: bool
    of_parts: Callable[[object, Mapping[str, Tensor]], Matrix | str]
    validate: Callable[[Any, str], None]
    layout: Callable[[Any], Layout]
    rows: Callable[[Any, int, int], Matrix]
    to_dense: Callable[[Any], Tensor]
    to_csr: Callable[[Any], Csr]


def _csr_of_parts(claimed: object, parts: Mapping[str, Tensor]) -> Csr | str:
    crow_indices, col_indices, values = (parts[part] for part in PARTS)
    shape = tuple(claimed) if isinstance(claimed, list) else ()
    problem = csr_problem(crow_indices, col_indices, values, shape)
    return problem or Csr(crow_indices, col_indices, values, (shape[0], shape[1]))


FORMS: Mapping[type[Matrix], Form] = {
    Csr: Form(
        said={"format": CSR},
        parts=dict(zip(PARTS, ("crow_indices", "col_indices", "values"), strict=True)),
        scaled=False,
        of_parts=_csr_of_parts,
        validate=validate_csr,
        layout=layout_of_csr,
        rows=csr_rows,
        to_dense=csr_to_dense,
        to_csr=lambda csr: csr,
    ),
    Bsr: Form(
        said=blocks.FORMAT,
        parts=dict(zip(PARTS, ("block_crow_indices", "block_col_indices", "values"), strict=True)),
        scaled=True,
        of_parts=blocks.bsr_of_parts,
        validate=validate_bsr,
        layout=blocks.layout_of_bsr,
        rows=bsr_rows,
        to_dense=bsr_to_dense,
        to_csr=bsr_to_csr,
    ),
    Bitmask: Form(
        said=bitmasks.FORMAT,
        parts={part: part for part in bitmasks.PARTS},
        scaled=True,
        of_parts=bitmasks.bitmask_of_parts,
        validate=validate_bitmask,
        layout=bitmasks.layout_of_bitmask,
        rows=bitmask_rows,
        to_dense=bitmask_to_dense,
        to_csr=bitmask_to_csr,
    ),
}


def as_csr(item: Stored) -> Csr | Tensor:
    """A matrix as the engines take it, whatever its form in the file."""
    return item if isinstance(item, Tensor) else FORMS[type(item)].to_csr(item)


def to_dense(item: Stored) -> Tensor:
    """Int8 values multiplied out in float32; a dense tensor is itself."""
    return item if isinstance(item, Tensor) else FORMS[type(item)].to_dense(item)


def lazily_dense(item: Stored, mapped: MappedFile) -> Item:
    """The same, made dense when it is read."""
    if isinstance(item, Tensor):
        return item
    form, high = FORMS[type(item)], item.block[0] if isinstance(item, Bsr) else 1

    def parts(rows: int) -> Iterator[Tensor]:
        for begin in range(0, item.shape[0], rows):
            end = min(begin + rows, item.shape[0])
            low = begin - begin % high
            held = form.rows(item, low, end + -end % high)
            yield to_dense(held)[begin - low : end - low]
            mapped.drop(*arrays_of(held), *([item.bits] if isinstance(item, Bitmask) else []))

    return LazyTensor(item.shape, dtype_of(item), lambda: to_dense(item), parts)


def dtype_of(matrix: Matrix) -> torch.dtype:
    """Of the dense matrix."""
    return matrix.values.dtype if isinstance(matrix, Csr) else matrix.dtype


def arrays_of(matrix: Matrix) -> list[Tensor]:
    """All that it is made of."""
    arrays = (getattr(matrix, name, None) for name in (*FORMS[type(matrix)].parts.values(), SCALES))
    return [array for array in arrays if array is not None]


def layout_of(tensor: Stored, name: str) -> Layout:
    """Of one in memory, once it is known to keep every rule."""
    if isinstance(tensor, Tensor):
        return dense_layout(tensor)
    form = FORMS[type(tensor)]
    form.validate(tensor, name)
    return form.layout(tensor)


def read_matrix(where: str, name: str, descriptor: object, arrays: dict[str, Tensor]) -> Matrix:
    """Take the arrays of one parameter out of `arrays`; everything is checked before the matrix exists."""
    if not isinstance(descriptor, dict):
        raise InputRefused(f"{where}: its binsparse descriptor is not a JSON object; export the file again")
    form = next((form for form in FORMS.values() if form.said.items() <= descriptor.items()), None)
    if descriptor.get("version") != BINSPARSE_VERSION or form is None:
        told = printable(f"{descriptor.get('version')!r} {descriptor.get('format')!r}")
        raise InputRefused(
            f"{where}: binsparse {told} is not known here, only {BINSPARSE_VERSION!r} {CSR!r}, blocks and bitmasks; "
            "export the file again, or upgrade rnnprune"
        )
    types = descriptor.get("data_types")
    names = [*form.parts, SCALES] if form.scaled and isinstance(types, dict) and SCALES in types else [*form.parts]
    if missing := [part for part in names if f"{name}.{part}" not in arrays]:
        raise InputRefused(f"{where}: the array {printable(name)}.{missing[0]} is missing; export the file again")
    parts = {part: arrays.pop(f"{name}.{part}") for part in names}
    found = _descriptor_problem(descriptor, parts) or form.of_parts(descriptor.get("shape"), parts)
    if isinstance(found, str):
        raise InputRefused(
            f"{where}: {printable(found)}; the file is corrupt or was not written by rnnprune, export it again"
        )
    return found


def _descriptor_problem(descriptor: Mapping[str, Any], parts: Mapping[str, Tensor]) -> str | None:
    """Where the descriptor and the arrays disagree, or None."""
    stored = {part: dtype_name(array.dtype) for part, array in parts.items()}
    if descriptor.get("data_types") != stored:
        return f"data_types {descriptor.get('data_types')} do not match the arrays, {stored}"
    nnz = parts["values"].numel()
    if descriptor.get("number_of_stored_values") != nnz:
        return f"number_of_stored_values is {descriptor.get('number_of_stored_values')}, but there are {nnz} values"
    return None

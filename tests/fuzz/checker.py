"""The sparse file, format 1, read and judged from docs/format.md alone, with struct, json, numpy and scipy."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

Array = np.ndarray[Any, Any]
DTYPES = {  # in the file -> its name, and what numpy reads it as
    "BOOL": ("bool", "u1"), "U8": ("uint8", "u1"), "I8": ("int8", "i1"),
    "U16": ("uint16", "<u2"), "U32": ("uint32", "<u4"), "U64": ("uint64", "<u8"),
    "I16": ("int16", "<i2"), "I32": ("int32", "<i4"), "I64": ("int64", "<i8"),
    "F16": ("float16", "<f2"), "BF16": ("bfloat16", "<u2"), "F32": ("float32", "<f4"), "F64": ("float64", "<f8"),
    "C64": ("complex64", "<c8"), "F8_E8M0": ("float8_e8m0fnu", "u1"),
    "F8_E4M3": ("float8_e4m3fn", "u1"), "F8_E4M3FNUZ": ("float8_e4m3fnuz", "u1"),
    "F8_E5M2": ("float8_e5m2", "u1"), "F8_E5M2FNUZ": ("float8_e5m2fnuz", "u1"),
}  # fmt: skip
VALUES = ("F32", "F16", "BF16", "F64")
BLOCKS = {"level_desc": "dense", "rank": 2, "level": {"level_desc": "element"}}
BLOCKS = {"level_desc": "dense", "rank": 1, "level": {"level_desc": "sparse", "rank": 1, "level": BLOCKS}}
MAX_HEADER, MAX_DIM, MAX_ELEMENTS, MAX_NAME, MAX_NAMES, MAX_DEPTH = 10**8, 2**31 - 1, 2**32, 1000, 20_000, 100
FREE_BYTES, PER_BYTE = 2**26, 1000


class Broken(Exception):
    """A rule of the format that the file breaks."""


class Stored(NamedTuple):
    """One array as it lies in the file."""

    dtype: str
    shape: list[int]
    data: bytes

    @property
    def elements(self) -> Array:
        """Flat; bfloat16 as float32."""
        raw: Array = np.frombuffer(self.data, DTYPES[self.dtype][1])
        return (raw.astype("<u4") << 16).view("<f4") if self.dtype == "BF16" else raw


class Contents(NamedTuple):
    """matrices: every sparse parameter in float64; arrays: every other tensor; aliases: name -> stored name."""

    matrices: dict[str, sparse.csr_matrix]
    arrays: dict[str, Stored]
    aliases: dict[str, str]


def need(kept: object, rule: str) -> None:
    """Broken, unless the rule is kept."""
    if not kept:
        raise Broken(rule)


def check(data: bytes) -> Contents:
    """What a file holds that keeps every rule; Broken names the first rule that it does not."""
    arrays, metadata = container(data)
    need(metadata.get("rnnprune_format") == "1" and "binsparse" in metadata, "rnnprune_format, binsparse")
    matrices, claimed = {}, 0
    for name, told in json_object(metadata["binsparse"]).items():
        need(isinstance(told, dict) and told.get("version") == "0.1", "descriptor version")
        in_blocks = told.get("format") == "custom" and told.get("custom") == {"level": BLOCKS}
        as_bitmask = told.get("format") == "bitmask"
        need(in_blocks or as_bitmask or told.get("format") == "CSR", "descriptor format")
        types = told.get("data_types")
        need(isinstance(types, dict), "data_types")
        parts = ["bits", "values"] if as_bitmask else ["pointers_to_1", "indices_1", "values"]
        parts += ["scales"] if (in_blocks or as_bitmask) and "scales" in types else []
        need(all(f"{name}.{part}" in arrays for part in parts), "an array is missing")
        held = {part: arrays.pop(f"{name}.{part}") for part in parts}
        need(types == {part: DTYPES[array.dtype][0] for part, array in held.items()}, "data_types disagree")
        need(told.get("number_of_stored_values") == len(held["values"].elements), "number_of_stored_values")
        read = blocks if in_blocks else bitmask if as_bitmask else csr
        shape, itemsize, build = read(told.get("shape"), held)
        claimed += math.prod(shape) * itemsize
        matrices[name] = build
    need(not matrices.keys() & arrays.keys(), "stored twice")
    need(claimed <= FREE_BYTES + PER_BYTE * len(data), "dense size")
    aliases = json_object(metadata.get("rnnprune", "{}")).get("aliases", {})
    names = matrices.keys() | arrays.keys()
    need(isinstance(aliases, dict), "aliases")
    need(
        all(isinstance(name, str) and name in names and alias not in names for alias, name in aliases.items()), "alias"
    )
    need(len(names) + len(aliases) <= MAX_NAMES, "number of names")
    need(all(len(name) <= MAX_NAME for name in (*names, *aliases)), "length of a name")
    return Contents({name: build() for name, build in matrices.items()}, arrays, aliases)


def container(data: bytes) -> tuple[dict[str, Stored], dict[str, str]]:
    """The arrays and the metadata of a safetensors file."""
    need(len(data) >= 8, "length")
    length = struct.unpack_from("<Q", data)[0]
    need(length <= MAX_HEADER and 8 + length <= len(data) and data[8:9] == b"{", "header length")
    try:
        header = json.loads(data[8 : 8 + length].decode(), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise Broken(f"header: {error}") from error
    metadata = header.pop("__metadata__", None) or {}
    need(isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values()), "metadata")
    arrays, end, body = {}, 0, data[8 + length :]
    for name, entry in sorted(header.items(), key=lambda pair: offsets(pair[1])):
        begin, stop = offsets(entry)
        dtype, shape = entry.get("dtype"), entry.get("shape")
        need(isinstance(dtype, str) and dtype in DTYPES, "dtype")
        need(isinstance(shape, list) and all(type(size) is int and 0 <= size < 2**63 for size in shape), "shape")
        need(begin == end and stop - begin == math.prod(shape) * np.dtype(DTYPES[dtype][1]).itemsize, "offsets")
        arrays[name], end = Stored(dtype, shape, body[begin:stop]), stop
    need(end == len(body), "the file ends elsewhere")
    return arrays, metadata


def offsets(entry: Any) -> tuple[int, int]:
    """Begin and end of an array."""
    pair = entry.get("data_offsets") if isinstance(entry, dict) else None
    need(
        isinstance(pair, list) and len(pair) == 2 and all(type(place) is int and place >= 0 for place in pair),
        "offsets",
    )
    return pair[0], pair[1]


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, whose keys are all different."""
    need(len(dict(pairs)) == len(pairs), "a name twice")
    return dict(pairs)


def json_object(text: str) -> dict[str, Any]:
    """An object of JSON proper: finite numbers, bearable depth."""

    def finite(number: str) -> float:
        need(math.isfinite(float(number)), "a number that is not finite")
        return float(number)

    try:
        value = json.loads(text, parse_float=finite, parse_constant=finite, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise Broken(f"JSON: {error}") from error
    need(isinstance(value, dict) and depth(value) <= MAX_DEPTH, "JSON object of bearable depth")
    return value  # type: ignore[no-any-return]


def depth(value: object) -> int:
    """How deep it nests; the value itself counts 0."""
    below = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    return 1 + max(map(depth, below)) if below else 0


def sizes_of(shape: object, dimensions: int) -> list[int]:
    """A described shape, every size in its limits."""
    need(isinstance(shape, list) and len(shape) == dimensions, "dimensions")
    need(all(type(size) is int and 0 <= size <= MAX_DIM for size in shape), "size")  # type: ignore[attr-defined]
    return shape  # type: ignore[return-value]


def indices(crow: Stored, col: Stored, count: int, rows: int, cols: int) -> tuple[Array, Array]:
    """Pointers and indices that keep the rules of CSR."""
    need(crow.dtype == ("I32" if count < 2**31 else "I64") and crow.shape == [rows + 1], "pointers_to_1")
    need(col.dtype == ("U16" if cols <= 65_536 else "I32") and col.shape == [count], "indices_1")
    pointers, columns = crow.elements.astype(np.int64), col.elements.astype(np.int64)
    need(pointers[0] == 0 and pointers[-1] == count and (np.diff(pointers) >= 0).all(), "pointers")
    need(((columns >= 0) & (columns < cols)).all(), "range of indices")
    places = np.repeat(np.arange(rows), np.diff(pointers)) * (cols + 1) + columns
    need((np.diff(places) > 0).all(), "order of indices")
    return pointers, columns


Built = tuple[tuple[int, int], int, Callable[[], sparse.csr_matrix]]


def csr(shape: object, held: dict[str, Stored]) -> Built:
    """Shape, bytes of an element once dense, and the matrix."""
    rows, cols = sizes_of(shape, 2)
    need(rows * cols <= MAX_ELEMENTS, "elements")
    stored = held["values"]
    need(stored.dtype in VALUES and len(stored.shape) == 1, "values")
    values = stored.elements.astype(np.float64)
    pointers, columns = indices(held["pointers_to_1"], held["indices_1"], len(values), rows, cols)
    need(np.isfinite(values).all() and values.all(), "values finite and not zero")
    itemsize = np.dtype(DTYPES[stored.dtype][1]).itemsize
    return (rows, cols), itemsize, lambda: sparse.csr_matrix((values, columns, pointers), (rows, cols))


def blocks(shape: object, held: dict[str, Stored]) -> Built:
    """The same of a matrix in blocks."""
    down, across, high, wide = sizes_of(shape, 4)
    rows, cols = down * high, across * wide
    need(high and wide and max(rows, cols) <= MAX_DIM and rows * cols <= MAX_ELEMENTS, "elements")
    stored = held["values"]
    need(len(stored.shape) == 3 and stored.shape[1:] == [high, wide], "values")
    values = stored.elements.reshape(stored.shape)
    pointers, columns = indices(held["pointers_to_1"], held["indices_1"], len(values), down, across)
    need(values.any(axis=(1, 2)).all(), "a block of zeros")
    itemsize = np.dtype(DTYPES[stored.dtype][1]).itemsize
    scale = np.ones(rows)
    if stored.dtype == "I8":
        itemsize, scale = 4, scales(held.get("scales"), values, pointers, rows)
    else:
        need(stored.dtype in VALUES and "scales" not in held, "values")
        need(np.isfinite(values).all() and not (np.signbit(values) & (values == 0)).any(), "values finite, no -0.0")

    def build() -> sparse.csr_matrix:
        whole = sparse.bsr_matrix((values.astype(np.float64), columns, pointers), (rows, cols)).tocsr()
        whole = sparse.csr_matrix(sparse.diags_array(scale) @ whole) if stored.dtype == "I8" else whole
        whole.data = whole.data.astype(np.float32).astype(np.float64) if stored.dtype == "I8" else whole.data
        whole.eliminate_zeros()
        whole.sort_indices()
        return whole

    return (rows, cols), itemsize, build


def bitmask(shape: object, held: dict[str, Stored]) -> Built:
    """The same of a matrix with one bit for each element."""
    rows, cols = sizes_of(shape, 2)
    count = rows * cols
    need(0 < count <= MAX_ELEMENTS, "elements")
    bits, stored = held["bits"], held["values"]
    need(bits.dtype == "U8" and bits.shape == [(count + 7) // 8], "bits")
    need(len(stored.shape) == 1, "values")
    flags = np.array([byte >> bit & 1 for byte in bits.data for bit in range(8)], bool)
    need(not flags[count:].any(), "the last byte ends in zeros")
    kept, values = flags[:count].reshape(rows, cols), stored.elements
    need(kept.sum() == len(values) and values.all(), "as many values, none of them zero")
    itemsize, pointers = np.dtype(DTYPES[stored.dtype][1]).itemsize, np.concatenate([[0], kept.sum(1).cumsum()])
    scale = np.ones(rows)
    if stored.dtype == "I8":
        itemsize, scale = 4, scales(held.get("scales"), values[:, None, None], pointers, rows)
    else:
        need(stored.dtype in VALUES and "scales" not in held, "values")
        need(np.isfinite(values).all(), "values finite")

    def build() -> sparse.csr_matrix:
        whole = np.zeros((rows, cols))
        whole[kept] = values.astype(np.float64)
        whole = whole * scale[:, None]
        found = sparse.csr_matrix(whole.astype(np.float32).astype(np.float64) if stored.dtype == "I8" else whole)
        found.eliminate_zeros()
        return found

    return (rows, cols), itemsize, build


def scales(stored: Stored | None, values: Array, pointers: Array, rows: int) -> Array:
    """The scales of int8 values, row by row."""
    if stored is None or stored.dtype != "F32" or stored.shape != [rows]:
        raise Broken("scales")
    need((values != -128).all(), "-128")
    scale, largest = stored.elements, np.zeros(rows, np.int64)
    high = values.shape[1]
    for down in range(rows // high):
        block_row = values[pointers[down] : pointers[down + 1]].astype(np.int64)
        if len(block_row):
            largest[down * high : (down + 1) * high] = np.abs(block_row).max(axis=(0, 2))
    with np.errstate(over="ignore"):
        usable = (scale >= np.finfo(np.float32).smallest_normal) & np.isfinite(scale * np.float32(127))
    unused = (scale == 0) & ~np.signbit(scale)
    need(np.where(largest == 127, usable, unused & (largest == 0)).all(), "a scale that makes the largest 127")
    return scale.astype(np.float64)

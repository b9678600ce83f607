"""Safetensors taken apart, changed in one of its parts, and put together again: header, metadata, arrays, offsets."""

from __future__ import annotations

import contextlib
import functools
import json
import random
import struct
from collections.abc import Callable
from typing import Any, cast

import numpy as np

from tests.fuzz.tokens import wreck_bytes, wreck_text

DTYPES = {
    "I8": "i1", "U8": "u1", "U16": "<u2", "I16": "<i2", "I32": "<i4", "I64": "<i8",
    "F16": "<u2", "BF16": "<u2", "F32": "<f4", "F64": "<f8", "BOOL": "u1", "U64": "<u8",
}  # fmt: skip
TYPE_NAMES = {"I8": "int8", "U16": "uint16", "I16": "int16", "I32": "int32", "I64": "int64", "F16": "float16"}
TYPE_NAMES |= {"BF16": "bfloat16", "F32": "float32", "F64": "float64", "U64": "uint64", "U8": "uint8", "BOOL": "bool"}
ODD_FLOATS = (np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, 1e-39, 3e38, 1.0, -1.0, 65504.0, 1e-7, 2.0)
ODD_INTS = (
    0,
    1,
    -1,
    2,
    3,
    7,
    8,
    15,
    16,
    17,
    63,
    64,
    65,
    127,
    -127,
    -128,
    255,
    32767,
    65535,
    65536,
    2**31 - 1,
    -(2**31),
)
ODD_BITS = (0x0000, 0x8000, 0x7C00, 0x7E00, 0x7F80, 0x7FC0, 0xFF80, 0x0001, 0x3C00, 0x3F80, 0xFC00)


class Parts:
    """A file in pieces. arrays: name -> [dtype, shape, bytes]; sparse, about: the JSON of two metadata entries."""

    def __init__(self, data: bytes) -> None:
        length = struct.unpack_from("<Q", data)[0]
        header = json.loads(data[8 : 8 + length])
        self.metadata: dict[str, Any] = header.pop("__metadata__")
        self.sparse: dict[str, Any] = json.loads(self.metadata.get("binsparse", "{}"))
        self.about: dict[str, Any] = json.loads(self.metadata.get("rnnprune", "{}"))
        self.arrays: dict[str, list[Any]] = {}
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            self.arrays[name] = [entry["dtype"], entry["shape"], data[8 + length + begin : 8 + length + end]]

    def copy(self) -> Parts:
        """Another one that may be changed."""
        new = Parts.__new__(Parts)
        new.metadata = dict(self.metadata)
        new.arrays = {name: [dtype, list(shape), data] for name, (dtype, shape, data) in self.arrays.items()}
        new.sparse, new.about = json.loads(json.dumps([self.sparse, self.about]))
        return new


parse = functools.cache(Parts)


@np.errstate(all="ignore")
def mutate(rng: random.Random, data: bytes) -> bytes:
    """One to three changes; about half of them leave a file that keeps every rule, or breaks exactly one."""
    parts, texts = parse(data).copy(), cast("dict[str, int]", {})
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if (how := rng.random()) > 0.8:
            part = rng.choice(("header", "binsparse", "rnnprune", "metadata"))
            texts[part] = texts.get(part, 0) + 1
            continue
        changes = ANY_FILE if how > 0.7 or not parts.sparse else LAWFUL if how < 0.3 else UNLAWFUL
        with contextlib.suppress(LookupError, ValueError):  # what no longer fits after an earlier change is left out
            rng.choice(changes)(rng, parts)
    return _together(rng, parts, texts)


def _together(rng: random.Random, parts: Parts, texts: dict[str, int]) -> bytes:
    def text_of(value: object, part: str) -> str:
        text = json.dumps(value, separators=(",", ":"))
        for _ in range(texts.get(part, 0)):
            text = wreck_text(rng, text)
        return text

    metadata = dict(parts.metadata)
    if "binsparse" in metadata:
        metadata["binsparse"] = text_of(parts.sparse, "binsparse")
    if "rnnprune" in metadata:
        metadata["rnnprune"] = text_of(parts.about, "rnnprune")
    header: dict[str, Any] = {}
    end = 0
    for name, (dtype, shape, array) in parts.arrays.items():
        begin, end = end, end + len(array)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    head, arrays = text_of(header, "header"), b"".join(entry[2] for entry in parts.arrays.values())
    stated = '{"__metadata__":' + text_of(metadata, "metadata") + ("," if head[1:2] != "}" else "")
    text = (stated + head[1:]).encode("utf-8", "surrogatepass")
    text += b" " * (-len(text) % 8 if rng.random() < 0.9 else rng.randrange(9))
    return struct.pack("<Q", len(text)) + text + arrays


def _parameter(rng: random.Random, parts: Parts) -> str:
    return rng.choice(list(parts.sparse))


def _part(rng: random.Random, parts: Parts, *kinds: str) -> list[Any]:
    """The [dtype, shape, bytes] of one array of a sparse parameter; of any of its parts where none is named."""
    name = _parameter(rng, parts)
    names = [f"{name}.{kind}" for kind in kinds or ("pointers_to_1", "indices_1", "values", "scales", "bits")]
    return parts.arrays[rng.choice([each for each in names if each in parts.arrays] or list(parts.arrays))]


def _elements(entry: list[Any]) -> np.ndarray[Any, Any]:
    return np.frombuffer(entry[2], DTYPES.get(entry[0], "u1")).copy()


# Changes after which the file still keeps every rule


def other_values(rng: random.Random, parts: Parts) -> None:
    entry = _part(rng, parts, "values")
    array = _elements(entry)
    if entry[0] in ("F32", "F64") and len(array):
        array[rng.randrange(len(array))] = rng.choice((rng.uniform(-9, 9), 1e-39, 3e38, -1e30))
        entry[2] = array.tobytes()


def wider(rng: random.Random, parts: Parts) -> None:
    """More columns than there were: of an empty kind."""
    shape = parts.sparse[_parameter(rng, parts)]["shape"]
    shape[1] += rng.choice((1, 5, 100, 60_000, 2**16))


def shuffled(rng: random.Random, parts: Parts) -> None:
    """The arrays in another order; those after an odd number of bytes are no longer aligned."""
    names = list(parts.arrays)
    rng.shuffle(names)
    parts.arrays = {name: parts.arrays[name] for name in names}


def without_an_entry(rng: random.Random, parts: Parts) -> None:
    """The last value of a CSR matrix is gone, from every array alike."""
    name = _parameter(rng, parts)
    values, indices = parts.arrays.get(f"{name}.values"), parts.arrays.get(f"{name}.indices_1")
    pointers = parts.arrays.get(f"{name}.pointers_to_1")
    if not values or not indices or not pointers or len(values[1]) != 1 or not values[1][0]:
        return
    values[2], indices[2] = _elements(values)[:-1].tobytes(), _elements(indices)[:-1].tobytes()
    pointers[2] = np.minimum(crow := _elements(pointers), crow[-1] - 1).astype(crow.dtype).tobytes()
    values[1] = indices[1] = [values[1][0] - 1]
    parts.sparse[name]["number_of_stored_values"] -= 1


def renamed(rng: random.Random, parts: Parts) -> None:
    name, new = _parameter(rng, parts), rng.choice(("x", "", "größe", "a.values", "\u202e", "w" * 990, "w" * 1001))
    if new in parts.sparse:
        return
    parts.sparse[new] = parts.sparse.pop(name)
    for array in [each for each in parts.arrays if each.startswith(f"{name}.")]:
        parts.arrays[new + array.removeprefix(name)] = parts.arrays.pop(array)
    aliases = parts.about.get("aliases", {})
    parts.about["aliases"] = {alias: new if of == name else of for alias, of in aliases.items()}


def more_metadata(rng: random.Random, parts: Parts) -> None:
    rng.choice((parts.about, parts.metadata))[rng.choice(("x", "order", "y"))] = rng.choice(("1", "[]", "weight_hh_l0"))


def fewer_metadata(rng: random.Random, parts: Parts) -> None:
    parts.about.pop(rng.choice(("order", "aliases", "note", "model")), None)


# Changes after which it breaks one


def odd_element(rng: random.Random, parts: Parts) -> None:
    entry = _part(rng, parts)
    array = _elements(entry)
    if not len(array):
        return
    odd = ODD_FLOATS if array.dtype.kind == "f" else ODD_BITS if entry[0] in ("F16", "BF16") else ODD_INTS
    value = np.array(rng.choice(odd)).astype(array.dtype, casting="unsafe")
    array[rng.choice((0, -1, rng.randrange(len(array))))] = value
    entry[2] = array.tobytes()


def swapped(rng: random.Random, parts: Parts) -> None:
    """Two elements change places, or one is copied over another: unsorted, repeated, decreasing."""
    entry = _part(rng, parts)
    array = _elements(entry)
    if len(array) < 2:
        return
    i = rng.randrange(len(array) - 1)
    j = rng.choice((i + 1, rng.randrange(len(array))))
    array[i], array[j] = rng.choice(((array[j], array[i]), (array[j], array[j]), (array[i] + 1, array[j])))
    entry[2] = array.tobytes()


def zero_rows(rng: random.Random, parts: Parts) -> None:
    """Zeros over a stretch of values or scales: stored zeros, blocks of nothing, rows without a scale."""
    entry = _part(rng, parts, "values", "scales")
    array = _elements(entry)
    begin = rng.randrange(len(array) + 1)
    array[begin : begin + rng.choice((1, 4, 16, 32))] = 0
    entry[2] = array.tobytes()


def longer_or_shorter(rng: random.Random, parts: Parts) -> None:
    entry = _part(rng, parts)
    width = np.dtype(DTYPES.get(entry[0], "u1")).itemsize
    if rng.random() < 0.5:
        entry[2] = entry[2] + entry[2][-width:]
    else:
        entry[2] = entry[2][:-width]
    if rng.random() < 0.9 and len(entry[1]) == 1:
        entry[1] = [len(entry[2]) // width]


def retyped(rng: random.Random, parts: Parts) -> None:
    """The same elements in another dtype, or the same bytes under another name; the descriptor may agree."""
    name = _parameter(rng, parts)
    part = rng.choice(("pointers_to_1", "indices_1", "values", "scales", "bits"))
    entry = parts.arrays.get(f"{name}.{part}")
    if entry is None:
        return
    dtype = rng.choice(list(DTYPES))
    if rng.random() < 0.7:
        entry[2] = _elements(entry).astype(DTYPES[dtype]).tobytes()
    entry[0] = dtype
    if rng.random() < 0.8:
        parts.sparse[name]["data_types"][part] = TYPE_NAMES[dtype]


def other_shape(rng: random.Random, parts: Parts) -> None:
    shape = rng.choice((parts.sparse[_parameter(rng, parts)]["shape"], _part(rng, parts)[1]))
    at = rng.randrange(len(shape) + 1)
    if at == len(shape):
        shape.append(rng.choice((0, 1, 2, 2**40)))
    else:
        shape[at] = rng.choice((0, 1, shape[at] - 1, shape[at] + 1, shape[at] * 2, shape[at] // 2, 2**31, 2**62, -1))


def other_format(rng: random.Random, parts: Parts) -> None:
    names = list(parts.sparse)
    parts.sparse[rng.choice(names)]["format"] = (
        parts.sparse[rng.choice(names)]["format"] if rng.random() < 0.3 else "CSR"
    )


def dropped(rng: random.Random, parts: Parts) -> None:
    holder: dict[str, Any] = rng.choice(
        (parts.arrays, parts.sparse, parts.metadata, parts.sparse[_parameter(rng, parts)])
    )
    holder.pop(rng.choice(list(holder))) if len(holder) > 1 else None


# Changes that any file can suffer


def odd_alias(rng: random.Random, parts: Parts) -> None:
    names = [*parts.arrays, *parts.sparse, "tied", "gone", ""]
    parts.about["aliases"] = {rng.choice(names): rng.choice(names) for _ in range(rng.choice((1, 2)))}


def same_array(rng: random.Random, parts: Parts) -> None:
    one, other = rng.choice(list(parts.arrays)), rng.choice(list(parts.arrays))
    parts.arrays[one] = list(parts.arrays[other])


def wrecked_array(rng: random.Random, parts: Parts) -> None:
    entry = parts.arrays[rng.choice(list(parts.arrays))]
    entry[2] = wreck_bytes(rng, entry[2])


Change = Callable[[random.Random, Parts], None]
LAWFUL: list[Change] = [other_values, wider, shuffled, without_an_entry, renamed, more_metadata, fewer_metadata]
UNLAWFUL: list[Change] = [
    *(odd_element, odd_element, odd_element, swapped, swapped, zero_rows),
    *(longer_or_shorter, retyped, other_shape, other_format, dropped),
]
ANY_FILE: list[Change] = [shuffled, odd_alias, same_array, wrecked_array]

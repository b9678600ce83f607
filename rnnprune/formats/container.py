"""safetensors as a container: arrays and string metadata in, arrays and string metadata out.

Reading goes through the safetensors library, which checks that the arrays tile the file without gap or overlap.
Writing is done here, because the library orders the metadata at random, and the same model must give the same bytes.

    8 bytes    N, length of the header, unsigned, little endian
    N bytes    JSON: {"__metadata__": {str: str}, name: {"dtype", "shape", "data_offsets": [begin, end]}, ...},
               padded with spaces to a multiple of 8
    the rest   the arrays, widest elements first and then by name, so that each one is aligned
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rnnprune.errors import InputRefused, UsageError
from rnnprune.formats.atomic import write_atomic

T = TypeVar("T")

NAME_OF_DTYPE: Mapping[torch.dtype, str] = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.complex64: "C64",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}


class Container(NamedTuple):
    """What a safetensors file holds."""

    arrays: dict[str, Tensor]
    metadata: dict[str, str]


def read_container(path: Path) -> Container:
    """Every array (mapped, not copied) and the metadata; InputRefused when header and bytes disagree."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            names = file.offset_keys()
            return Container({name: file.get_tensor(name) for name in names}, dict(file.metadata() or {}))
    except (SafetensorError, OSError, ValueError, RuntimeError, TypeError) as error:
        raise InputRefused(
            f"{path}: a damaged safetensors file ({error}); copy or download it again, or save it again at its source"
        ) from error


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata alone: {} when there is none, or when this is no readable safetensors file."""
    if not path.is_file():
        return {}
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError):
        return {}


def parse_json_object(path: Path, metadata: Mapping[str, str], key: str) -> dict[str, Any]:
    """The JSON object that the metadata hold under `key`, {} where the key is missing."""
    try:
        value = json.loads(metadata.get(key, "{}"))
    except (ValueError, RecursionError) as error:
        raise InputRefused(f"{path}: metadata `{key}` is not JSON ({error}); export the file again") from error
    if not isinstance(value, dict):
        raise InputRefused(f"{path}: metadata `{key}` is JSON but not an object; export the file again")
    return value


def check_aliases(path: Path, aliases: object, names: Mapping[str, object]) -> dict[str, str]:
    """`aliases` as a dict of new name -> stored name, or InputRefused."""
    if not isinstance(aliases, dict):
        raise InputRefused(f"{path}: `aliases` is not a JSON object; export the file again")
    for alias, name in aliases.items():
        if not isinstance(name, str) or name not in names or alias in names:
            raise InputRefused(
                f"{path}: alias {alias!r} of {name!r} names no stored tensor or hides one; export it again"
            )
    return aliases


def in_order(tensors: Mapping[str, T], order: object) -> dict[str, T]:
    """The writer's order of names where it is told, so that a state dict reads as torch wrote it."""
    told = [name for name in order if isinstance(name, str) and name in tensors] if isinstance(order, list) else []
    return {name: tensors[name] for name in (*told, *tensors)}


def write_container(path: Path, arrays: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file, whole or not at all; the same input gives the same bytes."""
    for name, array in arrays.items():
        if array.dtype not in NAME_OF_DTYPE or array.layout != torch.strided:
            raise UsageError(
                f"{name}: {array.dtype}, {array.layout} has no place in a safetensors file; convert it first"
            )
    write_atomic(path, _chunks(arrays, metadata))


def write_dense(
    path: Path, tensors: Mapping[str, Tensor], aliases: Mapping[str, str], metadata: Mapping[str, Any]
) -> None:
    """A dense checkpoint that `read_checkpoint` reads back: tensors, aliases of tied ones, our plain metadata."""
    described = dump_json({**metadata, "aliases": dict(aliases), "order": list(tensors)})
    write_container(path, tensors, {"format": "pt", "rnnprune": described})


def dump_json(value: object) -> str:
    """Compact JSON in the order given; NaN and infinity are not JSON and raise ValueError."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _chunks(arrays: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Iterator[bytes]:
    names = sorted(arrays, key=lambda name: (-arrays[name].element_size(), name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name in names:
        array = arrays[name]
        begin, end = end, end + math.prod(array.shape) * array.element_size()
        header[name] = {"dtype": NAME_OF_DTYPE[array.dtype], "shape": list(array.shape), "data_offsets": [begin, end]}
    text = dump_json(header).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in names:
        yield tensor_bytes(arrays[name])


def tensor_bytes(array: Tensor) -> bytes:
    """The elements in row-major order, as they lie in memory (little endian on every machine torch runs on)."""
    flat = array.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""

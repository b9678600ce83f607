"""safetensors as a container: arrays and string metadata in, arrays and string metadata out.

Reading goes through the safetensors library, which checks that the arrays tile the file without gap or overlap.
Writing is done here, because the library orders the metadata at random, and the same model must give the same bytes.

    8 bytes    N, length of the header, unsigned, little endian
    N bytes    JSON: {"__metadata__": {str: str}, name: {"dtype", "shape", "data_offsets": [begin, end]}, ...},
               padded with spaces to a multiple of 8
    the rest   the arrays, widest elements first and then by name, so that each one is aligned
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rnnprune.architecture import Shape
from rnnprune.errors import InputRefused, UsageError, printable
from rnnprune.formats.atomic import write_atomic
from rnnprune.formats.kinds import MAX_NAME, refusal, too_many_names
from rnnprune.formats.lazy import Item, lazy

T = TypeVar("T")

DEEPEST_JSON = 100
NUMBERS = (int, float, type(None))
HEADER_KEY = "__metadata__"

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
    torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
    torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
    torch.float8_e8m0fnu: "F8_E8M0",
}


class Container(NamedTuple):
    """What a safetensors file holds."""

    arrays: dict[str, Tensor]
    metadata: dict[str, str]


class Array(NamedTuple):
    """What is to be written: its elements come in chunks, one after the other in row-major order."""

    dtype: torch.dtype
    shape: Shape
    chunks: Callable[[], Iterator[Tensor]]


def array_of(item: Item) -> Array:
    """A tensor, in memory or not, as what is to be written."""
    tensor = lazy(item)
    return Array(tensor.dtype, tensor.shape, tensor.slabs)


def read_container(path: Path) -> Container:
    """Every array (mapped, not copied) and the metadata; InputRefused when header and bytes disagree."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            names = file.offset_keys()
            if refused := too_many_names(len(names)):
                raise refusal(path, refused.found, refused.remedy)
            _refuse_repeated_names(path)
            return Container({name: _aligned(file.get_tensor(name)) for name in names}, dict(file.metadata() or {}))
    except (SafetensorError, OSError, ValueError, RuntimeError, TypeError) as error:
        raise refusal(
            path,
            f"a damaged safetensors file ({error})",
            "copy or download it again, or save it again at its source",
        ) from error


def _refuse_repeated_names(path: Path) -> None:
    """Two readers may take two different ones. The library takes the last; it has checked the header's length."""
    with path.open("rb") as file:
        json.loads(file.read(int.from_bytes(file.read(8), "little")), object_pairs_hook=_each_once)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} stands twice in one JSON object")
    return members


def _aligned(tensor: Tensor) -> Tensor:
    """Native code reads whole elements, so an array that another writer put at an odd address is copied."""
    return tensor if tensor.data_ptr() % tensor.element_size() == 0 else tensor.clone()


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata alone: {} when there is none, or when this is no readable safetensors file."""
    try:
        if not path.is_file():
            return {}
        with safe_open(path, framework="pt", device="cpu") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError):
        return {}


def parse_json_object(path: Path, metadata: Mapping[str, str], key: str) -> dict[str, Any]:
    """The JSON object that the metadata hold under `key`, {} where the key is missing; it can be written as JSON again.

    So NaN and infinity are refused, which Python's json takes, and so is what nests without end or names a key twice.
    """
    text = metadata.get(key, "{}")
    try:
        value = json.loads(text, parse_constant=_finite, parse_float=_finite, object_pairs_hook=_each_once)
    except (ValueError, RecursionError) as error:
        raise InputRefused(f"{path}: metadata `{key}` is not JSON ({error}); export the file again") from error
    if not isinstance(value, dict):
        raise InputRefused(f"{path}: metadata `{key}` is JSON but not an object; export the file again")
    if problem := plain_data_problem(value):
        raise InputRefused(f"{path}: metadata `{key}`: {problem}; export the file again")
    return value


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text[:20]} is not finite")
    return number


def plain_data_problem(value: object, limit: int | None = None) -> str | None:
    """Why nested data cannot go into JSON: too deep or, where there is a limit, too long; or None.

    Branches may be shared, as a pickle can share them, so that a kilobyte unfolds to terabytes: the count is that of
    the unfolded data, and it stops at the limit.
    """
    size, waiting = 0, [(value, 0)]
    while waiting:
        node, depth = waiting.pop()
        size += 8
        below: Iterable[object] = ()
        if isinstance(node, str):
            size += len(node)
        elif isinstance(node, list | tuple):
            size, below = size + len(node), node
        elif not isinstance(node, NUMBERS) and isinstance(node, Mapping):  # ABCs are slow to ask
            size, below = size + len(node), itertools.chain.from_iterable(node.items())
        if depth > DEEPEST_JSON:
            return f"nested more than {DEEPEST_JSON} deep"
        if limit is not None and size > limit:
            return f"more than {limit} characters once written out"
        waiting += [(each, depth + 1) for each in below]
    return None


def check_aliases(path: Path, aliases: object, names: Mapping[str, object]) -> dict[str, str]:
    """`aliases` as a dict of new name -> stored name, or InputRefused."""
    if not isinstance(aliases, dict):
        raise InputRefused(f"{path}: `aliases` is not a JSON object; export the file again")
    if refused := too_many_names(len(aliases) + len(names)):
        raise refusal(path, refused.found, refused.remedy)
    for alias, name in aliases.items():
        if not isinstance(name, str) or name not in names or alias in names:
            found = f"alias {printable(repr(alias))} of {printable(repr(name))} names no stored tensor or hides one"
            raise refusal(path, found, "export it again")
    return aliases


def in_order(tensors: Mapping[str, T], order: object) -> dict[str, T]:
    """The writer's order of names where it is told, so that a state dict reads as torch wrote it."""
    told = [name for name in order if isinstance(name, str) and name in tensors] if isinstance(order, list) else []
    return {name: tensors[name] for name in (*told, *tensors)}


def write_container(
    path: Path, arrays: Mapping[str, Item | Array], metadata: Mapping[str, str], *, told_as: Path | None = None
) -> None:
    """Write a safetensors file, whole or not at all; same input, same bytes. told_as: see `write_atomic`."""
    for name, array in arrays.items():
        if problem := _name_problem(name):
            raise UsageError(f"{printable(name)}: {problem}, and has no place in a safetensors file; rename the tensor")
        layout = array.layout if isinstance(array, Tensor) else torch.strided
        if array.dtype not in NAME_OF_DTYPE or layout != torch.strided:
            found = f"{printable(name)}: {array.dtype}, {layout}"
            raise UsageError(f"{found} has no place in a safetensors file; convert it first")
    write_atomic(path, container_chunks(arrays, metadata), told_as=told_as)


def _name_problem(name: str) -> str | None:
    """Why nobody could read a tensor of this name back, or None."""
    if name == HEADER_KEY:
        return "the name is the format's own"
    if len(name) > MAX_NAME:
        return f"the name has {len(name)} characters, the limit is {MAX_NAME}"
    if any("\ud800" <= char <= "\udfff" for char in name):
        return "the name holds half a character (a lone surrogate)"
    return None


def write_dense(
    path: Path,
    tensors: Mapping[str, Item],
    aliases: Mapping[str, str],
    metadata: Mapping[str, Any],
    *,
    told_as: Path | None = None,
) -> None:
    """A dense checkpoint that `read_checkpoint` reads back: tensors, aliases of tied ones, our plain metadata."""
    described = dump_json({**metadata, "aliases": dict(aliases), "order": list(tensors)})
    write_container(path, tensors, {"format": "pt", "rnnprune": described}, told_as=told_as)


def dump_json(value: object) -> str:
    """Compact JSON in the order given; NaN and infinity are not JSON and raise ValueError."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def container_chunks(items: Mapping[str, Item | Array], metadata: Mapping[str, str]) -> Iterator[bytes]:
    """The bytes of a safetensors file, header first, then one slab of a tensor at a time."""
    arrays = {name: item if isinstance(item, Array) else array_of(item) for name, item in items.items()}
    names = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))
    header: dict[str, Any] = {HEADER_KEY: dict(metadata)}
    end = 0
    for name in names:
        array = arrays[name]
        begin, end = end, end + math.prod(array.shape) * array.dtype.itemsize
        header[name] = {"dtype": NAME_OF_DTYPE[array.dtype], "shape": list(array.shape), "data_offsets": [begin, end]}
    text = dump_json(header).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in names:
        yield from map(tensor_bytes, arrays[name].chunks())


def tensor_bytes(array: Tensor) -> bytes:
    """The elements in row-major order, as they lie in memory (little endian on every machine torch runs on)."""
    flat = array.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""

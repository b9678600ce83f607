"""From the tensors that a checkpoint holds to plain ones: detached, dense, contiguous, and no larger than they may be.

A tensor is a view of a storage, and both are claims of the file: they are checked before any element is touched.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from rnnprune.errors import printable
from rnnprune.formats.kinds import COPY_AGAIN, Refused, shortened
from rnnprune.formats.lazy import Item, LazyTensor, MappedFile, lazy
from rnnprune.kernels.views import view_key

FREE_BYTES = 2**26
LAID_OUT_BYTES_PER_FILE_BYTE = 4
READABLE_DTYPES = {
    *(torch.bool, torch.uint8, torch.uint16, torch.uint32, torch.uint64),
    *(torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    *(torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz, torch.float8_e8m0fnu),
    *(torch.complex32, torch.complex64, torch.complex128),
}  # all others (bits8, float4, int4, ...) are packed by some scheme that the file does not tell


def plain_tensors(
    items: Mapping[str, Item], mapped: MappedFile, held_bytes: int, storage_sizes: Collection[int] | None = None
) -> dict[str, LazyTensor]:
    """The plain tensors; names that showed one and the same view get one and the same object.

    What is lazy already was checked by its reader.

    held_bytes: what the file can hold: its size, unpacked where it is compressed. storage_sizes: bytes of each storage
    that the file's directory lists, where it has one; a mapped read would take a storage that claims more from
    whatever bytes lie behind it.
    """
    tensors = {name: item for name, item in items.items() if isinstance(item, Tensor)}
    if problems := [
        f"{printable(name)} is {what}" for name, tensor in tensors.items() if (what := _unreadable(tensor))
    ]:
        raise Refused(
            shortened(problems),
            "save the float model (before quantization) with dense tensors (`tensor.to_dense()`)",
        )
    broken = next((name for name, tensor in tensors.items() if any(size < 0 for size in tensor.shape)), None)
    if broken is not None:
        shape = list(tensors[broken].shape)  # torch takes a negative size where another one is 0
        raise Refused(f"a damaged torch checkpoint ({printable(broken)} has the shape {shape})", COPY_AGAIN)
    keys = {name: view_key(tensor) or (name,) for name, tensor in tensors.items()}
    _refuse_storages(tensors, held_bytes, storage_sizes)
    different = {keys[name]: nbytes(tensor) for name, tensor in tensors.items()}
    if (claimed := sum(different.values())) > FREE_BYTES + LAID_OUT_BYTES_PER_FILE_BYTE * held_bytes:
        raise Refused(
            f"views that would take {claimed} bytes once laid out, far more than the file's {held_bytes}",
            "save it again with `tensor.clone()` for each tensor",
        )
    by_view: dict[tuple[Any, ...], LazyTensor] = {}
    for name, tensor in tensors.items():
        if keys[name] not in by_view:
            by_view[keys[name]] = lazy(tensor, mapped)
    return {name: item if isinstance(item, LazyTensor) else by_view[keys[name]] for name, item in items.items()}


def nbytes(item: Item) -> int:
    """Bytes of all its elements once laid out, however few of them its storage holds."""
    return item.nbytes if isinstance(item, LazyTensor) else item.numel() * item.element_size()


def _unreadable(tensor: Tensor) -> str | None:
    if tensor.is_quantized:
        return "quantized"
    if tensor.is_nested or tensor.layout != torch.strided:
        return "sparse or nested"
    if tensor.dtype not in READABLE_DTYPES:
        return f"packed as {str(tensor.dtype).removeprefix('torch.')}"
    return "on the meta device, without data" if tensor.is_meta else None


def _refuse_storages(tensors: Mapping[str, Tensor], held_bytes: int, storage_sizes: Collection[int] | None) -> None:
    """A pickle can make storages of any size out of nothing, so each of them, and their sum, is held to the file."""
    different: set[tuple[int, int]] = set()
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage()
        if storage_sizes is not None and storage.nbytes() not in storage_sizes:
            claim = f"{printable(name)} claims a storage of {storage.nbytes()} bytes, which is not there"
            raise Refused(f"a damaged torch checkpoint ({claim})", COPY_AGAIN)
        different.add((storage.data_ptr(), storage.nbytes()))
    if (claimed := sum(size for _, size in different)) > held_bytes:
        raise Refused(f"a damaged checkpoint (storages of {claimed} bytes in a file of {held_bytes})", COPY_AGAIN)

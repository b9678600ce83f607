"""Tensors of a file that are read a slab at a time, so that a checkpoint may be far larger than the memory.

A slab is a few consecutive rows, [n, ...]; a row is what stands under one index of the first dimension.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rnnprune.architecture import Shape
from rnnprune.kernels.csr import nonzero_count

SLAB_BYTES = 2**22  # small enough that what a slab leaves behind is soon used again
NOT_WORTH_DROPPING = 2**26  # bytes of a file that may well stay in memory


@dataclass(frozen=True, eq=False)
class LazyTensor:
    """A tensor to be had whole, contiguous on the CPU, or in slabs of so many rows, the last one shorter.

    A slab is good until the next one is asked for.
    """

    shape: Shape
    dtype: torch.dtype
    whole: Callable[[], Tensor]
    parts: Callable[[int], Iterator[Tensor]]

    @property
    def nbytes(self) -> int:
        """Bytes of all its elements once laid out, however few of them the file holds."""
        return math.prod(self.shape) * self.dtype.itemsize

    def slabs(self, multiple: int = 1) -> Iterator[Tensor]:
        """In slabs of about SLAB_BYTES, a multiple of so many rows each, the last one excepted."""
        return self.parts(self.rows_of_a_slab(multiple)) if self.shape else iter((self.whole(),))

    def rows_of_a_slab(self, multiple: int = 1) -> int:
        """How many rows SLAB_BYTES hold, a multiple of so many and at least that."""
        rows = SLAB_BYTES // max(1, math.prod(self.shape[1:]) * self.dtype.itemsize)
        return max(rows // multiple, 1) * multiple

    def count_nonzero(self) -> int:
        """Number of elements that are not zero; -0.0 is a zero."""
        return sum(map(nonzero_count, self.slabs()))


Item = Tensor | LazyTensor


class MappedFile:
    """A file whose bytes some tensors show without a copy; it holds them, so that its pages stay theirs.

    A page that was looked at counts as memory of the process until it is dropped. Linux alone knows that here; a small
    file is not worth it.
    """

    def __init__(self, path: Path, tensors: Iterable[Tensor]) -> None:
        self._held = tuple(tensors)
        self._ranges = list(_mapped_ranges(path)) if path.stat().st_size > NOT_WORTH_DROPPING else []

    def drop(self, *tensors: Tensor) -> None:
        """Give their pages back; who looks at them again reads the file again. Changes made to them would be lost."""
        for tensor in tensors:
            begin = tensor.data_ptr()
            steps = zip(tensor.shape, tensor.stride(), strict=True)
            end = begin + tensor.element_size() * (1 + sum((size - 1) * step for size, step in steps))
            if tensor.numel() and any(low <= begin and end <= high for low, high in self._ranges):
                begin -= begin % mmap.PAGESIZE
                _drop_pages(begin, end - begin)


def _mapped_ranges(path: Path) -> Iterator[tuple[int, int]]:
    """First and last address of each mapping of the file."""
    if sys.platform == "linux":
        name = str(path.resolve())
        for line in Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines():
            addresses, *_, mapped = line.split(maxsplit=5)
            if mapped == name:
                begin, _, end = addresses.partition("-")
                yield int(begin, 16), int(end, 16)


def _drop_pages(begin: int, length: int) -> None:
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    advise(begin, length, mmap.MADV_DONTNEED)


def lazy(item: Item, mapped: MappedFile | None = None) -> LazyTensor:
    """A tensor in memory, or one that shows a mapped file, whose pages are dropped slab by slab."""
    if isinstance(item, LazyTensor):
        return item

    def parts(rows: int) -> Iterator[Tensor]:
        for begin in range(0, len(item), rows):
            part = item[begin : begin + rows]
            yield _plain(part)
            if mapped is not None:
                mapped.drop(part)

    return LazyTensor(tuple(item.shape), item.dtype, lambda: _plain(item), parts)


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().resolve_conj().resolve_neg().contiguous()


def masked(weight: LazyTensor, mask: LazyTensor) -> LazyTensor:
    """The weight [...] with zeros where the mask [...] has them."""

    def parts(rows: int) -> Iterator[Tensor]:
        for part, kept in zip(weight.parts(rows), mask.parts(rows), strict=True):
            yield part.masked_fill(kept == 0, 0)

    return LazyTensor(weight.shape, weight.dtype, lambda: weight.whole().masked_fill(mask.whole() == 0, 0), parts)


def in_dtype(tensor: LazyTensor, dtype: torch.dtype) -> LazyTensor:
    """The same tensor cast to another dtype."""
    return LazyTensor(
        tensor.shape,
        dtype,
        lambda: tensor.whole().to(dtype),
        lambda rows: (part.to(dtype) for part in tensor.parts(rows)),
    )

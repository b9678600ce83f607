"""numpy's .npz without numpy's loader: no pickle, and no member unpacked beyond the size that it declares."""

from __future__ import annotations

import math
import os
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray
from torch import Tensor

from rnnprune.errors import InputRefused, printable
from rnnprune.formats.kinds import Refused, refusal, too_many_names
from rnnprune.formats.lazy import LazyTensor, lazy

FREE_BYTES = 2**26
BYTES_AT_ONCE = 2**20
ZIP_END = 22  # bytes of the record that ends a zip without a comment, as numpy writes it
BYTES_PER_FILE_BYTE = 100  # weights, even pruned ones, deflate 20 : 1 at most; a bomb 1000 : 1


Array = NDArray[Any]


class Npz(NamedTuple):
    """The arrays as tensors in native byte order, and one sentence for each array that holds no numbers."""

    tensors: dict[str, LazyTensor]
    notes: list[str]


class _Damaged(ValueError):
    """A member that is not what its header says."""


class _Member(NamedTuple):
    """One array of numbers as its header tells it; the elements begin behind `begin` bytes of the member."""

    archive: zipfile.ZipFile  # open as long as a member may be read; each time anew would be quadratic
    path: Path
    info: zipfile.ZipInfo
    name: str
    begin: int
    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[Any]


def read_npz(path: Path) -> Npz:
    """Every numeric array of an .npz; InputRefused for bombs, damaged members and pickled objects."""
    result = Npz({}, [])
    with _told(path):
        archive = zipfile.ZipFile(path)
        _refuse_bomb(path, archive.infolist())
        _require_all(path, len(archive.infolist()))
        for info in archive.infolist():
            member = _read_header(path, archive, info)
            if member.dtype.kind not in "biufc" or member.dtype.itemsize > 8 * (1 + (member.dtype.kind == "c")):
                _check(member)
                result.notes.append(f"`{printable(member.name)}` holds no numbers and was left out.")
            else:
                result.tensors[member.name] = _lazy(member)
    return result


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Whatever zipfile, zlib and numpy's parser of headers raise becomes one refusal."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy, on headers that it reads all the same
            yield
    except (InputRefused, Refused):
        raise
    except Exception as error:
        told = str(error) or type(error).__name__
        raise refusal(path, f"a damaged or hostile .npz ({told})", "save it again with `numpy.savez`") from error


def _refuse_bomb(path: Path, members: list[zipfile.ZipInfo]) -> None:
    """The sizes that members declare are what to check, because no member is read beyond its own.

    Stored and deflated members only, which is all that numpy writes: zipfile unpacks those piece by piece, but bzip2
    and LZMA by whole blocks, of which a few bytes can become gigabytes.
    """
    if refused := too_many_names(len(members)):
        raise refused
    if any(member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for member in members):
        raise refusal(path, "a compression that numpy never writes", "save it again with `numpy.savez`")
    claimed = sum(member.file_size for member in members)
    limit = FREE_BYTES + BYTES_PER_FILE_BYTE * path.stat().st_size
    if claimed > limit:
        raise refusal(
            path,
            f"{path.stat().st_size} bytes that would unpack to {claimed}, the limit is {limit}",
            "save it without compression: `numpy.savez`",
        )


def _require_all(path: Path, found: int) -> None:
    """zipfile does not count: a damaged length in the directory hides the members behind it. APPNOTE.TXT, 4.3.16."""
    with path.open("rb") as file:
        file.seek(-ZIP_END, os.SEEK_END)
        end = file.read()
    told = int.from_bytes(end[10:12], "little")
    if end.startswith(b"PK\x05\x06") and told not in (found, 0xFFFF):  # 0xFFFF: told elsewhere, in zip64
        raise _Damaged(f"its directory tells of {told} members and holds {found}")


def _read_header(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    """What an .npy member says of itself, held against the size that the directory tells."""
    name = info.filename.removesuffix(".npy")
    with archive.open(info) as file:
        version = npy.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise _Damaged(f"{name}: .npy version {version}")
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran_order, dtype = read_header(file)
        begin = file.tell()
    if dtype.hasobject:
        raise _Damaged(f"{name}: an array of pickled Python objects")
    held = info.file_size - begin
    if not all(type(length) is int and length >= 0 for length in shape) or held != math.prod(shape) * dtype.itemsize:
        raise _Damaged(f"{name}: {held} bytes for shape {shape} of {dtype}")
    return _Member(archive, path, info, name, begin, shape, fortran_order, dtype)


def _lazy(member: _Member) -> LazyTensor:
    dtype = torch.from_numpy(np.empty(0, member.dtype.newbyteorder("="))).dtype
    return LazyTensor(member.shape, dtype, lambda: _whole(member), lambda rows: _parts(member, rows))


def _whole(member: _Member) -> Tensor:
    """Writable and C-contiguous."""
    count = math.prod(member.shape)
    with _told(member.path), _elements(member) as file:
        flat = _read(member, file, count)
        _require_end(member, file)
        order: Literal["F", "C"] = "F" if member.fortran_order else "C"
        return torch.from_numpy(np.ascontiguousarray(flat.reshape(member.shape, order=order)).reshape(member.shape))


def _parts(member: _Member, rows: int) -> Iterator[Tensor]:
    """Row by row as they are unpacked; columns that come first have to be had whole."""
    if member.fortran_order:
        yield from lazy(_whole(member)).parts(rows)
        return
    with _elements(member) as file:
        for begin in range(0, member.shape[0], rows):
            shape = (min(rows, member.shape[0] - begin), *member.shape[1:])
            with _told(member.path):
                part = torch.from_numpy(_read(member, file, math.prod(shape)).reshape(shape))
            yield part
        with _told(member.path):
            _require_end(member, file)


@contextmanager
def _elements(member: _Member) -> Iterator[zipfile.ZipExtFile]:
    with member.archive.open(member.info) as file:
        file.read(member.begin)
        yield cast("zipfile.ZipExtFile", file)


def _read(member: _Member, file: zipfile.ZipExtFile, count: int) -> Array:
    """So many of the next elements."""
    data = bytearray(file.read(count * member.dtype.itemsize))
    if len(data) != count * member.dtype.itemsize:
        raise _Damaged(f"{member.name}: it ends before shape {member.shape} of {member.dtype} does")
    return np.frombuffer(data, member.dtype).astype(member.dtype.newbyteorder("="), copy=False)


def _require_end(member: _Member, file: zipfile.ZipExtFile) -> None:
    """Reading to the end is what makes zipfile compare the checksum."""
    if file.read(1):
        raise _Damaged(f"{member.name}: it goes on after its shape")


def _check(member: _Member) -> None:
    """Unpack what is left out, for its checksum."""
    with member.archive.open(member.info) as file:
        while file.read(BYTES_AT_ONCE):
            pass

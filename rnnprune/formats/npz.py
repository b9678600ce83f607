"""numpy's .npz without numpy's loader: no pickle, and no member unpacked beyond the size that it declares."""

from __future__ import annotations

import math
import warnings
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray
from torch import Tensor

from rnnprune.errors import InputRefused, printable
from rnnprune.formats.kinds import Refused, refusal, too_many_names

FREE_BYTES = 2**26
BYTES_PER_FILE_BYTE = 100  # weights, even pruned ones, deflate 20 : 1 at most; a bomb 1000 : 1


Array = NDArray[Any]


class Npz(NamedTuple):
    """The arrays as tensors in native byte order, and one sentence for each array that holds no numbers."""

    tensors: dict[str, Tensor]
    notes: list[str]


class _Damaged(ValueError):
    """A member that is not what its header says."""


def read_npz(path: Path) -> Npz:
    """Every numeric array of an .npz; InputRefused for bombs, damaged members and pickled objects."""
    result = Npz({}, [])
    try:
        with zipfile.ZipFile(path) as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy, on headers that it reads all the same
            _refuse_bomb(path, archive.infolist())
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                array = _read_array(name, archive, member)
                if array is None:
                    result.notes.append(f"`{printable(name)}` holds no numbers and was left out.")
                else:
                    result.tensors[name] = torch.from_numpy(array)
    except (InputRefused, Refused):
        raise
    except Exception as error:  # zipfile, zlib and numpy's parser of headers raise what they like
        told = str(error) or type(error).__name__
        raise refusal(path, f"a damaged or hostile .npz ({told})", "save it again with `numpy.savez`") from error
    return result


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


def _read_array(name: str, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array | None:
    """One .npy member, writable and C-contiguous; None for an array that torch has no dtype for."""
    with archive.open(member) as file:
        version = npy.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise _Damaged(f"{name}: .npy version {version}")
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran_order, dtype = read_header(file)
        data = bytearray(file.read(member.file_size))
    if dtype.hasobject:
        raise _Damaged(f"{name}: an array of pickled Python objects")
    if (
        not all(type(length) is int and length >= 0 for length in shape)
        or len(data) != math.prod(shape) * dtype.itemsize
    ):
        raise _Damaged(f"{name}: {len(data)} bytes for shape {shape} of {dtype}")
    if dtype.kind not in "biufc" or dtype.itemsize > 8 * (1 + (dtype.kind == "c")):
        return None
    flat = np.frombuffer(data, dtype).astype(dtype.newbyteorder("="), copy=False)
    return np.ascontiguousarray(flat.reshape(shape, order="F" if fortran_order else "C")).reshape(shape)

"""numpy's .npz without numpy's loader: no pickle, no member trusted about its size."""

from __future__ import annotations

import math
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray
from torch import Tensor

from rnnprune.formats.kinds import refusal

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
        with zipfile.ZipFile(path) as archive:
            _refuse_bomb(path, archive.infolist())
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                array = _read_array(name, archive, member)
                if array is None:
                    result.notes.append(f"`{name}` holds no numbers and was left out.")
                else:
                    result.tensors[name] = torch.from_numpy(array)
    except (
        _Damaged,
        zipfile.BadZipFile,
        zlib.error,
        OSError,
        EOFError,
        ValueError,
        RuntimeError,
        NotImplementedError,
    ) as error:
        raise refusal(path, f"a damaged or hostile .npz ({error})", "save it again with `numpy.savez`") from error
    return result


def _refuse_bomb(path: Path, members: list[zipfile.ZipInfo]) -> None:
    """zipfile never unpacks more than the size a member declares, so the declared sizes are what to check."""
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
        data = bytearray(file.read())
    if dtype.hasobject:
        raise _Damaged(f"{name}: an array of pickled Python objects")
    if any(length < 0 for length in shape) or len(data) != math.prod(shape) * dtype.itemsize:
        raise _Damaged(f"{name}: {len(data)} bytes for shape {shape} of {dtype}")
    if dtype.kind not in "biufc" or dtype.itemsize > 8 * (1 + (dtype.kind == "c")):
        return None
    flat = np.frombuffer(data, dtype).astype(dtype.newbyteorder("="), copy=False)
    return np.ascontiguousarray(flat.reshape(shape, order="F" if fortran_order else "C")).reshape(shape)

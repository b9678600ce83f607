"""Unlabelled inputs: one array, or named ones, from `.npy`, `.npz` or safetensors."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from rnnprune.errors import InputRefused, UsageError

ONLY = ""  # the name of an array that has none


def read_inputs(path: Path) -> dict[str, Tensor]:
    """Every array of the file by its name, on the CPU; floats as float32, whole numbers as int64.

    Raises UsageError when there is no such file or its kind is unknown, InputRefused for a damaged one,
    for objects, and for values that are not finite.
    """
    if not path.is_file():
        raise UsageError(f"--inputs {path}: no such file; pass a .npy, .npz or .safetensors file of unlabelled inputs")
    try:
        arrays = _read(path)
    except (SafetensorError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InputRefused(
            f"--inputs {path}: cannot be read: {error}; write it again with numpy or safetensors"
        ) from error
    if not arrays:
        raise InputRefused(f"--inputs {path}: holds no array")
    return {name: _usable(path, name, array) for name, array in arrays.items()}


def _read(path: Path) -> Mapping[str, Tensor]:
    if path.suffix == ".safetensors":
        return load_file(path)
    if path.suffix == ".npy":
        return {ONLY: _tensor(np.load(io.BytesIO(path.read_bytes()), allow_pickle=False))}
    if path.suffix == ".npz":
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
            return {name: _tensor(archive[name]) for name in archive.files}
    raise UsageError(f"--inputs {path}: expected a name that ends in .npy, .npz or .safetensors")


def _tensor(array: np.ndarray) -> Tensor:
    if array.dtype.kind not in "fiu":
        raise ValueError(f"dtype {array.dtype}, expected floats or whole numbers")
    return torch.from_numpy(array.astype(np.float32 if array.dtype.kind == "f" else np.int64))


def _usable(path: Path, name: str, tensor: Tensor) -> Tensor:
    where = f"--inputs {path}" + (f", {name!r}" if name else "")
    if tensor.ndim < 2 or not tensor.numel():
        raise InputRefused(f"{where}: shape {list(tensor.shape)}; expected examples along the first axis")
    tensor = tensor.float() if tensor.is_floating_point() else tensor.long()
    if not tensor.isfinite().all():
        raise InputRefused(f"{where}: holds NaN or infinity; leave those examples out")
    return tensor

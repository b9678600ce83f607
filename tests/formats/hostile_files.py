"""How to make hostile, broken and foreign files."""

import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

STATE = {"weight_hh_l0": torch.ones(8, 2), "weight_ih_l0": torch.ones(8, 3)}


class Bomb:
    """Unpickling one of these creates the canary."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.canary}'",)


Build = Callable[[Path, Path], object]


def torch_bytes(tree: object, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(tree, buffer, **options)
    return buffer.getvalue()


def zipped(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def torch_members(tree: object) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(torch_bytes(tree))) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def safe(header: object, data: bytes = b"", length: int | None = None) -> Build:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    start = struct.pack("<Q", len(text) if length is None else length)
    return lambda path, _: path.write_bytes(start + text + data)


def entry(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def npy(header: str, data: bytes = b"") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def tensor_pickle(numel: int, size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> bytes:
    """data.pkl of {"a": tensor}, written opcode by opcode, with any claim about storage and view."""

    def text(value: str) -> bytes:
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    def number(value: object) -> bytes:
        return pickle.dumps(value, 2)[2:-1]

    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + number(numel) + b"tQ"
    view = number(offset) + number(size) + number(stride)
    rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + view + b"\x89ccollections\nOrderedDict\n)RtR"
    return b"\x80\x02}" + text("a") + rebuild + b"s."


def claiming(numel: int, size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> Build:
    """A torch zip that holds four floats and claims something else."""
    members = {
        "archive/data.pkl": tensor_pickle(numel, size, stride, offset),
        "archive/data/0": bytes(16),
        "archive/version": b"3\n",
        "archive/byteorder": b"little",
    }
    return lambda path, _: zipped(path, members)


def legacy_tar(path: Path, canary: Path) -> None:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("sys_info", "pickle", "tensors", "storages"):
            data = pickle.dumps(Bomb(canary), 2)
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def torchscript(path: Path, _: Path) -> None:
    """The members of torch.jit.save; test_torch_itself_writes_these_members compares with the real one."""
    members = {"m/data.pkl": b"\x80\x02.", "m/code/__torch__.py": b"", "m/constants.pkl": b"\x80\x02)."}
    zipped(path, members | {"m/version": b"3\n"})


def exported(path: Path, canary: Path) -> None:
    """The members of torch.export.save, with a bomb where it keeps its pickle."""
    members = {"m/archive_format": b"pt2", "m/models/model.json": b"{}"}
    zipped(path, members | {"m/data/sample_inputs/model.pt": torch_bytes(Bomb(canary))})


def npz_of(**members: bytes) -> Build:
    return lambda path, _: zipped(path, {f"{name}.npy": data for name, data in members.items()})


def npz_bomb(path: Path, _: Path) -> None:
    header = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (33554432,)}")
    zipped(path, {"a.npy": header + bytes(2**27)}, zipfile.ZIP_DEFLATED)


def object_array(path: Path, canary: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, a=np.array([Bomb(canary)], dtype=object), allow_pickle=True)


def duplicated(path: Path, _: Path) -> None:
    """Two members of one name: two readers may each see another one."""
    one, two = "m/data.pkl", "m/data.pk1"
    zipped(path, {one: b"\x80\x02}.", two: b"\x80\x02}."})
    path.write_bytes(path.read_bytes().replace(two.encode(), one.encode()))


WHOLE = torch_bytes(STATE)
LEGACY = torch_bytes(STATE, _use_new_zipfile_serialization=False)
SAFE = safetensors.torch.save(STATE)

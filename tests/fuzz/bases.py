"""The whole files that fuzzing starts from: small, one of every kind that a reader takes, the same in every process."""

from __future__ import annotations

import functools
import io
import pickle
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from rnnprune.formats.container import write_dense
from rnnprune.formats.forms import Stored
from rnnprune.formats.sparse import write_sparse
from rnnprune.kernels.bitmask import bitmask_from_dense, bitmask_int8
from rnnprune.kernels.bsr import bsr_from_dense, bsr_int8
from rnnprune.kernels.csr import csr_from_dense
from rnnprune.tasks.lm import LmModel, LmModelSpec

SPEC = LmModelSpec(cell="gru", hidden=16, embedding=8, vocabulary=("<unk>", "a", "b", "c"))


WITH_BIASES = ("csr", "bsr 16x1", "dense", "zip")  # one of a kind: what a file costs to read is its number of tensors


class Base(NamedTuple):
    """A file and how to take it apart: `sparse`, `safetensors`, `torch zip`, `legacy pickle` or `npz`."""

    kind: str
    data: bytes


def model(name: str) -> nn.Module:
    """The module that a base of this name holds the weights of."""
    return LmModel(SPEC) if name.startswith("lm") else nn.LSTM(8, 16, bias=name in WITH_BIASES)


def weights(name: str, block: tuple[int, int] = (1, 1)) -> dict[str, Tensor]:
    """Its state dict, three quarters zeros, a row of zeros and a full row among them."""
    generator = torch.Generator().manual_seed(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        state = {key: tensor.detach().clone() for key, tensor in model(name).state_dict().items()}
    for key, tensor in state.items():
        if key.startswith(("rnn.weight", "weight")):
            rows, cols = tensor.shape
            kept = torch.rand(rows // block[0], cols // block[1], generator=generator) < 0.25
            kept[0], kept[-1] = True, False
            tensor *= kept.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)
    return state


@functools.cache
def bases() -> dict[str, Base]:
    """By name; a name that begins with `lm` holds what `rnnprune.load` builds by itself."""
    about = {"task": "lm", "model": SPEC.to_dict(), "data": {"path": "text", "sha256": "0" * 64}}
    plain = {"cell": "lstm", "note": [1.5, None, {"a": "b"}]}
    files = {
        "csr": Base("sparse", _sparse("csr", csr_from_dense, plain)),
        "csr fp16": Base("sparse", _sparse("csr fp16", lambda w: csr_from_dense(w.half()), plain)),
        "csr bf16": Base("sparse", _sparse("csr bf16", lambda w: csr_from_dense(w.bfloat16()), plain)),
        "csr fp64": Base("sparse", _sparse("csr fp64", lambda w: csr_from_dense(w.double()), plain)),
        "csr wide": Base("sparse", _written({"w": csr_from_dense(torch.eye(3, 70_000))}, {}, {})),
        "lm csr": Base("sparse", _sparse("lm", csr_from_dense, about)),
        "bsr 16x1": Base("sparse", _sparse("bsr 16x1", lambda w: bsr_from_dense(w, (16, 1)), plain, (16, 1))),
        "bsr 8x4 bf16": Base("sparse", _sparse("bsr", lambda w: bsr_from_dense(w.bfloat16(), (8, 4)), plain, (8, 4))),
        "bsr 2x4 fp16": Base("sparse", _sparse("bsr", lambda w: bsr_from_dense(w.half(), (2, 4)), plain, (2, 4))),
        "bsr int8 4x4": Base("sparse", _sparse("bsr", lambda w: bsr_int8(w, (4, 4)), plain, (4, 4))),
        "lm bsr int8": Base("sparse", _sparse("lm", lambda w: bsr_int8(w, (16, 1)), about, (16, 1))),
        "bitmask": Base("sparse", _sparse("bitmask", bitmask_from_dense, plain)),
        "bitmask bf16": Base("sparse", _sparse("bitmask", lambda w: bitmask_from_dense(w.bfloat16()), plain)),
        "bitmask odd": Base("sparse", _written({"w": bitmask_int8(torch.eye(5, 7))}, {}, {})),
        "lm bitmask int8": Base("sparse", _sparse("lm", bitmask_int8, about)),
        "lm dense": Base("safetensors", _dense(weights("lm"), about)),
        "dense": Base("safetensors", _dense(weights("dense"), plain)),
        "zip": Base("torch zip", _torch(weights("zip"))),
        "zip nested": Base("torch zip", _torch(_nested())),
        "lm zip": Base("torch zip", _torch({"state_dict": weights("lm"), "rnnprune": about})),
        "legacy": Base("legacy pickle", _legacy(weights("legacy"))),
        "legacy nested": Base("legacy pickle", _legacy(_nested())),
        "npz": Base("npz", _npz(np.savez)),
        "npz deflated": Base("npz", _npz(np.savez_compressed)),
    }
    return {name: base for name, base in files.items() if len(base.data) < 2**14}


def _sparse(
    name: str, to_sparse: Callable[[Tensor], Stored], about: dict[str, object], block: tuple[int, int] = (1, 1)
) -> bytes:
    state = weights(name, block)
    held = {key for key, tensor in state.items() if tensor.ndim == 2 and not tensor.all()}
    stored = {key: to_sparse(tensor) if key in held else tensor for key, tensor in state.items()}
    aliases = {} if name == "lm" else {"tied": "weight_hh_l0"}
    return _written(stored, aliases, about)


def _written(stored: dict[str, Stored], aliases: dict[str, str], about: dict[str, object]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write_sparse(Path(folder) / "w", stored, aliases, about)
        return (Path(folder) / "w").read_bytes()


def _dense(state: dict[str, Tensor], about: dict[str, object]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write_dense(Path(folder) / "w", state, {"tied": next(iter(state))}, about)
        return (Path(folder) / "w").read_bytes()


def _nested() -> dict[str, object]:
    """Wrappers, a pruning mask, tied tensors, views, odd dtypes, an optimizer's state."""
    mask = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    storage = torch.arange(12, dtype=torch.float16)
    state = {
        "module.fc.weight_orig": torch.ones(2, 2),
        "module.fc.weight_mask": mask,
        "module.view": storage[2:10].view(2, 4).T,
        "module.tied": storage,
        "module.also": storage,
        "module.steps": torch.tensor(7),
        "module.flag": torch.tensor([True, False]),
        "module.bf": torch.ones(3, dtype=torch.bfloat16),
        "module.none": torch.empty(0, 5),
        "module.rnn.weight_ih_l0_raw": torch.eye(4),
    }
    return {"model": state, "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}, "lr": 0.1}, "epoch": 3}


def _torch(tree: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(tree, buffer)
    return buffer.getvalue()


class _Legacy(pickle.Pickler):
    """torch's older format with the storages numbered: torch calls them by their address, another in every process."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, 2)
        self.storages: dict[str, torch.storage.TypedStorage] = {}

    def persistent_id(self, item: object) -> tuple[object, ...] | None:
        """What stands for a storage."""
        if not isinstance(item, torch.storage.TypedStorage):
            return None
        places = [storage._untyped_storage.data_ptr() for storage in self.storages.values()]
        place = item._untyped_storage.data_ptr()
        key = str(places.index(place) if place in places else len(places))
        self.storages[key] = item
        return "storage", getattr(torch, item._pickle_storage_type()), key, "cpu", item._size(), None


def _legacy(tree: object) -> bytes:
    buffer = io.BytesIO()
    for head in (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True}):
        pickle.dump(head, buffer, 2)
    pickler = _Legacy(buffer)
    pickler.dump(tree)
    pickle.dump(list(pickler.storages), buffer, 2)
    for storage in pickler.storages.values():
        data = torch.empty(0, dtype=torch.uint8).set_(storage._untyped_storage).numpy().tobytes()
        buffer.write(struct.pack("<Q", storage._size()) + data)
    return buffer.getvalue()


def _npz(save: Callable[..., None]) -> bytes:
    buffer = io.BytesIO()
    arrays = {key: tensor.numpy() for key, tensor in weights("npz").items()}
    save(buffer, **arrays, columns=np.asfortranarray(np.arange(6.0).reshape(2, 3)), big=np.arange(3, dtype=">i2"))
    return buffer.getvalue()

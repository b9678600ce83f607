"""Hostile, broken and foreign files: each refused within two seconds, none of them ever run."""

import contextlib
import gzip
import os
import pickle
import time
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from rnnprune.errors import InputRefused, UsageError
from rnnprune.formats.checkpoint import read_checkpoint
from rnnprune.formats.kinds import globals_named
from tests.formats.hostile_files import (
    LEGACY,
    SAFE,
    STATE,
    WHOLE,
    Bomb,
    Build,
    claiming,
    duplicated,
    entry,
    exported,
    legacy_tar,
    npy,
    npz_bomb,
    npz_of,
    object_array,
    safe,
    torch_members,
    torchscript,
    zipped,
)

SECONDS = 2.0

HOSTILE: dict[str, tuple[Build, str]] = {
    # code in a pickle
    "reduce bomb, torch zip": (lambda path, canary: torch.save({"w": Bomb(canary)}, path), r"names `posix\.system`"),
    "reduce bomb, legacy": (
        lambda path, canary: torch.save({"w": Bomb(canary)}, path, _use_new_zipfile_serialization=False),
        r"names `posix\.system`",
    ),
    "reduce bomb, plain pickle": (
        lambda path, canary: path.write_bytes(pickle.dumps(Bomb(canary))),
        r"names `posix\.system`",
    ),
    "reduce bomb, pickle protocol 2": (
        lambda path, canary: path.write_bytes(pickle.dumps(Bomb(canary), 2)),
        r"names `posix\.system`",
    ),
    "reduce bomb, pickle protocol 0": (
        lambda path, canary: path.write_bytes(pickle.dumps(Bomb(canary), 0)),
        r"names `posix\.system`",
    ),
    "bomb instead of a size": (
        lambda path, canary: torch.save({"state_dict": STATE, "epoch": Bomb(canary)}, path),
        r"names `posix\.system`",
    ),
    "whole module": (
        lambda path, _: torch.save(nn.LSTM(2, 2), path),
        r"names `torch\.nn\.modules\.rnn\.LSTM`.*state_dict",
    ),
    "whole module, legacy": (
        lambda path, _: torch.save(nn.GRU(2, 2), path, _use_new_zipfile_serialization=False),
        r"names `torch\.nn\.modules\.rnn\.GRU`",
    ),
    "plain pickle of numbers": (lambda path, _: path.write_bytes(pickle.dumps({"a": 1})), "a plain Python pickle"),
    "plain pickle of numpy": (
        lambda path, _: path.write_bytes(pickle.dumps({"a": np.ones(3)})),
        r"names `numpy\.\S+_reconstruct`|names `numpy\.\S+_frombuffer`",
    ),
    "pickle cut short": (
        lambda path, _: path.write_bytes(b"\x80\x02}q\x00(X\xff\xff\xff\x7f"),
        "a plain Python pickle",
    ),
    # archives with code
    "TorchScript": (torchscript, r"TorchScript archive.*torch\.jit\.load\('victim\.pt'\)\.state_dict"),
    ".pt2": (exported, r"\.pt2 archive.*torch\.export\.load\('victim\.pt'\)\.state_dict"),
    ".pt2 of torch 2.1": (
        lambda path, _: zipped(path, {"serialized_exported_program.json": b"{}", "version": b"1"}),
        r"\.pt2 archive",
    ),
    "torch.package": (
        lambda path, _: zipped(path, {"m/.data/extern_modules": b"os", "m/data.pkl": b"\x80\x02}."}),
        r"torch\.package archive",
    ),
    "legacy tar": (legacy_tar, "a tar archive"),
    # zips that lie
    "zip cut in half": (lambda path, _: path.write_bytes(WHOLE[: len(WHOLE) // 2]), "truncated or damaged zip"),
    "zip cut at its end": (lambda path, _: path.write_bytes(WHOLE[:-30]), "truncated or damaged zip"),
    "zip of four bytes": (lambda path, _: path.write_bytes(WHOLE[:4]), "truncated or damaged zip"),
    "zip with bytes cut out": (lambda path, _: path.write_bytes(WHOLE[:200] + WHOLE[300:]), "damaged"),
    "zip of documents": (lambda path, _: zipped(path, {"a.txt": b"hello"}), r"no torch checkpoint \(it holds a\.txt\)"),
    "zip of nothing": (lambda path, _: zipped(path, {}), "it holds nothing"),
    "Keras archive": (lambda path, _: zipped(path, {"config.json": b"", "model.weights.h5": b""}), "a Keras archive"),
    "compressed members": (
        lambda path, _: zipped(path, torch_members(STATE), zipfile.ZIP_DEFLATED),
        "compressed or encrypted",
    ),
    "two members of one name": (duplicated, "two members of one name"),
    "member without its storage": (
        lambda path, _: zipped(path, {k: v for k, v in torch_members(STATE).items() if "/data/0" not in k}),
        "a damaged torch checkpoint",
    ),
    "pickle that is none": (lambda path, _: zipped(path, {"m/data.pkl": b"nonsense", "m/version": b"3"}), "damaged"),
    # claims about storages and views
    "storage larger than its member": (claiming(20, (20,), (1,)), "claims a storage of 80 bytes"),
    "storage larger than the file": (claiming(10**15, (4,), (1,)), "damaged"),
    "view beyond its storage": (claiming(4, (10**6,), (1,)), "damaged"),
    "view that starts outside": (claiming(4, (4,), (1,), 10**6), "damaged"),
    "negative offset": (claiming(4, (4,), (1,), -1), "damaged"),
    "negative stride": (claiming(4, (4,), (-1,)), "damaged"),
    "negative size beside an empty one": (claiming(4, (0, -(2**31)), (1, 1)), r"a has the shape \[0, -2147483648\]"),
    "shape that overflows": (claiming(4, (2**62, 4), (1, 1)), "damaged"),
    "view of exabytes": (claiming(4, (10**9, 10**9), (0, 0)), "views that would take 4000000000000000000 bytes"),
    "view of gigabytes": (claiming(4, (10**5, 10**5), (0, 0)), "views that would take 40000000000 bytes"),
    "legacy, cut": (lambda path, _: path.write_bytes(LEGACY[: len(LEGACY) - 20]), "a damaged torch checkpoint"),
    "legacy, only its magic": (lambda path, _: path.write_bytes(LEGACY[:20]), "a damaged torch checkpoint"),
    # safetensors
    "header longer than the file": (safe({"a": entry([2], 0, 8)}, bytes(8), 10**6), "damaged safetensors"),
    "header of 2^64 - 1 bytes": (safe({"a": entry([2], 0, 8)}, bytes(8), 2**64 - 1), "damaged safetensors"),
    "header one byte short": (safe({"a": entry([2], 0, 8)}, bytes(8), 20), "damaged safetensors"),
    "overlapping offsets": (safe({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, bytes(12)), "damaged safetensors"),
    "offsets with a gap": (safe({"a": entry([2], 0, 8), "b": entry([2], 12, 20)}, bytes(20)), "damaged safetensors"),
    "offsets that run backwards": (safe({"a": entry([2], 8, 0)}, bytes(8)), "damaged safetensors"),
    "shape beyond its offsets": (safe({"a": entry([2**40, 2**40], 0, 8)}, bytes(8)), "damaged safetensors"),
    "unknown dtype": (safe({"a": entry([2], 0, 8, "F99")}, bytes(8)), "damaged safetensors"),
    "header that is no JSON": (safe(b"{" * 5000), "damaged safetensors"),
    "header without tensors": (safe({"__metadata__": {"format": "pt"}}), "no named tensors"),
    "safetensors cut": (lambda path, _: path.write_bytes(SAFE[:-1]), "damaged safetensors"),
    "safetensors with more behind": (lambda path, _: path.write_bytes(SAFE + b"\0"), "damaged safetensors"),
    "our metadata damaged": (
        safe({"__metadata__": {"rnnprune": "["}, "a": entry([2], 0, 8)}, bytes(8)),
        "metadata `rnnprune` is not JSON",
    ),
    "sparse format of the future": (
        safe({"__metadata__": {"rnnprune_format": "9"}, "a": entry([2], 0, 8)}, bytes(8)),
        "upgrade rnnprune",
    ),
    # numpy
    "npz of pickled objects": (object_array, "an array of pickled Python objects"),
    "npz bomb": (npz_bomb, "would unpack to 134217"),
    "npz that claims terabytes": (
        npz_of(a=npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,)}", bytes(8))),
        "8 bytes for shape",
    ),
    "npz cut member": (
        npz_of(a=npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4,)}", bytes(15))),
        "15 bytes for shape",
    ),
    "npz with a negative shape": (
        npz_of(a=npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-2, -2)}", bytes(16))),
        "hostile .npz",
    ),
    "npz with code for a header": (npz_of(a=npy("__import__('os').abort()")), "hostile .npz"),
    "npz without arrays in it": (npz_of(a=b"nothing"), "hostile .npz"),
    "npz of words only": (lambda path, _: np.savez(path.open("wb"), a=np.array(["x"])), "no named tensors"),
    # other kinds of file
    "single array": (lambda path, _: np.save(path.open("wb"), np.ones(3)), r"single numpy array.*numpy\.savez"),
    "HDF5": (lambda path, _: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(600)), "HDF5.*h5py.*gates"),
    "ONNX": (lambda path, _: path.write_bytes(b"\x08\x08\x12\x07pytorch\x1a\x052.9.0" + bytes(50)), "ONNX model"),
    "TensorFlow Lite": (lambda path, _: path.write_bytes(b"\x1c\0\0\0TFL3" + bytes(600)), "TensorFlow Lite"),
    "gzip": (lambda path, _: path.write_bytes(gzip.compress(WHOLE)), "gunzip"),
    "Git LFS pointer": (
        lambda path, _: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        "git lfs pull",
    ),
    "text": (lambda path, _: path.write_text("{'weights': [1, 2, 3]} größer"), "a text file"),
    "web page": (lambda path, _: path.write_text("<!DOCTYPE html><html>404"), "a text file .*DOCTYPE"),
    "empty": (lambda path, _: path.write_bytes(b""), "an empty file"),
    "noise": (lambda path, _: path.write_bytes(bytes(range(255, 0, -1))), "no kind of checkpoint known here"),
    "folder": (lambda path, _: path.mkdir(), "a folder, not a checkpoint"),
    "interrupted run": (
        lambda path, _: (path / ".unfinished").mkdir(parents=True),
        "the folder of an unfinished run; give the command that began it again to go on",
    ),
    "named pipe": (lambda path, _: os.mkfifo(path), "not a regular file"),
    # tensors that are none
    "tensor on the meta device": (
        lambda path, _: torch.save({"w": torch.ones(2, device="meta")}, path),
        "w is on the meta",
    ),
    "sparse tensor": (lambda path, _: torch.save({"w": torch.eye(3).to_sparse()}, path), r"w is sparse.*to_dense"),
}


@pytest.mark.filterwarnings("ignore")  # torch warns while some of these files are made
@pytest.mark.parametrize(("build", "text"), HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_broken_and_foreign_files_are_refused(tmp_path: Path, build: Build, text: str) -> None:
    path, canary = tmp_path / "victim.pt", tmp_path / "canary"
    build(path, canary)
    start = time.process_time()
    with pytest.raises(InputRefused, match=text) as refused:
        read_checkpoint(path)
    assert time.process_time() - start < SECONDS
    assert str(refused.value).startswith(f"{path}: ")
    assert "; " in str(refused.value), "what to do is missing"
    assert not canary.exists()


def test_the_bomb_would_have_gone_off(tmp_path: Path) -> None:
    """The canary of the tests above is real: plain unpickling creates it."""
    pickle.loads(pickle.dumps(Bomb(tmp_path / "canary")))
    assert (tmp_path / "canary").exists()


def test_a_quantized_tensor_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "quantized.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces a deprecation, once in a process
        torch.save({"w": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)}, path)
    with pytest.raises(InputRefused, match="w is quantized; save the float model"):
        read_checkpoint(path)


def test_a_missing_file_is_a_mistake_in_the_call(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"gone\.pt: there is no such file"):
        read_checkpoint(tmp_path / "gone.pt")


@pytest.mark.filterwarnings("ignore")
def test_torch_itself_writes_these_members(tmp_path: Path) -> None:
    """A real TorchScript archive is refused as the hand-made one is."""
    path = tmp_path / "script.pt"
    torch.jit.script(nn.Linear(2, 2)).save(str(path))
    with pytest.raises(InputRefused, match="a TorchScript archive"):
        read_checkpoint(path)


@pytest.mark.filterwarnings("ignore")
def test_torch_export_itself_writes_these_members(tmp_path: Path) -> None:
    path = tmp_path / "exported.pt2"
    torch.export.save(torch.export.export(nn.Linear(2, 2), (torch.ones(1, 2),)), path)
    with pytest.raises(InputRefused, match=r"a \.pt2 archive"):
        read_checkpoint(path)


def test_the_environment_cannot_switch_the_protection_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    path, canary = tmp_path / "bomb.pt", tmp_path / "canary"
    torch.save({"w": Bomb(canary)}, path)
    with pytest.raises(InputRefused, match="posix"):
        read_checkpoint(path)
    assert not canary.exists()


@pytest.mark.parametrize("protocol", range(6))
def test_the_names_in_a_pickle_are_found_without_running_it(tmp_path: Path, protocol: int) -> None:
    assert globals_named(pickle.dumps(Bomb(tmp_path / "canary"), protocol)) == ["posix.system"]
    assert globals_named(pickle.dumps({"a": [1, "b"]}, protocol)) == []
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("whole", [WHOLE, LEGACY, SAFE], ids=["torch zip", "legacy", "safetensors"])
def test_a_file_damaged_anywhere_is_read_or_refused_but_never_crashes(tmp_path: Path, whole: bytes) -> None:
    path = tmp_path / "damaged.pt"
    generator = np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(whole)
        for place in generator.integers(0, len(damaged), 3):
            damaged[place] = generator.integers(0, 256)
        path.write_bytes(damaged)
        with contextlib.suppress(InputRefused):
            read_checkpoint(path)

"""The checkpoint reader on files that torch, numpy and safetensors wrote: kinds, metadata, nesting."""

import json
import struct
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from rnnprune.errors import InputRefused
from rnnprune.formats.checkpoint import read_checkpoint
from rnnprune.formats.container import write_dense
from rnnprune.formats.sparse import csr_or_dense, write_sparse
from tests.formats.checkpoint_cases import V, W, assert_same, saved

# Kinds

WRITERS: dict[str, tuple[str, Callable[[dict[str, Tensor], Path], object]]] = {
    "torch.save": ("torch zip", torch.save),
    "torch.save before 1.6": (
        "legacy pickle",
        lambda state, path: torch.save(state, path, _use_new_zipfile_serialization=False),
    ),
    "safetensors": ("safetensors", safetensors.torch.save_file),
    "numpy.savez": ("npz", lambda state, path: savez(np.savez, state, path)),
    "numpy.savez_compressed": ("npz", lambda state, path: savez(np.savez_compressed, state, path)),
}


def savez(write: Callable[..., None], state: dict[str, Tensor], path: Path) -> None:
    with path.open("wb") as file:
        write(file, **{name: tensor.numpy() for name, tensor in state.items()})


@pytest.mark.parametrize(("kind", "write"), WRITERS.values(), ids=WRITERS.keys())
@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".npz", ""])
def test_the_first_bytes_decide_not_the_suffix(
    tmp_path: Path, lstm: nn.LSTM, kind: str, write: Callable[[dict[str, Tensor], Path], object], suffix: str
) -> None:
    path = tmp_path / f"model{suffix}"
    state = {name: tensor.detach().clone() for name, tensor in lstm.state_dict().items()}
    write(state, path)
    checkpoint = read_checkpoint(path)
    assert checkpoint.kind == kind
    assert checkpoint.path == path
    assert (checkpoint.aliases, checkpoint.metadata, checkpoint.notes) == ({}, {}, ())
    assert set(checkpoint.tensors) == set(state)
    assert all(torch.equal(checkpoint.tensors[name], tensor) for name, tensor in state.items())
    lstm.load_state_dict(checkpoint.state_dict(), strict=True)


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64, torch.bool]
)
def test_the_dtype_is_kept(tmp_path: Path, dtype: torch.dtype) -> None:
    state = {
        "w": torch.arange(6).reshape(2, 3).to(dtype),
        "scalar": torch.tensor(1).to(dtype),
        "none": torch.zeros(0, 3),
    }
    assert_same(read_checkpoint(saved(tmp_path, state)).tensors, state)


@pytest.mark.parametrize("length", [0x0280, 0x0380, 0x0480, 0x0580])
def test_a_header_whose_length_begins_as_a_pickle_does_is_still_a_header(tmp_path: Path, length: int) -> None:
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode().ljust(length)
    (tmp_path / "one.safetensors").write_bytes(struct.pack("<Q", length) + header + struct.pack("<f", 1.5))
    assert read_checkpoint(tmp_path / "one.safetensors").tensors["w"].tolist() == [1.5]


def test_nan_and_infinity_are_read(tmp_path: Path) -> None:
    found = read_checkpoint(saved(tmp_path, {"w": torch.tensor([float("nan"), float("inf")])})).tensors["w"]
    assert found.isnan().tolist() == [True, False]
    assert found.isinf().tolist() == [False, True]


def test_the_tensors_can_be_changed_and_the_file_stays(tmp_path: Path) -> None:
    torch_path, safe_path = saved(tmp_path, {"w": torch.ones(4)}), tmp_path / "w.safetensors"
    safetensors.torch.save_file({"w": torch.ones(4)}, safe_path)
    for path in (torch_path, safe_path):
        before = path.read_bytes()
        read_checkpoint(path).tensors["w"].mul_(7)
        assert path.read_bytes() == before


def test_numpy_layouts_and_byte_orders(tmp_path: Path) -> None:
    path = tmp_path / "arrays.npz"
    array = np.arange(6.0, dtype=np.float32).reshape(2, 3)
    np.savez(
        path,
        fortran=np.asfortranarray(array),
        big_endian=array.astype(">f4"),
        half=array.astype(np.float16),
        scalar=np.int64(5),
        empty=np.zeros((0, 3)),
        words=np.array(["left", "out"]),
    )
    checkpoint = read_checkpoint(path)
    assert checkpoint.tensors["fortran"].tolist() == array.tolist()
    assert checkpoint.tensors["fortran"].is_contiguous()
    assert checkpoint.tensors["big_endian"].tolist() == array.tolist()
    assert checkpoint.tensors["half"].dtype == torch.float16
    assert (checkpoint.tensors["scalar"].shape, checkpoint.tensors["scalar"].item()) == ((), 5)
    assert checkpoint.tensors["empty"].shape == (0, 3)
    assert "words" not in checkpoint.tensors
    assert checkpoint.notes == ("`words` holds no numbers and was left out.",)


def test_our_sparse_file_reads_as_a_dense_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "model.csr.safetensors"
    weight = torch.eye(64)
    write_sparse(path, {"w": csr_or_dense(weight), "b": torch.ones(64)}, {"tied": "w"}, {"task": "lm"})
    checkpoint = read_checkpoint(path)
    assert_same(checkpoint.tensors, {"w": weight, "b": torch.ones(64)})
    assert checkpoint.aliases == {"tied": "w"}
    assert checkpoint.metadata == {"task": "lm"}
    assert "sparse file" in checkpoint.notes[0]


# Metadata


def test_our_own_description_comes_back_from_both_kinds(tmp_path: Path) -> None:
    own = {"task": "lm", "sizes": {"hidden": 4}}
    path = saved(tmp_path, {"state_dict": {"w": torch.ones(2)}, "rnnprune": own})
    assert read_checkpoint(path).metadata == own
    assert list(read_checkpoint(path).tensors) == ["w"]

    dense = tmp_path / "dense.safetensors"
    write_dense(dense, {"z": torch.ones(2), "a": torch.zeros(3)}, {"tied": "z"}, own)
    checkpoint = read_checkpoint(dense)
    assert checkpoint.metadata == own
    assert checkpoint.aliases == {"tied": "z"}
    assert_same(checkpoint.tensors, {"z": torch.ones(2), "a": torch.zeros(3)})
    assert_same(safetensors.torch.load_file(dense), {"a": torch.zeros(3), "z": torch.ones(2)})


# Nesting


@pytest.mark.parametrize(
    ("tree", "names"),
    [
        ({"w": W, "v": V}, ["w", "v"]),
        (OrderedDict(w=W), ["w"]),
        ({"state_dict": {"w": W}, "epoch": 3, "name": "run"}, ["w"]),
        ({"anything": {"goes": {"w": W}}}, ["w"]),
        ({"model": {"state_dict": {"w": W}}}, ["w"]),
        ({"weights": {"v": V}, "model": {"w": W}}, ["w"]),
        ({"net": {"w": W}, "ema": {"w": V}}, ["w"]),
        ({"encoder": {"w": W}, "decoder": {"w": V}}, ["encoder.w", "decoder.w"]),
        ({"encoder": {"rnn": {"w": W}}, "decoder": {"w": V}}, ["encoder.rnn.w", "decoder.w"]),
        ({"model": {"encoder": {"w": W}, "decoder": {"w": V}}}, ["encoder.w", "decoder.w"]),
        ({"w": W, "head": {"w": V}}, ["w", "head.w"]),
        ({"w": W, 3: V, "n": None, "list": [V]}, ["w"]),
        ({"w": W, "optimizer": {"state": {0: {"exp_avg": V}}}}, ["w"]),
        ({"generator": {"w": W}, "optimizer_g": {"m": V}, "d_optim": {"m": V}}, ["w"]),
        ({"crnn": {"w": W}, "lr_scheduler": {"x": V}, "optimizer_states": [], "amp_scaler": {"s": V}}, ["w"]),
        ({"model": {"optimal.w": W}}, ["optimal.w"]),
    ],
)
def test_the_tensors_are_found_under_any_nesting(tmp_path: Path, tree: dict[str, Any], names: list[str]) -> None:
    assert list(read_checkpoint(saved(tmp_path, tree)).tensors) == names


def test_what_was_left_out_beside_the_model_is_told(tmp_path: Path) -> None:
    tree = {"model": {"w": W}, "ema": {"w": V}, "rng_state": torch.zeros(8, dtype=torch.uint8)}
    (note,) = read_checkpoint(saved(tmp_path, tree)).notes
    assert note == "The tensors of `model` were taken; left out beside it: rng_state, ema."


def test_branches_that_share_or_contain_one_another_are_read_once(tmp_path: Path) -> None:
    shared: dict[str, Any] = {"w": W}
    for _ in range(60):
        shared = {"a": shared, "b": shared}
    assert list(read_checkpoint(saved(tmp_path, shared)).tensors) == ["a." * 60 + "w"]
    circle: dict[str, Any] = {"w": W, "x": {"v": V}}
    circle["x"]["back"] = circle
    assert list(read_checkpoint(saved(tmp_path, circle)).tensors) == ["w", "x.v"]


@pytest.mark.parametrize("tree", [{}, {"epoch": 3}, {"w": None}, {"optimizer": {"m": W}}, {3: W}])
def test_a_file_without_named_tensors_is_refused(tmp_path: Path, tree: object) -> None:
    with pytest.raises(InputRefused, match=r"no named tensors in it; save the model's `state_dict\(\)`"):
        read_checkpoint(saved(tmp_path, tree))


@pytest.mark.parametrize(("tree", "what"), [(W, "Tensor"), ([W], "list"), (3, "int")])
def test_a_tree_that_is_no_mapping_is_refused(tmp_path: Path, tree: object, what: str) -> None:
    with pytest.raises(InputRefused, match=f"a {what} instead of named tensors"):
        read_checkpoint(saved(tmp_path, tree))

"""The sparse file against literal bytes, plain safetensors and scipy."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import scipy.sparse
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import Tensor

from rnnprune.errors import InputRefused
from rnnprune.formats.container import write_dense
from rnnprune.formats.sparse import (
    csr_or_dense,
    densify,
    is_sparse_file,
    read_sparse,
    write_sparse,
)
from rnnprune.kernels.csr import Csr, csr_from_dense

PAGE = Path(__file__).parents[2] / "docs" / "format.md"
WEIGHT = torch.tensor([[0.0, 1.5, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [-2.0, 0.0, 0.0, 0.25]])
BIAS = torch.tensor([1.0, 2.0, 3.0])

HEADER = (
    rb'{"__metadata__":{"format":"pt","rnnprune_format":"1","binsparse":"{\"w\":{\"version\":\"0.1\",\"format\":\"CSR\",'
    rb"\"shape\":[3,4],\"number_of_stored_values\":3,\"data_types\":{\"pointers_to_1\":\"int32\","
    rb'\"indices_1\":\"uint16\",\"values\":\"float32\"}}}","rnnprune":"{\"aliases\":{},\"order\":[\"w\",\"b\"]}"},'
    rb'"b":{"dtype":"F32","shape":[3],"data_offsets":[0,12]},'
    rb'"w.pointers_to_1":{"dtype":"I32","shape":[4],"data_offsets":[12,28]},'
    rb'"w.values":{"dtype":"F32","shape":[3],"data_offsets":[28,40]},'
    rb'"w.indices_1":{"dtype":"U16","shape":[3],"data_offsets":[40,46]}}'
)
DATA = bytes.fromhex(
    "0000803f 00000040 00004040"  # b: 1 2 3
    "00000000 01000000 01000000 03000000"  # w.pointers_to_1: 0 1 1 3
    "0000c03f 000000c0 0000803e"  # w.values: 1.5 -2 0.25
    "0100 0000 0300"  # w.indices_1: 1 0 3
)


def sparse_matrix(rows: int, cols: int, density: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, cols, generator=generator) * (torch.rand(rows, cols, generator=generator) < density)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.csr.safetensors"


# Bytes


def test_the_bytes_are_these(path: Path) -> None:
    write_sparse(path, {"w": csr_from_dense(WEIGHT), "b": BIAS}, {}, {})
    assert path.read_bytes() == bytes.fromhex("3002000000000000") + HEADER + DATA


def test_these_bytes_are_read(path: Path) -> None:
    path.write_bytes(len(HEADER).to_bytes(8, "little") + HEADER + DATA)
    file = read_sparse(path)
    assert (file.aliases, file.metadata) == ({}, {})
    assert list(file.tensors) == ["w", "b"]
    assert isinstance(file.tensors["w"], Csr)
    dense = densify(file)
    assert torch.equal(dense["w"], WEIGHT)
    assert torch.equal(dense["b"], BIAS)


def test_the_example_of_the_specification_is_this_file() -> None:
    page = PAGE.read_text()
    shown = re.search(r"```json\n(.*?)```", page, re.DOTALL)
    assert shown is not None
    assert shown[1].replace("\n", "").encode() == HEADER
    listed = re.findall(r"^((?:[0-9a-f]{2} +)+) *\d+ - \d+", page, re.MULTILINE)
    assert bytes.fromhex("".join(listed)) == DATA
    assert f"8 + {len(HEADER)} + {len(DATA)} bytes" in page


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    digests = set()
    for attempt in range(5):
        path = tmp_path / f"{attempt}"
        write_sparse(path, {"w": csr_from_dense(WEIGHT), "b": BIAS}, {"t": "w"}, {"seed": 1, "task": "lm"})
        digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(digests) == 1


def test_every_array_is_aligned_to_its_elements(path: Path) -> None:
    tensors = {
        "odd": torch.zeros(3, dtype=torch.int8),
        "w": csr_from_dense(WEIGHT.to(torch.float16)),
        "v": csr_from_dense(WEIGHT),
        "d": torch.zeros(5, dtype=torch.float64),
    }
    write_sparse(path, tensors, {}, {})
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    assert length % 8 == 0
    sizes = {"I8": 1, "U16": 2, "F16": 2, "I32": 4, "F32": 4, "F64": 8}
    entries = {name: entry for name, entry in json.loads(raw[8 : 8 + length]).items() if name != "__metadata__"}
    assert all(entry["data_offsets"][0] % sizes[entry["dtype"]] == 0 for entry in entries.values())


# Plain readers


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_plain_safetensors_and_scipy_rebuild_the_matrix(path: Path, dtype: torch.dtype) -> None:
    weight = sparse_matrix(96, 40, 0.1, 0).to(dtype)
    write_sparse(path, {"w": csr_or_dense(weight), "b": BIAS}, {}, {})
    arrays = safetensors.numpy.load_file(path)
    assert set(arrays) == {"w.values", "w.indices_1", "w.pointers_to_1", "b"}
    values = arrays["w.values"].astype(np.float64)  # exact, and scipy has no float16
    rebuilt = scipy.sparse.csr_array(
        (values, arrays["w.indices_1"].astype(np.int32), arrays["w.pointers_to_1"]), (96, 40)
    )
    rebuilt.check_format()
    assert rebuilt.has_canonical_format
    np.testing.assert_array_equal(rebuilt.toarray(), weight.double().numpy())


def test_the_readers_of_the_specification_run_as_printed(path: Path) -> None:
    page: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(block, page)
    weight = sparse_matrix(30, 50, 0.1, 1)
    write_sparse(path, {"w": csr_from_dense(weight), "b": BIAS}, {"tied": "w"}, {})
    read = page["read_dense"](path)
    np.testing.assert_array_equal(read["w"], weight.numpy())
    np.testing.assert_array_equal(read["b"], BIAS.numpy())
    assert read["tied"] is read["w"]

    half = weight.to(torch.bfloat16)
    write_sparse(path, {"w": csr_from_dense(half)}, {}, {})
    values = page["read_bfloat16"](path, "w.values")
    np.testing.assert_array_equal(values, half[half != 0].float().numpy())


def test_torch_reads_it_with_plain_safetensors(path: Path) -> None:
    write_sparse(path, {"w": csr_from_dense(WEIGHT.to(torch.bfloat16))}, {}, {"cell": "lstm"})
    arrays = safetensors.torch.load_file(path)
    assert arrays["w.values"].tolist() == [1.5, -2.0, 0.25]
    assert arrays["w.indices_1"].dtype == torch.uint16
    with safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["rnnprune"])["cell"] == "lstm"


# Round trips


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.integers(1, 40),
    cols=st.integers(1, 60),
    density=st.sampled_from([0.0, 0.05, 0.1, 0.5, 1.0]),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    seed=st.integers(0, 2**31),
)
def test_what_is_written_is_read(
    path: Path, rows: int, cols: int, density: float, dtype: torch.dtype, seed: int
) -> None:
    weight = sparse_matrix(rows, cols, density, seed).to(dtype)
    write_sparse(path, {"forced": csr_from_dense(weight), "chosen": csr_or_dense(weight), "plain": weight}, {}, {})
    for dense in densify(read_sparse(path)).values():
        assert dense.dtype == dtype
        assert torch.equal(dense, weight)


@pytest.mark.parametrize(
    "weight",
    [
        torch.zeros(1, 1),
        torch.ones(1, 1),
        sparse_matrix(7, 96, 0.1, 0),
        torch.zeros(50, 70),
        torch.nn.functional.pad(torch.ones(1, 33), (0, 0, 2, 3)),
        sparse_matrix(3, 65_535, 0.01, 1),
        sparse_matrix(3, 65_536, 0.01, 2),
        sparse_matrix(3, 65_537, 0.01, 3),
        torch.zeros(0, 5),
        torch.zeros(5, 0),
    ],
    ids=lambda weight: "x".join(map(str, weight.shape)),
)
def test_awkward_matrices_round_trip(path: Path, weight: Tensor) -> None:
    write_sparse(path, {"forced": csr_from_dense(weight), "chosen": csr_or_dense(weight)}, {}, {})
    assert all(torch.equal(dense, weight) for dense in densify(read_sparse(path)).values())


def test_dense_tensors_keep_dtype_shape_and_bits(path: Path) -> None:
    tensors = {
        "scalar": torch.tensor(7, dtype=torch.int64),
        "flags": torch.tensor([True, False]),
        "nan": torch.tensor([[float("nan"), float("inf")], [0.0, 0.0]]),
        "conv": torch.randn(2, 3, 4).to(torch.bfloat16),
        "empty": torch.zeros(0, 3),
        "view": torch.arange(6.0).reshape(2, 3).t(),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    write_sparse(path, {name: csr_or_dense(tensor) for name, tensor in tensors.items()}, {}, {})
    read = densify(read_sparse(path))
    assert list(read) == list(tensors)
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        torch.testing.assert_close(read[name], tensor.detach(), rtol=0, atol=0, equal_nan=True)


def test_metadata_and_aliases_come_back(path: Path) -> None:
    metadata = {"architecture": [{"kind": "lstm"}], "gates": {"lstm": "ifgo"}, "sparsity": 0.9, "name": "größe"}
    write_sparse(path, {"w": csr_from_dense(WEIGHT), "b": BIAS}, {"decoder.w": "w", "c": "b"}, metadata)
    file = read_sparse(path)
    assert file.metadata == metadata
    assert file.aliases == {"decoder.w": "w", "c": "b"}
    dense = densify(file)
    assert dense["decoder.w"] is dense["w"]
    assert dense["c"] is dense["b"]


def test_only_our_sparse_files_are_sparse_files(tmp_path: Path, path: Path) -> None:
    write_sparse(path, {"w": csr_from_dense(WEIGHT)}, {}, {})
    write_dense(tmp_path / "dense", {"w": WEIGHT}, {}, {})
    (tmp_path / "text").write_text("hello")
    (tmp_path / "empty").write_bytes(b"")
    assert is_sparse_file(path)
    assert not any(is_sparse_file(tmp_path / name) for name in ("dense", "text", "empty", "missing", "."))
    with pytest.raises(InputRefused, match="not a sparse one; write one with `rnnprune export`"):
        read_sparse(tmp_path / "dense")

"""Matrices as bitmasks inside a sparse file: literal bytes, what becomes one, and the reader of the specification."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from rnnprune.errors import InputRefused
from rnnprune.formats import lazy as lazy_file
from rnnprune.formats.bitmask import bitmask_layout
from rnnprune.formats.lazy import lazy
from rnnprune.formats.sparse import densify, lazily_dense, read_sparse, write_sparse
from rnnprune.kernels.bitmask import Bitmask, bitmask_from_dense, bitmask_int8, bitmask_to_dense

PAGE = Path(__file__).parents[2] / "docs" / "format.md"
WEIGHT = torch.tensor([[0.0, 0, 2, 0, -1], [127, 0, 0, 1, 0]])
HEADER = (
    rb'{"__metadata__":{"format":"pt","rnnprune_format":"1","binsparse":'
    rb'"{\"w\":{\"version\":\"0.1\",\"format\":\"bitmask\",\"shape\":[2,5],'
    rb"\"number_of_stored_values\":4,\"data_types\":{\"bits\":\"uint8\",\"values\":\"int8\",\"scales\":\"float32\"}}}"
    rb'","rnnprune":"{\"aliases\":{},\"order\":[\"w\"]}"},'
    rb'"w.scales":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
    rb'"w.bits":{"dtype":"U8","shape":[2],"data_offsets":[8,10]},'
    rb'"w.values":{"dtype":"I8","shape":[4],"data_offsets":[10,14]}}'
)
DATA = bytes.fromhex(
    "0402813c 0000803f"  # w.scales: 2 / 127, 1
    "3401"  # w.bits: elements 2, 4, 5 and 8
    "7f c0 7f 01"  # w.values: 127 -64 / 127 1
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.bitmask.safetensors"


def pruned(rows: int, cols: int, density: float, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    keep = torch.rand(rows, cols, generator=generator) < density
    return torch.randn(rows, cols, generator=generator) * keep


def test_the_bytes_are_these(path: Path) -> None:
    write_sparse(path, {"w": bitmask_int8(WEIGHT)}, {}, {})
    header = HEADER + b" " * (-len(HEADER) % 8)
    assert path.read_bytes() == len(header).to_bytes(8, "little") + header + DATA


def test_these_bytes_are_read(path: Path) -> None:
    path.write_bytes(len(HEADER).to_bytes(8, "little") + HEADER + DATA)
    file = read_sparse(path)
    assert isinstance(file.tensors["w"], Bitmask)
    expected = WEIGHT.clone()
    expected[0, 4] = -64 * 2 / 127
    torch.testing.assert_close(densify(file)["w"], expected, rtol=1e-7, atol=0)


def test_the_example_of_the_specification_is_this_file() -> None:
    page = PAGE.read_text()
    in_lines = page.replace("\n", "")
    assert HEADER[HEADER.index(rb'"{\"w\"') : HEADER.index(rb',"rnnprune":')].decode() in in_lines
    assert HEADER[HEADER.index(b'"w.scales"') :].decode() in in_lines
    shown = page[page.index("### As a bitmask") :]
    listed = re.findall(r"^w\.\w+ +((?:[0-9a-f]{2} +)+?) +\d+ - \d+ ", shown, re.MULTILINE)
    assert b"".join(map(bytes.fromhex, listed)) == DATA


def test_the_reader_of_the_specification_runs_as_printed(path: Path) -> None:
    page: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(block, page)
    weight = pruned(31, 13, 0.3)
    write_sparse(path, {"f": bitmask_from_dense(weight), "i": bitmask_int8(weight)}, {"tied": "f"}, {})
    read = page["read_dense"](path)
    np.testing.assert_array_equal(read["f"], weight.numpy())
    np.testing.assert_array_equal(read["i"], bitmask_to_dense(bitmask_int8(weight)).numpy())
    assert read["tied"] is read["f"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("shape", [(40, 31), (7, 200), (1, 64)])
def test_what_is_written_in_slabs_is_what_is_built_in_memory(
    path: Path, dtype: torch.dtype, int8: bool, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lazy_file, "SLAB_BYTES", 1000)  # a few rows of them
    weight = pruned(*shape, 0.15).to(dtype)
    whole = bitmask_int8(weight.float()) if int8 else bitmask_from_dense(weight)
    layout = bitmask_layout(lazy(weight), int8=int8)
    assert layout is not None
    write_sparse(path, {"w": layout}, {}, {})
    file = read_sparse(path)
    stored = file.tensors["w"]
    assert isinstance(stored, Bitmask)
    assert torch.equal(stored.bits, whole.bits)
    assert torch.equal(stored.values, whole.values)
    assert stored.scales is None if whole.scales is None else torch.equal(stored.scales, whole.scales)
    lazily = lazily_dense(file)["w"]
    assert lazily.dtype == (torch.float32 if int8 else dtype)
    slabs = list(lazily.slabs())
    assert len(slabs) > 1 or shape[0] * shape[1] * 8 <= 1000
    assert torch.equal(torch.cat(slabs), bitmask_to_dense(whole))


@pytest.mark.parametrize(
    ("weight", "int8", "becomes"),
    [
        (pruned(64, 64, 0.1), False, True),
        (pruned(64, 64, 0.5), False, True),
        (pruned(64, 64, 0.02), False, False),  # 10 bytes of indices and pointers are less than 8 of bits
        (pruned(64, 64, 0.9), False, True),
        (pruned(64, 64, 0.95), True, False),  # nobody pruned it
        (pruned(64, 64, 0.63), True, True),
        (pruned(64, 64, 0.7).half(), False, True),  # CSR would be larger than dense
        (pruned(64, 64, 0.4).half(), True, True),
        (pruned(64, 64, 1.0), False, False),
        (pruned(64, 64, 0.02), True, False),
        (pruned(640, 640, 0.03), True, True),
        (torch.full((64, 64), torch.nan), False, False),
        (torch.ones(64), False, False),
        (torch.zeros(64, 64, dtype=torch.int64), False, False),
    ],
)
def test_what_becomes_a_bitmask(weight: Tensor, int8: bool, becomes: bool) -> None:
    assert (bitmask_layout(lazy(weight), int8=int8) is not None) == becomes


def test_any_safetensors_reader_lists_it(path: Path) -> None:
    write_sparse(path, {"w": bitmask_int8(WEIGHT)}, {}, {})
    assert safetensors.torch.load_file(path)["w.values"].tolist() == [127, -64, 127, 1]


DESCRIPTOR = json.loads(json.loads(HEADER)["__metadata__"]["binsparse"])["w"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"format": "bitmap"}, "binsparse '0.1' 'bitmap' is not known here, only '0.1' 'CSR', blocks and bitmasks"),
        ({"shape": [2, 6]}, "row 1 has the scale 1 and int8 values up to 1"),
        ({"shape": [5, 2]}, "int8 values need scales"),
        ({"shape": [2, 9]}, r"bits are uint8 \[2\], expected uint8 \[3\]"),
        ({"number_of_stored_values": 5}, "number_of_stored_values is 5, but there are 4 values"),
        ({"data_types": {"bits": "uint8", "values": "int8"}}, "int8 values need scales, float32 .2.; found none"),
    ],
)
def test_a_descriptor_that_does_not_fit_is_refused(path: Path, change: dict[str, Any], told: str) -> None:
    header = json.loads(HEADER)
    header["__metadata__"]["binsparse"] = json.dumps({"w": {**DESCRIPTOR, **change}})
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + DATA)
    with pytest.raises(InputRefused, match=told):
        read_sparse(path)

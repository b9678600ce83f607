"""Matrices in blocks inside a sparse file: literal bytes, each rule broken in turn, and what becomes blocks."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from rnnprune.errors import InputRefused, UsageError
from rnnprune.formats.bsr import BLOCKS, FORMAT, bsr_or_none, full_block
from rnnprune.formats.sparse import densify, read_sparse, write_sparse
from rnnprune.kernels.bsr import Bsr, bsr_from_dense, bsr_int8, bsr_to_dense

PAGE = Path(__file__).parents[2] / "docs" / "format.md"
WEIGHT = torch.tensor([[0.0, 0.0, 1.5, 0.0], [0, 0, -127, 1], [0, 0, 0, 0], [0, 0, 0, 0]])
HEADER = (
    rb'{"__metadata__":{"format":"pt","rnnprune_format":"1","binsparse":"{\"w\":{\"version\":\"0.1\",\"format\":'
    rb"\"custom\",\"custom\":{\"level\":{\"level_desc\":\"dense\",\"rank\":1,\"level\":{\"level_desc\":\"sparse\",\"rank\":1,"
    rb"\"level\":{\"level_desc\":\"dense\",\"rank\":2,\"level\":{\"level_desc\":\"element\"}}}}},"
    rb"\"shape\":[2,2,2,2],\"number_of_stored_values\":4,\"data_types\":{\"pointers_to_1\":\"int32\","
    rb'\"indices_1\":\"uint16\",\"values\":\"int8\",\"scales\":\"float32\"}}}",'
    rb'"rnnprune":"{\"aliases\":{},\"order\":[\"w\"]}"},'
    rb'"w.pointers_to_1":{"dtype":"I32","shape":[3],"data_offsets":[0,12]},'
    rb'"w.scales":{"dtype":"F32","shape":[4],"data_offsets":[12,28]},'
    rb'"w.indices_1":{"dtype":"U16","shape":[1],"data_offsets":[28,30]},'
    rb'"w.values":{"dtype":"I8","shape":[1,2,2],"data_offsets":[30,34]}}'
)
DATA = bytes.fromhex(
    "00000000 01000000 01000000"  # w.pointers_to_1: 0 1 1
    "0683413c 0000803f 00000000 00000000"  # w.scales: 1.5 / 127, 1, 0, 0
    "0100"  # w.indices_1: 1
    "7f 00 81 01"  # w.values: 127 0 / -127 1
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.bsr.safetensors"


def in_blocks(rows: int, cols: int, block: tuple[int, int], density: float, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    keep = torch.rand(rows // block[0], cols // block[1], generator=generator) < density
    keep = keep.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)
    return torch.randn(rows, cols, generator=generator) * keep


def test_the_bytes_are_these(path: Path) -> None:
    write_sparse(path, {"w": bsr_int8(WEIGHT, (2, 2))}, {}, {})
    header = HEADER + b" " * (-len(HEADER) % 8)
    assert path.read_bytes() == len(header).to_bytes(8, "little") + header + DATA


def test_these_bytes_are_read(path: Path) -> None:
    path.write_bytes(len(HEADER).to_bytes(8, "little") + HEADER + DATA)
    file = read_sparse(path)
    stored = file.tensors["w"]
    assert isinstance(stored, Bsr)
    assert (stored.shape, stored.block, stored.values.dtype) == ((4, 4), (2, 2), torch.int8)
    torch.testing.assert_close(densify(file)["w"], WEIGHT)


def test_the_example_of_the_specification_is_this_file() -> None:
    page = PAGE.read_text()
    for line in (HEADER[HEADER.index(rb'"w.pointers') :].split(b"\n")[0], HEADER[HEADER.index(rb'"{\"w\"') :][:300]):
        assert line.decode() in page.replace("\n", "")
    listed = re.search(r"(06 83 41 3c.*?)12 - 28", page)
    assert listed is not None
    assert bytes.fromhex(listed[1]) == DATA[12:28]


def test_the_reader_of_the_specification_runs_as_printed(path: Path) -> None:
    page: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(block, page)
    weight = in_blocks(32, 12, (8, 4), 0.3)
    write_sparse(path, {"f": bsr_from_dense(weight, (8, 4)), "i": bsr_int8(weight, (8, 4))}, {"tied": "f"}, {})
    read = page["read_dense"](path)
    np.testing.assert_array_equal(read["f"], weight.numpy())
    np.testing.assert_array_equal(read["i"], bsr_to_dense(bsr_int8(weight, (8, 4))).numpy())
    assert read["tied"] is read["f"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    grid=st.tuples(st.integers(1, 5), st.integers(1, 9)),
    block=st.sampled_from(BLOCKS),
    density=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    seed=st.integers(0, 2**31),
)
def test_what_is_written_is_read(
    path: Path, grid: tuple[int, int], block: tuple[int, int], density: float, dtype: torch.dtype, seed: int
) -> None:
    weight = in_blocks(grid[0] * block[0], grid[1] * block[1], block, density, seed).to(dtype)
    stored = {"w": bsr_from_dense(weight, block), "q": bsr_int8(weight.float(), block)}
    write_sparse(path, stored, {"tied": "w"}, {})
    dense = densify(read_sparse(path))
    assert dense["w"].dtype == dtype
    assert torch.equal(dense["w"], weight)
    assert torch.equal(dense["q"], bsr_to_dense(stored["q"]))
    assert dense["tied"] is dense["w"]


def test_more_block_columns_than_uint16_holds(path: Path) -> None:
    for cols in (65_536, 65_537):
        weight = torch.zeros(8, cols)
        weight[:, -1] = 1
        write_sparse(path, {"w": bsr_from_dense(weight, (8, 1))}, {}, {})
        assert torch.equal(densify(read_sparse(path))["w"], weight)
        assert safetensors.torch.load_file(path)["w.indices_1"].dtype == (torch.uint16, torch.int32)[cols - 65_536]


# Refusals

Change = Callable[[dict[str, Tensor], dict[str, Any]], object]


def write_broken(path: Path, change: Change) -> None:
    """The example file, changed before it is written with the real safetensors library."""
    arrays = {
        "w.pointers_to_1": torch.tensor([0, 1, 1], dtype=torch.int32),
        "w.indices_1": torch.tensor([1], dtype=torch.uint16),
        "w.values": torch.tensor([[[127, 0], [-127, 1]]], dtype=torch.int8),
        "w.scales": torch.tensor([1.5 / 127, 1, 0, 0]),
    }
    types = {"pointers_to_1": "int32", "indices_1": "uint16", "values": "int8", "scales": "float32"}
    descriptor: dict[str, Any] = {
        "version": "0.1",
        **FORMAT,
        "shape": [2, 2, 2, 2],
        "number_of_stored_values": 4,
        "data_types": types,
    }
    change(arrays, descriptor)
    safetensors.torch.save_file(arrays, path, {"rnnprune_format": "1", "binsparse": json.dumps({"w": descriptor})})


def array(part: str, value: Tensor) -> Change:
    return lambda arrays, _: arrays.update({f"w.{part}": value})


def described(**replaced: object) -> Change:
    return lambda _, descriptor: descriptor.update(replaced)


def without_scales(_: dict[str, Tensor], descriptor: dict[str, Any]) -> None:
    del descriptor["data_types"]["scales"]


def another_level(_: dict[str, Tensor], descriptor: dict[str, Any]) -> None:
    descriptor |= json.loads(json.dumps(FORMAT).replace('"rank": 2', '"rank": 3'))


BROKEN: dict[str, tuple[Change, str]] = {
    "a pointer too far": (array("pointers_to_1", torch.tensor([0, 1, 2]).int()), "of the blocks, crow_indices ends at"),
    "a column too far": (array("indices_1", torch.tensor([2], dtype=torch.uint16)), r"index of 2 lies outside 0\.\.1"),
    "-128": (array("values", torch.tensor([[[127, 0], [-128, 1]]], dtype=torch.int8)), "an int8 value is -128"),
    "a scale of an empty row": (array("scales", torch.tensor([1.5 / 127, 1, 1, 0])), "row 2 has the scale 1"),
    "scales of another dtype": (array("scales", torch.ones(4).half()), "w: data_types .*float16"),
    "scales not described": (without_scales, "int8 values need scales, float32 .*; found none"),
    "scales gone": (lambda arrays, _: arrays.pop("w.scales"), r"the array w\.scales is missing"),
    "indices gone": (lambda arrays, _: arrays.pop("w.indices_1"), r"the array w\.indices_1 is missing"),
    "dense as well": (lambda arrays, _: arrays.update(w=torch.ones(1)), "w is stored both sparse and dense"),
    "levels of another rank": (another_level, "binsparse '0.1' .* is not known here.*upgrade rnnprune"),
    "format BSR": (described(format="BSR"), "binsparse '0.1' 'BSR' is not known here.*upgrade rnnprune"),
    "another version": (described(version="0.2"), "binsparse '0.2' .* is not known here.*upgrade rnnprune"),
    "CSR after all": (described(format="CSR"), "data_types .* do not match"),
    "shape of two": (described(shape=[4, 4]), "shape .* expected four whole numbers"),
    "shape missing": (described(shape=None), "shape None, expected four whole numbers"),
    "shape of fractions": (described(shape=[2, 2, 2, 2.0]), "shape .* expected four whole numbers"),
    "shape negative": (described(shape=[-2, 2, 2, 2]), "each in 0"),
    "shape too large": (described(shape=[2**70, 2, 2, 2]), "each in 0"),
    "shape of many elements": (described(shape=[2**20, 2**20, 2, 2]), "more than the limit"),
    "shape of other blocks": (described(shape=[2, 2, 1, 4]), "does not fit values of shape"),
    "more values claimed": (described(number_of_stored_values=5), "number_of_stored_values is 5"),
    "data types gone": (described(data_types=None), "data_types None do not match"),
    "data types a list": (described(data_types=["scales"]), "data_types .* do not match"),
}


@pytest.mark.parametrize(("change", "text"), BROKEN.values(), ids=BROKEN.keys())
def test_each_broken_rule_is_refused_and_named(path: Path, change: Change, text: str) -> None:
    write_broken(path, change)
    with pytest.raises(InputRefused, match=text) as refused:
        read_sparse(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert "w" in str(refused.value)


def test_the_example_unbroken_is_read(path: Path) -> None:
    write_broken(path, lambda *_: None)
    torch.testing.assert_close(densify(read_sparse(path))["w"], WEIGHT)


def test_a_small_file_that_claims_gigabytes_is_refused(path: Path) -> None:
    write_sparse(path, {"w": bsr_int8(torch.zeros(16, 2**21), (16, 1))}, {}, {})
    with pytest.raises(InputRefused, match="that would become 134217728 once dense"):
        read_sparse(path)


def test_nothing_is_written_that_would_be_refused(path: Path) -> None:
    good = bsr_int8(WEIGHT, (2, 2))
    bad = Bsr(good.block_crow_indices, good.block_col_indices, good.values, good.shape, None)
    with pytest.raises(InputRefused, match=r"^w: int8 values need scales"):
        write_sparse(path, {"w": bad}, {}, {})
    with pytest.raises(UsageError, match="two tensors would take this name"):
        write_sparse(path, {"w": good, "w.scales": torch.ones(1)}, {}, {})
    assert not path.exists()


# What becomes blocks


@pytest.mark.parametrize("block", BLOCKS)
def test_the_block_is_found(block: tuple[int, int]) -> None:
    weight = in_blocks(64, 64, block, 0.1)
    assert full_block(weight) == block
    found = bsr_or_none(weight)
    assert found is not None
    assert found.block == block


def test_what_stays_without_blocks() -> None:
    unstructured = torch.randn(64, 64) * (torch.rand(64, 64) < 0.1)
    for weight in (
        unstructured,
        torch.zeros(64, 64),
        in_blocks(60, 64, (4, 1), 0.1)[:, :63],
        torch.ones(64, 64),
        torch.ones(64),
        torch.ones(64, 64, dtype=torch.int32),
        in_blocks(64, 64, (16, 1), 0.1).where(torch.eye(64) == 0, torch.nan),
    ):
        assert bsr_or_none(weight) is None
        assert bsr_or_none(weight, int8=True) is None, "a dense matrix would shrink, and was not pruned"
    assert bsr_or_none(unstructured, (16, 1)) is None
    assert bsr_or_none(in_blocks(64, 64, (16, 1), 0.1), (24, 1)) is None
    assert bsr_or_none(in_blocks(64, 64, (16, 1), 0.1), (8, 1)) is not None


def test_int8_refuses_what_float32_cannot_hold() -> None:
    weight = in_blocks(64, 64, (16, 1), 0.1).double() * 1e300
    with pytest.raises(UsageError, match="beyond float32"):
        bsr_or_none(weight, int8=True)


def test_the_size_that_the_issue_promises(path: Path) -> None:
    weight = torch.zeros(110, 1760).bernoulli_(0.1, generator=torch.Generator().manual_seed(0))
    weight = weight.repeat_interleave(16, 0) * torch.randn(1760, 1760)
    stored = bsr_or_none(weight, int8=True)
    assert stored is not None
    assert (stored.block, stored.scales is not None) == ((16, 1), True)
    write_sparse(path, {"w": stored}, {}, {})
    assert path.stat().st_size <= 0.032 * 1760 * 1760 * 4

"""Each rule of docs/format.md broken in turn: every file is refused, and the text names the tensor and the rule."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from rnnprune.errors import InputRefused
from rnnprune.formats.container import write_container
from rnnprune.formats.sparse import densify, read_sparse, write_sparse
from rnnprune.kernels.csr import Csr, csr_from_dense

WEIGHT = torch.tensor([[0.0, 1.5, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [-2.0, 0.0, 0.0, 0.25]])
BIAS = torch.tensor([1.0, 2.0, 3.0])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.csr.safetensors"


Arrays = dict[str, Tensor]
Change = Callable[[Arrays, dict[str, Any], dict[str, str]], object]


def write_broken(path: Path, change: Change) -> None:
    """The example file, changed before it is written with the real safetensors library."""
    arrays = {
        "w.pointers_to_1": torch.tensor([0, 1, 1, 3], dtype=torch.int32),
        "w.indices_1": torch.tensor([1, 0, 3], dtype=torch.uint16),
        "w.values": torch.tensor([1.5, -2.0, 0.25]),
        "b": BIAS,
    }
    descriptor: dict[str, Any] = {
        "version": "0.1",
        "format": "CSR",
        "shape": [3, 4],
        "number_of_stored_values": 3,
        "data_types": {"pointers_to_1": "int32", "indices_1": "uint16", "values": "float32"},
    }
    metadata = {"format": "pt", "rnnprune_format": "1", "rnnprune": '{"aliases": {}}'}
    change(arrays, descriptor, metadata)
    metadata.setdefault("binsparse", json.dumps({"w": descriptor}))
    safetensors.torch.save_file(arrays, path, metadata)


def arrays(**replaced: Tensor) -> Change:
    """Replace arrays of w, and let the descriptor agree with them."""

    def change(stored: Arrays, descriptor: dict[str, Any], _: Mapping[str, str]) -> None:
        for part, array in replaced.items():
            stored[f"w.{part}"] = array
            descriptor["data_types"][part] = str(array.dtype).removeprefix("torch.")
        descriptor["number_of_stored_values"] = stored["w.values"].numel()

    return change


def described(**replaced: object) -> Change:
    return lambda _, descriptor, __: descriptor.update(replaced)


def stated(**replaced: str) -> Change:
    return lambda _, __, metadata: metadata.update(replaced)


def i32(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int32)


def u16(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.uint16)


BROKEN: dict[str, tuple[Change, str]] = {
    "pointers start at 1": (arrays(pointers_to_1=i32(1, 1, 1, 3)), "w: crow_indices starts at 1"),
    "pointers fall": (arrays(pointers_to_1=i32(0, 2, 1, 3)), "w: crow_indices decreases after row 1"),
    "pointers end elsewhere": (arrays(pointers_to_1=i32(0, 1, 1, 4)), "w: crow_indices ends at 4"),
    "pointers too few": (arrays(pointers_to_1=i32(0, 1, 3)), "w: crow_indices has 3 entries"),
    "pointers int64": (arrays(pointers_to_1=torch.tensor([0, 1, 1, 3])), "w: crow_indices are int64"),
    "pointers float": (arrays(pointers_to_1=torch.tensor([0.0, 1, 1, 3])), "w: crow_indices are float32"),
    "index out of range": (arrays(indices_1=u16(1, 0, 4)), r"w: a column index of 4 lies outside 0\.\.3"),
    "index repeated": (arrays(indices_1=u16(1, 3, 3)), "w: col_indices of row 2 are not strictly increasing"),
    "index unsorted": (arrays(indices_1=u16(1, 3, 0)), "w: col_indices of row 2 are not strictly increasing"),
    "index int16": (arrays(indices_1=torch.tensor([1, 0, 3], dtype=torch.int16)), "w: col_indices are int16"),
    "indices too few": (arrays(indices_1=u16(1, 0)), "w: 2 col_indices for 3 values"),
    "indices in a matrix": (arrays(indices_1=u16(1, 0, 3).reshape(3, 1)), r"w: col_indices has shape \[3, 1\]"),
    "value NaN": (arrays(values=torch.tensor([1.0, float("nan"), 2.0])), "w: a stored value is NaN"),
    "value infinite": (arrays(values=torch.tensor([1.0, float("inf"), 2.0])), "w: a stored value is NaN or infinite"),
    "value zero": (arrays(values=torch.tensor([1.0, 0.0, 2.0])), "w: a stored value is zero"),
    "values integer": (arrays(values=i32(1, 2, 3)), "w: values are int32"),
    "shape of one dimension": (described(shape=[12]), "w: shape .* has 1 dimensions"),
    "shape negative": (described(shape=[3, -4]), "w: shape .* must lie in"),
    "shape of strings": (described(shape=["3", "4"]), "w: shape .* must lie in"),
    "shape overflows": (described(shape=[2**31 - 1, 2**31 - 1]), "w: shape .* more than the limit"),
    "shape past any integer": (described(shape=[2**70, 4]), "w: shape .* must lie in"),
    "shape too wide for the dtype": (described(shape=[3, 70_000]), "w: col_indices are uint16, expected int32"),
    "shape missing": (described(shape=None), "w: shape .* has 0 dimensions"),
    "more stored values claimed": (described(number_of_stored_values=4), "w: number_of_stored_values is 4"),
    "data types disagree": (described(data_types={}), "w: data_types .* do not match"),
    "descriptor of another version": (described(version="0.2"), "w: binsparse '0.2' 'CSR' is not known.*upgrade"),
    "descriptor of another format": (described(format="CSC"), "w: binsparse '0.1' 'CSC' is not known.*upgrade"),
    "descriptor no object": (stated(binsparse='{"w": [1]}'), "w: its binsparse descriptor is not a JSON object"),
    "binsparse no JSON": (stated(binsparse="{"), "metadata `binsparse` is not JSON"),
    "binsparse a list": (stated(binsparse="[]"), "metadata `binsparse` is JSON but not an object"),
    "binsparse nested without end": (stated(binsparse="[" * 100_000), "metadata `binsparse` is not JSON"),
    "format of the future": (stated(rnnprune_format="2"), "sparse format '2'.*upgrade rnnprune"),
    "metadata no JSON": (stated(rnnprune="nonsense"), "metadata `rnnprune` is not JSON"),
    "aliases no object": (stated(rnnprune='{"aliases": []}'), "`aliases` is not a JSON object"),
    "alias of nothing": (stated(rnnprune='{"aliases": {"a": "gone"}}'), "alias 'a' of 'gone'"),
    "alias hides a tensor": (stated(rnnprune='{"aliases": {"b": "w"}}'), "alias 'b' of 'w'"),
    "alias of a list": (stated(rnnprune='{"aliases": {"a": ["w"]}}'), "alias 'a' of"),
    "array missing": (lambda stored, *_: stored.pop("w.indices_1"), "w: the array w.indices_1 is missing"),
    "stored twice": (lambda stored, *_: stored.update(w=BIAS.clone()), "w is stored both sparse and dense"),
}


def test_the_file_that_is_broken_below_is_fine(path: Path) -> None:
    write_broken(path, lambda *_: None)
    assert torch.equal(densify(read_sparse(path))["w"], WEIGHT)


@pytest.mark.parametrize(("change", "text"), BROKEN.values(), ids=BROKEN.keys())
def test_each_broken_rule_is_refused_and_named(path: Path, change: Change, text: str) -> None:
    write_broken(path, change)
    with pytest.raises(InputRefused, match=text) as refused:
        read_sparse(path)
    assert str(refused.value).startswith(f"{path}: ")


def test_a_small_file_that_claims_gigabytes_is_refused(path: Path) -> None:
    empty = Csr(
        torch.zeros(16_001, dtype=torch.int32), torch.zeros(0, dtype=torch.int32), torch.zeros(0), (16_000, 200_000)
    )
    write_sparse(path, {"w": empty}, {}, {})
    with pytest.raises(InputRefused, match="that would become 12800000000 once dense"):
        read_sparse(path)


def test_bytes_cut_or_added_are_refused(path: Path) -> None:
    write_sparse(path, {"w": csr_from_dense(WEIGHT), "b": BIAS}, {}, {})
    whole = path.read_bytes()
    for broken in (whole[:-1], whole + b"\0", whole[:100], whole[:8]):
        path.write_bytes(broken)
        with pytest.raises(InputRefused, match="damaged safetensors file"):
            read_sparse(path)


def test_a_mistake_in_the_middle_of_many_tensors_is_named(path: Path) -> None:
    """The name in the text is that of the broken parameter, not of the first."""
    write_container(
        path,
        {
            "a.pointers_to_1": i32(0, 1),
            "a.indices_1": u16(0),
            "a.values": torch.ones(1),
            "z.pointers_to_1": i32(0, 1),
            "z.indices_1": u16(5),
            "z.values": torch.ones(1),
        },
        {
            "rnnprune_format": "1",
            "binsparse": json.dumps(
                {
                    name: {
                        "version": "0.1",
                        "format": "CSR",
                        "shape": [1, 1],
                        "number_of_stored_values": 1,
                        "data_types": {"pointers_to_1": "int32", "indices_1": "uint16", "values": "float32"},
                    }
                    for name in ("a", "z")
                }
            ),
        },
    )
    with pytest.raises(InputRefused, match=": z: a column index of 5"):
        read_sparse(path)


def test_a_file_without_our_own_metadata_is_still_read(path: Path) -> None:
    """Another writer needs `rnnprune_format` and `binsparse` only."""
    write_broken(path, lambda _, __, metadata: metadata.pop("rnnprune"))
    file = read_sparse(path)
    assert (file.aliases, file.metadata) == ({}, {})
    assert torch.equal(densify(file)["w"], WEIGHT)

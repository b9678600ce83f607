"""Files that cost far more than they weigh: endless, quadratic or inflating. Each is refused, or read, in no time."""

import bz2
import json
import struct
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rnnprune.errors import InputRefused
from rnnprune.formats import kinds
from rnnprune.formats.checkpoint import read_checkpoint
from rnnprune.formats.container import write_container, write_dense
from rnnprune.formats.normalise import clean_names
from rnnprune.formats.sparse import densify, read_sparse, write_sparse
from rnnprune.kernels.csr import Csr
from rnnprune.workflows import report as report_module
from rnnprune.workflows.report import report

SECONDS = 2.0
ONES = torch.ones(4, 4)


@pytest.fixture(autouse=True)
def _in_no_time() -> Iterator[None]:
    start = time.process_time()
    yield
    assert time.process_time() - start < SECONDS


def saved(path: Path, tree: object, **options: Any) -> Path:
    torch.save(tree, path, **options)
    return path


class Claim:
    """Unpickles to a tensor of this many elements that the file does not hold."""

    def __init__(self, numel: int) -> None:
        self.numel = numel

    def __reduce__(self) -> tuple[Any, ...]:
        return torch.Tensor, (self.numel,)


def circle() -> dict[str, Any]:
    tree: dict[str, Any] = {"w": ONES}
    tree["model"] = tree
    return tree


def wide_circle() -> dict[str, Any]:
    tree: dict[str, Any] = {"model": {"w": ONES}}
    tree["model"]["net"] = tree
    return tree


def laughs(leaf: object, levels: int = 40) -> dict[str, Any]:
    for _ in range(levels):
        leaf = [leaf, leaf]
    return {"w": ONES, "rnnprune": {"a": leaf}}


def overlapping() -> dict[str, Tensor]:
    storage = torch.zeros(2**16 + 1000)
    return {f"w{i}": storage[i : i + 2**16] for i in range(1000)}


def crossed_masks() -> dict[str, Tensor]:
    """Few weights, few masks, every pair of them: 32 x 32 products of 512 kB each."""
    storage = torch.zeros(2**17 + 32)
    views = [storage[i : i + 2**17] for i in range(32)]
    pairs = [(i, j) for i in range(32) for j in range(32)]
    return {f"a{i}.{j}_orig": views[i] for i, j in pairs} | {f"a{i}.{j}_mask": views[j] for i, j in pairs}


COSTLY: dict[str, tuple[Callable[[], object], str]] = {
    "a model that contains itself": (circle, r"`model` contains itself; save the model's `state_dict\(\)`"),
    "a circle of two": (wide_circle, r"`model\.net\.model` contains itself|contains itself"),
    "a description of terabytes": (lambda: laughs("x"), "a `rnnprune` entry that is not plain data .more than"),
    "a description of long texts": (lambda: laughs("x" * 10**5, 10), "not plain data .more than"),
    "a description without a floor": (lambda: laughs("x", 150), "not plain data .nested more than 100 deep"),
    "overlapping views": (overlapping, "views that would take 262144000 bytes once laid out"),
    "few weights, many masks": (crossed_masks, "few weights under many masks"),
    "a name of a megabyte": (lambda: {".parametrizations." * 60_000 + "x": ONES}, "a name of 1080001 characters"),
    "names added up": (lambda: {"a" * 600: {"b" * 600: {"w": ONES}}, "w": ONES}, "a name of 1202 characters"),
    "names without number": (lambda: dict.fromkeys(map(str, range(20_001)), ONES), "20001 names, the limit is 20000"),
}


@pytest.mark.parametrize(("tree", "text"), COSTLY.values(), ids=COSTLY.keys())
def test_a_tree_that_unfolds_beyond_its_file_is_refused(tmp_path: Path, tree: Callable[[], object], text: str) -> None:
    with pytest.raises(InputRefused, match=text) as refused:
        read_checkpoint(saved(tmp_path / "costly.pt", tree()))
    assert len(str(refused.value)) < 2000


@pytest.mark.parametrize("legacy", [False, True])
def test_a_storage_made_out_of_nothing_is_refused(tmp_path: Path, legacy: bool) -> None:
    path = saved(tmp_path / "c.pt", {"w": Claim(2**24), "b": ONES}, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(InputRefused, match=r"storages of \d+ bytes in a file of|claims a storage of"):
        read_checkpoint(path)


def test_many_masks_are_applied_in_linear_time() -> None:
    tensors = {name: ONES for i in range(14_000) for name in (f"a{i}.weight_orig", f"a{i}.weight_mask")}
    assert len(clean_names(tensors).tensors) == 14_000


def test_one_product_of_a_weight_and_its_mask_serves_all_their_names(tmp_path: Path) -> None:
    big = torch.ones(2**20)
    tree = {name: big for i in range(1000) for name in (f"a{i}_orig", f"a{i}_mask")}
    assert list(read_checkpoint(saved(tmp_path / "masks.pt", tree)).tensors) == ["a0"]


def test_wrappers_upon_wrappers_are_taken_off_together() -> None:
    tensors = {"module." * 130 + "a.w": ONES, "module." * 100 + "w": ONES, "module." * 101: ONES}
    assert list(clean_names(tensors).tensors) == ["module." * 30 + "a.w", "w", "module."]


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_npz_packed_as_numpy_never_packs_is_refused(tmp_path: Path, compression: int) -> None:
    path = tmp_path / "w.npz"
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("w.npy", bytes(100))
    with pytest.raises(InputRefused, match="a compression that numpy never writes"):
        read_checkpoint(path)


def test_a_bzip2_member_that_lies_about_its_size_is_never_unpacked(tmp_path: Path) -> None:
    name, data, size = b"w.npy", bz2.compress(bytes(2**25)) * 32, 128
    local = struct.pack("<IHHHHHIIIHH", 0x04034B50, 46, 0, 12, 0, 0, 0, len(data), size, len(name), 0) + name
    sizes = (0, len(data), size, len(name))
    entry = struct.pack("<IHHHHHHIIIHHHHHII", 0x02014B50, 46, 46, 0, 12, 0, 0, *sizes, 0, 0, 0, 0, 0, 0) + name
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 1, 1, len(entry), len(local) + len(data), 0)
    (tmp_path / "bomb.npz").write_bytes(local + data + entry + end)
    with pytest.raises(InputRefused, match="a compression that numpy never writes"):
        read_checkpoint(tmp_path / "bomb.npz")


def test_an_npz_of_arrays_without_number_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "MAX_NAMES", 3)
    with zipfile.ZipFile(tmp_path / "w.npz", "w") as archive:
        for i in range(4):
            archive.writestr(f"{i}.npy", b"")
    with pytest.raises(InputRefused, match="4 names, the limit is 3"):
        read_checkpoint(tmp_path / "w.npz")


def test_aliases_without_number_are_refused(tmp_path: Path) -> None:
    sparse, dense = tmp_path / "sparse.safetensors", tmp_path / "dense.safetensors"
    aliases = {f"q{i}": "w" for i in range(20_000)}
    write_sparse(sparse, {"w": ONES}, aliases, {})
    write_dense(dense, {"w": ONES}, aliases, {})
    for path in (sparse, dense):
        with pytest.raises(InputRefused, match="20001 names, the limit is 20000"):
            read_checkpoint(path)


def test_arrays_without_number_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "MAX_NAMES", 3)
    write_container(tmp_path / "w.safetensors", {str(i): ONES for i in range(4)}, {})
    with pytest.raises(InputRefused, match="4 names, the limit is 3"):
        read_checkpoint(tmp_path / "w.safetensors")


def empty_csr(rows: int, cols: int) -> Csr:
    indices = torch.zeros(0, dtype=torch.int32 if cols > 65_536 else torch.uint16)
    return Csr(torch.zeros(rows + 1, dtype=torch.int32), indices, torch.zeros(0), (rows, cols))


def test_a_sparse_file_of_bytes_does_not_become_a_gigabyte(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    write_sparse(path, {"w": empty_csr(1, 2**28)}, {}, {})
    for read in (read_sparse, read_checkpoint, report):
        with pytest.raises(InputRefused, match="that would become 1073741824 once dense"):
            read(path)


def test_a_report_of_a_sparse_file_makes_nothing_dense(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.safetensors"
    write_sparse(path, {"w": empty_csr(4, 2**18)}, {"tied": "w"}, {"choices": {"w": {"pruned": True, "reason": "r"}}})
    monkeypatch.setattr("rnnprune.formats.forms.to_dense", lambda _: pytest.fail("made dense"))
    with pytest.raises(pytest.fail.Exception):
        densify(read_sparse(path))
    reads: list[Path] = []
    monkeypatch.setattr(report_module, "read_sparse", lambda path: (reads.append(path), read_sparse(path))[1])
    result = report(path)
    assert [(each.name, each.pruned, each.reason, each.nnz) for each in result.tensors] == [("w", True, "r", 0)]
    assert (result.aliases, reads) == ({"tied": "w"}, [path])


def test_a_sparse_parameter_has_a_name_of_bearable_length(tmp_path: Path) -> None:
    path, text = tmp_path / "w.safetensors", "a name of 5000 characters, the limit is 1000"
    described = {"aliases": {"a" * 5000: "w"}}
    write_container(path, {"w": ONES}, {"rnnprune_format": "1", "binsparse": "{}", "rnnprune": json.dumps(described)})
    for read in (read_checkpoint, report):
        with pytest.raises(InputRefused, match=text):
            read(path)

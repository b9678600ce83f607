"""Content that is no attack but odd: rare dtypes, headers that do not parse, names that no terminal should see."""

import json
import struct
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from rnnprune.errors import InputRefused, RnnpruneError, UsageError, printable
from rnnprune.formats.checkpoint import read_checkpoint
from rnnprune.formats.container import write_container, write_dense
from rnnprune.formats.kinds import detect_kind, refusal
from rnnprune.formats.sparse import cast_values, csr_or_dense, is_sparse_file, write_sparse
from rnnprune.workflows.export import export
from rnnprune.workflows.report import report

ONES = torch.ones(4, 4)


def saved(tmp_path: Path, tree: object) -> Path:
    torch.save(tree, tmp_path / "odd.pt")
    return tmp_path / "odd.pt"


# Headers of .npy


def npz(path: Path, header: bytes, data: bytes = b"") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data)
    return path


def described(dtype: str, shape: str) -> bytes:
    return f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}}}".encode()


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': (((",  # TokenError
        b"{1: 2, 'a': 3}",  # TypeError
        b"{[]: 1}",
        b"-" * 9000 + b"1",  # MemoryError
        b"[" * 9000,
        described("<f4", "(True, 1)"),
        described("<f4", "(" + "1," * 100 + ")"),
        described("<f4", f"(0, {2**100})"),
    ],
)
def test_a_header_of_numpy_that_does_not_parse_is_refused(tmp_path: Path, header: bytes) -> None:
    with pytest.raises(InputRefused, match=r"damaged or hostile \.npz \(.+\)"):
        read_checkpoint(npz(tmp_path / "w.npz", header, bytes(4)))


def test_a_header_of_python_2_is_read_without_a_word(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    path = npz(tmp_path / "w.npz", described("<f4", "(1L,)"), bytes(4))
    assert read_checkpoint(path).tensors["w"].tolist() == [0.0]
    assert not recwarn.list


# Dtypes

FLOAT8 = (torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz)


@pytest.mark.parametrize(
    "dtype", [torch.uint16, torch.uint32, torch.uint64, torch.complex64, torch.bool, torch.bfloat16, *FLOAT8]
)
def test_every_dtype_that_is_read_is_counted_and_exported(tmp_path: Path, dtype: torch.dtype) -> None:
    matrix = torch.zeros(8, 8)
    matrix[0, 0] = matrix[3, 4] = 1.0
    path = saved(tmp_path, {"w": matrix.to(dtype), "b": matrix[0].to(dtype)})
    assert [tensor.nnz for tensor in report(path).tensors] == [2, 1]
    for form in ("csr", "dense"):
        out = export(path, form, out=tmp_path / f"{form}.safetensors").path  # type: ignore[arg-type]
        assert torch.equal(read_checkpoint(out).tensors["w"].to(torch.complex64), matrix.to(torch.complex64))
        assert read_checkpoint(out).tensors["b"].dtype == dtype


def test_a_dtype_without_a_zero_is_counted_too(tmp_path: Path) -> None:
    tensor = torch.zeros(4, dtype=torch.uint8).view(torch.float8_e8m0fnu)  # 2 ** -127 each
    assert report(saved(tmp_path, {"w": tensor})).tensors[0].nnz == 4
    write_container(tmp_path / "w.safetensors", {"w": tensor}, {})
    found = read_checkpoint(tmp_path / "w.safetensors").tensors["w"]
    assert (found.dtype, found.view(torch.uint8).tolist()) == (tensor.dtype, [0, 0, 0, 0])


def test_a_float8_matrix_casts_and_stays_dense() -> None:
    matrix = torch.eye(32).to(torch.float8_e4m3fn)
    assert csr_or_dense(matrix) is matrix
    assert cast_values(matrix, torch.float32).underflowed == 0


@pytest.mark.parametrize("name", ["bits8", "float4_e2m1fn_x2"])
def test_packed_elements_are_refused(tmp_path: Path, name: str) -> None:
    tensor = torch.zeros(4, 4, dtype=torch.uint8).view(getattr(torch, name))
    path = saved(tmp_path, {"w": tensor})
    with pytest.raises(InputRefused, match=f"w is packed as {name}; save the float model"):
        read_checkpoint(path)


def test_conjugate_and_negative_views_are_resolved(tmp_path: Path) -> None:
    number = torch.tensor([1 + 2j])
    path = saved(tmp_path, {"conj": number.conj(), "neg": torch._neg_view(torch.ones(3)), "plain": number})
    tensors = read_checkpoint(path).tensors
    assert (tensors["conj"].tolist(), tensors["conj"].is_conj()) == ([1 - 2j], False)
    assert (tensors["neg"].tolist(), tensors["neg"].is_neg()) == ([-1.0, -1.0, -1.0], False)
    assert tensors["plain"].tolist() == [1 + 2j]
    write_dense(tmp_path / "out.safetensors", tensors, {}, {})


# Metadata


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "[-1e999]"])
def test_metadata_with_a_number_that_json_lacks_are_refused(tmp_path: Path, number: str) -> None:
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file({"w": ONES}, path, {"rnnprune": f'{{"x": {number}}}'})
    with pytest.raises(InputRefused, match=r"metadata `rnnprune` is not JSON .*is not finite"):
        read_checkpoint(path)


def test_metadata_that_nest_too_deep_to_be_written_again_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    for depth, text in ((500, "nested more than 100 deep"), (100_000, "not JSON")):
        safetensors.torch.save_file({"w": ONES}, path, {"rnnprune": '{"x":' + "[" * depth + "]" * depth + "}"})
        with pytest.raises(InputRefused, match=text):
            read_checkpoint(path)
    safetensors.torch.save_file({"w": ONES}, path, {"rnnprune": '{"x":' + "[" * 90 + "1.5" + "]" * 90 + "}"})
    assert read_checkpoint(path).metadata


# Names


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("__metadata__", r"__metadata__: the name is the format's own"),
        ("a\ud800b", r"a\\ud800b: the name holds half a character \(a lone surrogate\)"),
        ("a" * 1001, "the name has 1001 characters, the limit is 1000"),
    ],
)
def test_a_name_that_could_not_be_read_back_is_not_written(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / "w.safetensors"
    with pytest.raises(UsageError, match=text):
        write_dense(path, {name: ONES}, {}, {})
    with pytest.raises(UsageError, match=text):
        write_sparse(path, {name: ONES}, {}, {})
    assert not path.exists()
    write_dense(path, {"größe.重み": ONES}, {}, {})
    assert list(read_checkpoint(path).tensors) == ["größe.重み"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rnn.weight_hh_l0", "rnn.weight_hh_l0"),
        ("größe 重み", "größe 重み"),
        ("", ""),
        ("a\x1b[2J\nb\x07\x7f", r"a\x1b[2J\nb\x07\x7f"),
        ("left \u202e right", r"left \u202e right"),
        ("half \ud800", r"half \ud800"),
        ("a" * 200, "a" * 200),
        ("a" * 100 + "b" * 101, "a" * 98 + "..." + "b" * 98),
    ],
)
def test_what_a_file_says_is_shown_so_that_a_terminal_survives(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown
    printable(text).encode()


ESCAPED = r"\x1b[2J"
NASTY = "w\x1b[2J"


def refused_tree(name: str) -> list[dict[str, object]]:
    sparse = torch.eye(3).to_sparse()
    return [
        {name: sparse},
        {name: {"a": ONES}, f"{name}.a": ONES},
        {f"{name}_orig": ONES, f"{name}_mask": torch.ones(2)},
        {name * 300: ONES},
        {"state_dict": {"w": ONES}, "rnnprune": {name: sparse}},
    ]


@pytest.mark.parametrize("which", range(5))
def test_no_refusal_of_the_reader_carries_a_terminals_commands(tmp_path: Path, which: int) -> None:
    with pytest.raises(InputRefused) as refused:
        read_checkpoint(saved(tmp_path, refused_tree(NASTY)[which]))
    assert ESCAPED in str(refused.value) or "not JSON serializable" in str(refused.value)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    "metadata",
    [
        {"binsparse": json.dumps({NASTY: {"version": NASTY}})},
        {"binsparse": json.dumps({NASTY: {"version": "0.1", "format": "CSR"}})},
        {"binsparse": "{}", "rnnprune": json.dumps({"aliases": {NASTY: NASTY}})},
    ],
)
def test_no_refusal_of_a_sparse_file_does_either(tmp_path: Path, metadata: dict[str, str]) -> None:
    path = tmp_path / "w.safetensors"
    write_container(path, {"w": ONES}, {"rnnprune_format": "1", **metadata})
    with pytest.raises(InputRefused) as refused:
        read_checkpoint(path)
    assert ESCAPED in str(refused.value)
    assert str(refused.value).isprintable()


def test_a_note_quotes_names_as_they_can_be_shown(tmp_path: Path) -> None:
    notes = read_checkpoint(saved(tmp_path, {"model": {"w": ONES}, NASTY: {"v": ONES}})).notes
    assert ESCAPED in notes[0]
    assert all(note.isprintable() for note in notes)


def test_a_reason_of_any_length_is_cut(tmp_path: Path) -> None:
    assert len(str(refusal(tmp_path, "x" * 10**6, "do this"))) < 3000


@pytest.mark.parametrize("error", [RnnpruneError, UsageError, InputRefused])
def test_no_error_carries_a_terminals_commands(error: type[RnnpruneError]) -> None:
    assert str(error(f"{NASTY} is no name;\nuse another")) == f"w{ESCAPED} is no name;\nuse another"


# What two readers would read differently


def raw(path: Path, header: str, data: bytes) -> Path:
    path.write_bytes(struct.pack("<Q", len(header)) + header.encode() + data)
    return path


TWO_FLOATS = '{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'


@pytest.mark.parametrize(
    ("header", "name"),
    [
        (f'{{"a":{TWO_FLOATS},"a":{TWO_FLOATS}}}', "a"),
        (f'{{"__metadata__":{{"x":"1","x":"2"}},"a":{TWO_FLOATS}}}', "x"),
        (f'{{"__metadata__":{{"rnnprune":"{{\\"k\\":1,\\"k\\":2}}"}},"a":{TWO_FLOATS}}}', "k"),
    ],
)
def test_a_name_that_stands_twice_is_refused(tmp_path: Path, header: str, name: str) -> None:
    with pytest.raises(InputRefused, match=f"'{name}' stands twice in one JSON object"):
        read_checkpoint(raw(tmp_path / "w", header, bytes(8)))


def test_an_array_at_an_odd_address_is_copied(tmp_path: Path) -> None:
    header = (
        '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"w":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}}'
    )
    tensor = read_checkpoint(raw(tmp_path / "w", header, b"\7" + struct.pack("<2f", 1.5, -2.0))).tensors["w"]
    assert (tensor.tolist(), tensor.data_ptr() % 4) == ([1.5, -2.0], 0)


@pytest.mark.parametrize("lost", ["rnnprune_format", "binsparse"])
def test_a_sparse_file_that_has_lost_a_key_is_not_taken_for_a_dense_one(tmp_path: Path, lost: str) -> None:
    metadata = {"rnnprune_format": "1", "binsparse": "{}"}
    del metadata[lost]
    write_container(tmp_path / "w", {"w.values": ONES}, metadata)
    with pytest.raises(InputRefused, match=f"its metadata lack `{lost}`"):
        read_checkpoint(tmp_path / "w")


# Paths


@pytest.mark.parametrize("name", ["a" * 300, "a\0b"])
def test_a_path_that_cannot_exist_is_a_mistake_in_the_call(tmp_path: Path, name: str) -> None:
    for read in (detect_kind, read_checkpoint, report):
        with pytest.raises(UsageError, match=r"there is no such file|cannot be read: File name too long; check"):
            read(tmp_path / name)
    assert not is_sparse_file(tmp_path / name)


def test_a_zip_directory_that_breaks_the_reader_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, {"w": ONES})

    def broken(*_: object) -> Tensor:
        raise struct.error("unpack requires a buffer of 4 bytes")

    monkeypatch.setattr(zipfile, "ZipFile", broken)
    with pytest.raises(RnnpruneError, match=r"a truncated or damaged zip \(unpack requires"):
        read_checkpoint(path)

"""Every limit of every reader, met by files made of literal bytes: none of our writers, no torch, no zipfile."""

import json
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rnnprune.errors import InputRefused
from rnnprune.formats.checkpoint import read_checkpoint
from rnnprune.workflows.report import report

SECONDS, BYTES = 5.0, 2**25


@pytest.fixture(autouse=True)
def _in_no_time() -> Iterator[None]:
    start = time.process_time()
    yield
    assert time.process_time() - start < SECONDS


# safetensors


def container(header: bytes, body: bytes = b"", claimed: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if claimed is None else claimed) + header + body


def sparse(matrices: int, rows: int, cols: int, binsparse: str | None = None, about: str = "{}") -> bytes:
    """Matrices without a value: a shape, and rows + 1 pointers of zero each."""
    types = {"pointers_to_1": "int32", "indices_1": "int32", "values": "float32"}
    told = {"version": "0.1", "format": "CSR", "shape": [rows, cols], "number_of_stored_values": 0, "data_types": types}
    described = binsparse or json.dumps({f"w{i}": told for i in range(matrices)})
    header: dict[str, object] = {"__metadata__": {"rnnprune_format": "1", "binsparse": described, "rnnprune": about}}
    end, size = 0, 4 * (rows + 1)
    for i in range(matrices):
        for part, dtype, shape, length in (
            ("pointers_to_1", "I32", [rows + 1], size),
            ("indices_1", "I32", [0], 0),
            ("values", "F32", [0], 0),
        ):
            header[f"w{i}.{part}"] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + length]}
            end += length
    return container(json.dumps(header).encode(), bytes(end))


EMPTY = '"dtype":"F32","shape":[0],"data_offsets":[0,0]'
SAFETENSORS: dict[str, tuple[Callable[[], bytes], str]] = {
    "a header of 2**63 bytes": (lambda: container(b"{}", claimed=2**63), "damaged safetensors"),
    "a header past its limit": (lambda: container(b"{" + b" " * 10**8), "damaged safetensors.*header too large"),
    "a header longer than the file": (lambda: container(b"{}", claimed=1000), "damaged safetensors"),
    "a header nested without end": (lambda: container(b'{"a":' * 50_000 + b"1" + b"}" * 50_000), "damaged safetensors"),
    "names without number": (
        lambda: container(f"{{{','.join(f'{chr(34)}{i}{chr(34)}:{{{EMPTY}}}' for i in range(20_001))}}}".encode()),
        "20001 names, the limit is 20000",
    ),
    "a shape past any integer": (
        lambda: container(b'{"w":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}'),
        "damaged safetensors",
    ),
    "a description nested 101 deep": (
        lambda: sparse(1, 1, 4, about='{"a":' * 101 + "1" + "}" * 101),
        "metadata `rnnprune`: nested more than 100 deep",
    ),
    "descriptors nested without end": (lambda: sparse(0, 0, 0, "[" * 10**5), "metadata `binsparse` is not JSON"),
    "a matrix that becomes a gigabyte": (lambda: sparse(1, 1, 2**28), "would become 1073741824 once dense"),
    "small ones that become one together": (lambda: sparse(64, 1, 2**22), "would become 1073741824 once dense"),
    "a matrix past the limit of elements": (lambda: sparse(1, 3, 2**31 - 1), "more than the limit of 4294967296"),
}


@pytest.mark.parametrize(("data", "text"), SAFETENSORS.values(), ids=SAFETENSORS.keys())
def test_a_safetensors_file_past_a_limit_is_refused(tmp_path: Path, data: Callable[[], bytes], text: str) -> None:
    refused(tmp_path, data(), text)


# Zips


def zipped(name: bytes, stored: bytes, size: int, method: int = 0) -> bytes:
    """One member that says what it likes about its size."""
    told = (zlib.crc32(stored), len(stored), size, len(name))
    local = struct.pack("<IHHHHHIIIHH", 0x04034B50, 20, 0, method, 0, 33, *told, 0) + name + stored
    entry = struct.pack("<IHHHHHHIIIHHHHHII", 0x02014B50, 20, 20, 0, method, 0, 33, *told, 0, 0, 0, 0, 0, 0) + name
    return local + entry + struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 1, 1, len(entry), len(local), 0)


def directory(count: int) -> bytes:
    """A directory of so many members, each without a byte."""
    entries = b"".join(
        struct.pack("<IHHHHHHIIIHHHHHII", 0x02014B50, 20, 20, 0, 0, 0, 33, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0)
        + b"%06d.npy" % i
        for i in range(count)
    )
    local = b"PK\x03\x04" + bytes(26)
    return local + entries + struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 65535, 65535, len(entries), len(local), 0)


def npy(header: str, body: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + body


def bomb(declared: int, shape: str) -> bytes:
    """256 MB of zeros behind an honest header, deflated to a thousandth."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(npy(f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}\n"))
    zeros = bytes(2**20)
    packed += b"".join(packer.compress(zeros) for _ in range(256)) + packer.flush()
    return zipped(b"w.npy", packed, declared, 8)


FLOATS = "{'descr': '<f4', 'fortran_order': False, 'shape': %s}\n"
HEADER = len(npy(FLOATS % "(16,)"))
ZIPS: dict[str, tuple[Callable[[], bytes], str]] = {
    "a directory of 200,000 members": (lambda: directory(200_000), "a zip whose directory takes 11200000 bytes"),
    "an .npz of 20,001 arrays": (lambda: directory(20_001), "20001 names, the limit is 20000"),
    "a bomb that tells its size": (lambda: bomb(HEADER + 2**28, "(67108864,)"), "bytes that would unpack to 2684"),
    "a bomb that claims to be small": (lambda: bomb(HEADER + 64, "(16,)"), "damaged or hostile .npz"),
    "a shape of terabytes": (
        lambda: zipped(b"w.npy", npy(FLOATS % "(1099511627776,)", bytes(8)), len(npy(FLOATS % "(1099511627776,)")) + 8),
        "8 bytes for shape",
    ),
    "a header of an array past its limit": (
        lambda: zipped(
            b"w.npy", npy((FLOATS % "(0,)").rstrip() + " " * 20_000), 20_000 + len(npy(FLOATS % "(0,)")) - 1
        ),
        "damaged or hostile .npz .*Header info length",
    ),
    "a deflated torch checkpoint": (
        lambda: zipped(b"x/data.pkl", zlib.compress(b"}." * 99)[2:-4], 198, 8),
        "members are compressed or encrypted",
    ),
    "a pickle past its limit": (
        lambda: zipped(b"x/data.pkl", b"\x80\x02}q\x00.", 2**26 + 1),
        "whose pickle takes 67108865 bytes, the limit is 67108864",
    ),
}


@pytest.mark.parametrize(("data", "text"), ZIPS.values(), ids=ZIPS.keys())
def test_a_zip_past_a_limit_is_refused(tmp_path: Path, data: Callable[[], bytes], text: str) -> None:
    refused(tmp_path, data(), text)


@pytest.mark.parametrize("name", ["a bomb that tells its size", "a bomb that claims to be small"])
def test_a_bomb_is_not_unpacked(tmp_path: Path, name: str) -> None:
    (tmp_path / "w").write_bytes(ZIPS[name][0]())
    tracemalloc.start()
    with pytest.raises(InputRefused):
        read_checkpoint(tmp_path / "w")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < BYTES


def test_what_is_within_the_limits_is_read(tmp_path: Path) -> None:
    """The same makers, so that a refusal above is one of the limit's."""
    body = npy(FLOATS % "(16,)", struct.pack("<16f", *range(16)))
    (tmp_path / "w.npz").write_bytes(zipped(b"w.npy", body, len(body)))
    assert read_checkpoint(tmp_path / "w.npz").tensors["w"].tolist() == list(range(16))
    (tmp_path / "w.safetensors").write_bytes(sparse(3, 2, 70_000, about='{"a":' * 99 + "1" + "}" * 99))
    assert read_checkpoint(tmp_path / "w.safetensors").tensors["w2"].shape == (2, 70_000)
    assert [tensor.nnz for tensor in report(tmp_path / "w.safetensors").tensors] == [0, 0, 0]


def refused(folder: Path, data: bytes, text: str) -> None:
    (folder / "w").write_bytes(data)
    for read in (read_checkpoint, report):
        with pytest.raises(InputRefused, match=text) as raised:
            read(folder / "w")
        assert len(str(raised.value)) < 3000

"""Zips written by hand, so that a directory can lie about its members; and what they hold: pickles and .npy arrays."""

from __future__ import annotations

import functools
import io
import random
import struct
import zipfile
import zlib
from copy import copy
from dataclasses import dataclass, replace

from tests.fuzz.mutate_pickle import wreck_pickle
from tests.fuzz.tokens import wreck_bytes, wreck_text

BOMB = zlib.compressobj(9, zlib.DEFLATED, -15)
BOMB_BYTES = 2**27
PACKED_BOMB = BOMB.compress(bytes(BOMB_BYTES)) + BOMB.flush()
METHODS = (0, 8, 8, 12, 14, 93, 99, 65535)
FLAGS = (1, 8, 0x40, 0x800, 0x2000, 0xFFFF)
SIZES = (0, 1, 63, 64, 65, 2**16, 2**20, 2**26, 2**31 - 1, 2**31, 2**32 - 1)
NAMES = (
    b"",
    b"/",
    b"../../etc/x",
    b"x/data/0",
    b"archive/data.pkl",
    b"a/b.npy",
    b".npy",
    b"\xff\xfe.npy",
    b"x\0y.npy",
    b"n" * 2000,
)
MORE_MEMBERS = (
    b"m/constants.pkl",
    b"m/code/a.py",
    b"m/version",
    b"m/data/1",
    b"m/data/../0",
    b"m/byteorder",
    b"w.npy",
    b"m/.data/x",
)


@dataclass
class Member:
    """One member as its local header and the directory tell it; they need not agree."""

    name: bytes
    data: bytes
    crc: int
    size: int
    method: int = 0
    flags: int = 0
    local_flags: int = 0
    extra: bytes = b""
    local_name: bytes = b""
    shift: int = 0
    claimed: int | None = None


@functools.cache
def members_of(data: bytes) -> tuple[Member, ...]:
    """Of a whole zip; torch's padding, which aligns the storages, is kept."""
    members = []
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for info in archive.infolist():
            name_length, extra_length = struct.unpack_from("<HH", data, info.header_offset + 26)
            begin = info.header_offset + 30 + name_length
            extra, begin = data[begin : begin + extra_length], begin + extra_length
            stored, name = data[begin : begin + info.compress_size], info.filename.encode()
            members.append(Member(name, stored, info.CRC, info.file_size, info.compress_type, 0, 0, extra, name))
    return tuple(members)


def zip_bytes(members: list[Member], comment: bytes = b"") -> bytes:
    """The zip, its directory and its end."""
    body, directory = bytearray(), bytearray()
    for m in members:
        offset = (len(body) + m.shift) % 2**32
        length = len(m.data) if m.claimed is None else m.claimed
        sizes = (m.crc, length, m.size, len(m.local_name), len(m.extra))
        body += struct.pack("<IHHHHHIIIHH", 0x04034B50, 20, m.local_flags, m.method, 0, 33, *sizes)
        body += m.local_name + m.extra + m.data
        fixed = (0x02014B50, 20, 20, m.flags, m.method, 0, 33, *sizes[:3], len(m.name))
        directory += struct.pack("<IHHHHHHIIIHHHHHII", *fixed, 0, 0, 0, 0, 0, offset)
        directory += m.name
    count = len(members) % 2**16
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, count, count, len(directory), len(body), len(comment))
    return bytes(body + directory + end + comment)


def mutate(rng: random.Random, data: bytes) -> bytes:
    """What a member holds is changed, or how the zip describes it, or both."""
    members = [copy(member) for member in members_of(data)]
    for _ in range(rng.choice((1, 1, 1, 2))):
        if rng.random() < 0.65:
            _wreck_content(rng, rng.choice(_worth(rng, members)))
        else:
            _wreck_structure(rng, members)
    return zip_bytes(members, rng.choice((b"", b"", b"", b"comment", b"PK\x05\x06" + bytes(18))))


def _worth(rng: random.Random, members: list[Member]) -> list[Member]:
    """The pickle, mostly, where there is one."""
    pickles = [member for member in members if member.name.endswith(b"data.pkl")]
    return pickles if pickles and rng.random() < 0.8 else members


def _wreck_content(rng: random.Random, member: Member) -> None:
    content = member.data
    if member.method == 8:
        try:
            content = zlib.decompress(content, -15)
        except zlib.error:
            return
    if member.name.endswith(b".pkl"):
        content = wreck_pickle(rng, content)
    elif member.name.endswith(b".npy") and rng.random() < 0.8:
        content = _wreck_npy(rng, content)
    else:
        content = wreck_bytes(rng, content)
    member.size, member.crc = len(content), zlib.crc32(content)
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    member.data = packer.compress(content) + packer.flush() if member.method == 8 else content


def _wreck_npy(rng: random.Random, content: bytes) -> bytes:
    length = struct.unpack_from("<H", content, 8)[0] if len(content) > 10 else 0
    text = wreck_text(rng, content[10 : 10 + length].decode("latin1").rstrip())
    header = text.encode("latin1", "replace") + b" " * (-(len(text) + 11) % 64) + b"\n"
    version = rng.choice((1,) * 12 + (2, 3, 0))
    size = struct.pack("<I" if version > 1 else "<H", len(header) % 2**16)
    return b"\x93NUMPY" + bytes((version, 0)) + size + header + content[10 + length :]


def _wreck_structure(rng: random.Random, members: list[Member]) -> None:
    how, member = rng.randrange(5), rng.choice(members)
    if how < 2:
        _lie(rng, member)
    elif how == 2:
        members.insert(rng.randrange(len(members) + 1), replace(member, data=rng.choice(members).data))
    elif how == 3:
        name = rng.choice((*NAMES, rng.choice(members).name, member.name.swapcase(), b"m/" + member.name))
        member.name, member.local_name = rng.choice(((name, name), (name, member.local_name), (member.name, name)))
    elif rng.random() < 0.05:
        member.method, member.data, member.size = 8, PACKED_BOMB, rng.choice((BOMB_BYTES, member.size))
    elif rng.random() < 0.5 and len(members) > 1:
        members.remove(member)
    else:
        name = rng.choice(MORE_MEMBERS)
        members.append(Member(name, b"x", zlib.crc32(b"x"), 1, local_name=name))


def _lie(rng: random.Random, member: Member) -> None:
    """About the checksum, the method, the flags, the place or a size."""
    how = rng.randrange(6)
    if how == 0:
        member.crc ^= rng.choice((1, 2**31, 0xFFFFFFFF))
    elif how == 1:
        member.flags = rng.choice(FLAGS)
        member.local_flags = rng.choice((member.flags, 0))
    elif how == 2:
        member.method = rng.choice(METHODS)
    elif how == 3:
        member.size = rng.choice((*SIZES, member.size + 1, max(member.size - 1, 0), member.size * 2 % 2**32))
    elif how == 4:
        member.claimed = rng.choice((*SIZES, len(member.data) + 1, max(len(member.data) - 1, 0)))
    else:
        member.shift = rng.choice((1, -1, 30, 64, -64, 2**31))

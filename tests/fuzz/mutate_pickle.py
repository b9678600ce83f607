"""Pickles taken apart into their instructions, of which some are then replaced, dropped, doubled or added."""

from __future__ import annotations

import functools
import io
import itertools
import pickle
import pickletools
import random
import struct

from tests.fuzz.tokens import wreck_bytes

INTS = (
    0,
    1,
    2,
    3,
    4,
    5,
    8,
    63,
    64,
    65,
    255,
    1024,
    2**16,
    2**24,
    2**31 - 1,
    2**31,
    2**40,
    2**62,
    2**63 - 1,
    2**63,
    2**64,
)
WORDS = (
    "",
    "storage",
    "cpu",
    "cuda:0",
    "meta",
    "0",
    "1",
    "99",
    "../0",
    "weight_hh_l0",
    "rnnprune",
    "state_dict",
    "little",
)
GLOBALS = (
    *("os system", "builtins eval", "builtins getattr", "torch load", "collections OrderedDict", "torch Size"),
    *("torch FloatStorage", "torch HalfStorage", "torch LongStorage", "torch BoolStorage", "torch ComplexFloatStorage"),
    *("torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter", "torch._utils _rebuild_tensor_v3"),
    *("torch._utils _rebuild_sparse_tensor", "torch._utils _rebuild_nested_tensor", "torch._utils _rebuild_qtensor"),
    *("torch._utils _rebuild_meta_tensor_no_storage", "torch._utils _rebuild_device_tensor_from_numpy"),
    *("torch._utils _rebuild_wrapper_subclass", "torch._utils _rebuild_parameter_with_state"),
    *("torch._tensor _rebuild_from_type_v2", "torch Tensor", "torch.nn.parameter Parameter"),
    *("torch.nn.parameter UninitializedParameter", "torch float32", "torch.storage UntypedStorage", "torch device"),
    *("torch.storage TypedStorage", "torch.serialization _get_layout", "torch QInt8Storage", "collections Counter"),
    *("torch bits8", "torch float8_e8m0fnu", "numpy._core.multiarray _reconstruct", "_codecs encode", "torch.jit load"),
)  # fmt: skip
NO_ARGUMENT = tuple(ord(op.code) for op in pickletools.opcodes if op.arg is None)


@functools.cache
def instructions(data: bytes) -> tuple[bytes, ...]:
    """The pickle in pieces, one instruction each; what follows its end, or cannot be read, is the last piece."""
    begins = []
    try:
        begins = [place for _, _, place in pickletools.genops(data) if place is not None]
    except Exception:
        begins = begins or [0]
    last = begins[-1] + 1 if data[begins[-1] : begins[-1] + 1] == b"." else begins[-1]
    places = [*begins, last, len(data)] if last > begins[-1] else [*begins, len(data)]
    return tuple(data[begin:end] for begin, end in itertools.pairwise(places))


def wreck_pickle(rng: random.Random, data: bytes) -> bytes:
    """One or two instructions changed."""
    pieces = list(instructions(data))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        _wreck_instruction(rng, pieces)
    return b"".join(pieces)


def wreck_legacy(rng: random.Random, data: bytes) -> bytes:
    """torch's older format: magic, version, platform, tree, keys of the storages, a pickle each; then the storages."""
    pieces = list(pickles(data))
    at = rng.choice((3, 3, 3, 3, 3, 4, 4, 5, 5, 0, 1, 2))
    pieces[at] = wreck_bytes(rng, pieces[at]) if at == 5 else wreck_pickle(rng, pieces[at])
    return b"".join(pieces)


@functools.cache
def pickles(data: bytes) -> tuple[bytes, ...]:
    """The five pickles of the older format, and the rest."""
    pieces, file = [], io.BytesIO(data)
    for _ in range(5):
        begin = file.tell()
        for _ in pickletools.genops(file):
            pass
        pieces.append(data[begin : file.tell()])
    return (*pieces, data[file.tell() :])


def _wreck_instruction(rng: random.Random, pieces: list[bytes]) -> None:
    how, at = rng.randrange(8), rng.randrange(len(pieces))
    if how == 0:
        del pieces[at : at + rng.choice((1, 1, 2, 5))]
        pieces.append(b"") if not pieces else None
    elif how == 1:
        pieces.insert(at, rng.choice(pieces))
    elif how == 2:
        other = rng.randrange(len(pieces))
        pieces[at], pieces[other] = pieces[other], pieces[at]
    elif how == 3:
        pieces.insert(at, rng.choice((bytes((rng.choice(NO_ARGUMENT),)), _word(rng), _number(rng), _global(rng))))
    elif how == 4:
        _replace(rng, pieces, b"c", _global(rng))
    elif how == 5:
        _replace(rng, pieces, b"X", _word(rng))
    else:
        _replace(rng, pieces, b"KMJ\x8a", _number(rng))


def _replace(rng: random.Random, pieces: list[bytes], codes: bytes, new: bytes) -> None:
    """One of the instructions with these codes becomes another, or one that stands elsewhere."""
    places = [place for place, piece in enumerate(pieces) if piece[:1] and piece[0] in codes]
    if places:
        pieces[rng.choice(places)] = new if rng.random() < 0.7 else pieces[rng.choice(places)]


def _number(rng: random.Random) -> bytes:
    return pickle.dumps(rng.choice(INTS) * rng.choice((1, 1, 1, -1)), 2)[2:-1]


def _word(rng: random.Random) -> bytes:
    text = rng.choice(WORDS).encode()
    return b"X" + struct.pack("<I", len(text) if rng.random() < 0.95 else 2**31) + text


def _global(rng: random.Random) -> bytes:
    module, name = rng.choice(GLOBALS).split()
    return f"c{module}\n{name}\n".encode()

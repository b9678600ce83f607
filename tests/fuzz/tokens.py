"""Changes that any file or text can suffer: bytes flipped, cut, moved; one token of a text replaced by a nasty one."""

from __future__ import annotations

import random
import re

TOKEN = re.compile(r'-?\d[\d.eE+-]*|"(?:[^"\\]|\\.)*"|\'[^\']*\'|true|false|null|True|False|None|[\[\]{}(),:]')
PAIR = re.compile(r'"(?:[^"\\]|\\.)*":(?:"(?:[^"\\]|\\.)*"|\[[\d,]*\]|-?\d+|\{[^{}]*\})')
NUMBERS = (
    *(
        "0",
        "1",
        "-1",
        "2",
        "3",
        "7",
        "8",
        "16",
        "63",
        "64",
        "65",
        "127",
        "128",
        "255",
        "256",
        "65535",
        "65536",
        "70000",
    ),
    *("16777216", "2147483647", "2147483648", "-2147483648", "4294967296", "9007199254740993", "9223372036854775807"),
    *("9223372036854775808", "18446744073709551615", "18446744073709551616", "1" * 400, "-0", "1.0", "0.5", "1e2"),
    *("1e999", "NaN", "-Infinity", "true", "false", "null", '"8"', "[8]", "[]", "{}", "1L", "0x8", "1_0", "(8)"),
)
STRINGS = (
    *('"F32"', '"F16"', '"BF16"', '"F64"', '"I8"', '"U8"', '"U16"', '"I16"', '"I32"', '"I64"', '"U64"', '"BOOL"'),
    *(
        '"F8_E4M3"',
        '"F4"',
        '"C64"',
        '"F99"',
        '"CSR"',
        '"CSC"',
        '"0.1"',
        '"1"',
        '"2"',
        '"int8"',
        '"uint16"',
        '"float32"',
    ),
    *('"bfloat16"', '"scales"', '"values"', '"pointers_to_1"', '"indices_1"', '"dense"', '"sparse"', '"lm"', '"gru"'),
    *('"__metadata__"', '"weight_hh_l0"', '"weight_ih_l0.values"', '"tied"', '"rnn.weight_hh_l0"', '"aliases"', '""'),
    *(
        '"\\u0000"',
        '"\\ud800"',
        '"\\u202e\\u001b[2J"',
        '"../../x"',
        '"' + "n" * 1200 + '"',
        '"nul\\"',
        "null",
        "7",
        "[]",
    ),
    *("'<f4'", "'>f8'", "'|O'", "'<U9'", "'<f2'", "'|b1'", "'<c16'", "'<M8[s]'", "'f4,f4'", "'descr'", "'shape'", "{}"),
)
WINDOW = 10_000
NESTED = (3, 50, 101, 200, 1000, 5000, 100_000)


def wreck_text(rng: random.Random, text: str) -> str:
    """The text with one token replaced, dropped, doubled or nested, or with one pair of an object doubled."""
    if len(text) > 2 * WINDOW:  # nested by an earlier change: half a million tokens
        begin = rng.randrange(len(text) - WINDOW)
        return text[:begin] + wreck_text(rng, text[begin : begin + WINDOW]) + text[begin + WINDOW :]
    tokens = list((PAIR if (how := rng.randrange(10)) == 0 else TOKEN).finditer(text))
    if not tokens:
        return text + rng.choice(NUMBERS)
    token = rng.choice(tokens)
    before, old, after = text[: token.start()], token[0], text[token.end() :]
    if how == 0:
        return f"{before}{old},{rng.choice((old, rng.choice(tokens)[0]))}{after}"
    if how == 1:
        return before + after
    if how == 2:
        return before + rng.choice(tokens)[0] + after
    if how == 3:
        depth = rng.choice(NESTED)
        opened, closed = rng.choice((("[", "]"), ('{"a":', "}")))
        return before + opened * depth + old + closed * rng.choice((depth, depth, depth, 0)) + after
    likely = NUMBERS if old[0].isdigit() or old[0] == "-" else STRINGS
    return before + rng.choice(likely if rng.random() < 0.85 else NUMBERS + STRINGS) + after


def wreck_bytes(rng: random.Random, data: bytes, other: bytes = b"") -> bytes:
    """The bytes with a few of them flipped, set, cut, added, moved, or with the tail of another file."""
    if not data:
        return rng.randbytes(rng.randrange(1, 40))
    how, at = rng.randrange(8), rng.randrange(len(data))
    length = min(len(data) - at, rng.choice((1, 2, 4, 8, 8, 64, 512)))
    if how == 0:
        return data[:at]
    if how == 1:
        return data[:at] + data[at + length :]
    if how == 2:
        return (
            data[:at] + rng.choice((rng.randbytes(length), bytes(length), b"\xff" * length, data[-length:])) + data[at:]
        )
    if how == 3:
        return data[:at] + other[rng.randrange(len(other) + 1) :]
    changed = bytearray(data)
    if how == 4:
        changed[at : at + length] = rng.choice((bytes(length), b"\xff" * length, rng.randbytes(length)))
    elif how == 5:
        begin = rng.randrange(len(data) - length + 1)
        changed[at : at + length] = data[begin : begin + length]
    else:
        for _ in range(rng.choice((1, 1, 1, 2, 8))):
            changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)

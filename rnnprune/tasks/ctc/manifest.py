"""A manifest: one utterance a line, as audio path and text; TSV (`clips/a.wav<TAB>hello`) or JSONL.

A line of JSONL is an object with `audio` (or `audio_filepath`) and `text`; other keys are left alone. Paths are
relative to the manifest's folder. Empty lines do not count.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rnnprune.errors import InputRefused, UsageError, printable
from rnnprune.tasks.options import Split

AUDIO_KEYS = ("audio", "audio_filepath")
SHOWN = 5  # bad lines that a message or a note spells out


class Utterance(NamedTuple):
    """What one line says. line: its number, from 1."""

    line: int
    audio: Path
    text: str


class BadLine(NamedTuple):
    """A line that cannot be used, and why."""

    line: int
    reason: str


def read_manifest(path: Path) -> tuple[list[Utterance], list[BadLine]]:
    """Every line of the file, sorted into what parses and what does not.

    Raises UsageError when there is no such file, InputRefused when it is not UTF-8.
    """
    try:
        content = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); pass a manifest as --data") from error
    except UnicodeDecodeError as error:
        raise InputRefused(f"{path}: the byte at offset {error.start} is not UTF-8; convert the file first") from error
    utterances: list[Utterance] = []
    bad: list[BadLine] = []
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            audio, text = _fields(line)
        except ValueError as error:
            bad.append(BadLine(number, str(error)))
            continue
        utterances.append(Utterance(number, path.parent / audio, text))
    return utterances, bad


def _fields(line: str) -> tuple[str, str]:
    """Raises ValueError, with the reason, for a line that does not parse or has no text."""
    if line.lstrip().startswith("{"):
        audio, text = _json_fields(line)
    else:
        parts = line.rstrip("\r").split("\t")
        if len(parts) != 2:
            raise ValueError(f"expected audio path and text with one tab between them, found {len(parts) - 1} tabs")
        audio, text = parts
    text = " ".join(unicodedata.normalize("NFC", text).split())
    if not audio or "\0" in audio:
        raise ValueError("the audio path is empty or holds a zero byte")
    if not text:
        raise ValueError("the transcript is empty")
    return audio, text


def _json_fields(line: str) -> tuple[str, str]:
    try:
        item = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"not valid JSON: {error}") from error
    audio = next((item[key] for key in AUDIO_KEYS if key in item), None)
    text = item.get("text")
    if not isinstance(audio, str) or not isinstance(text, str):
        raise ValueError(f"expected the strings `{AUDIO_KEYS[0]}` and `text`, found {', '.join(item) or 'no key'}")
    return audio, text


def split_of(text: str) -> Split | None:
    """The split that a hash of the text gives: tenths for "validation" and "test", None for training.

    A text that was spoken twice stands on one side only, in every corpus and whatever the order of its lines.
    """
    part = int(hashlib.sha256(text.encode()).hexdigest(), 16) % 10
    splits: dict[int, Split] = {0: "test", 1: "validation"}
    return splits.get(part)


def left_out(manifest: Path, bad: Sequence[BadLine], total: int, *, skip: bool) -> tuple[str, ...]:
    """A note that counts the bad lines and lists the first of them, in their order; () where there is none.

    Raises InputRefused with the same list unless they may be skipped, and where nothing would be left.
    """
    if not bad:
        return ()
    bad = sorted(bad)
    listed = "; ".join(f"{manifest}:{line}: {printable(reason, 400)}" for line, reason in bad[:SHOWN])
    more = f"; and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
    if len(bad) == total or not skip:
        remedy = "no line is left" if len(bad) == total else "mend them, or pass --skip-bad to leave them out"
        raise InputRefused(f"{listed}{more}; {len(bad)} of {total} lines cannot be used: {remedy}")
    return (f"left out {len(bad)} of {total} lines: {listed}{more}",)

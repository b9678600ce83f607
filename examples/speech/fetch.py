"""Fetch recorded telephone prompts and their texts, as the Debian packages that ship them, and write manifests.

Usage: python -m examples.speech.fetch [FOLDER]      (default: .cache/speech; where there is apt-get; no root needed)

Every package is checked by its sha256 before it is unpacked; nothing in it is run. Real speech, one voice a language.
Texts are brought to lower case, without punctuation and accents, single digits spelt out; prompts that are no speech
(tones, silence), texts that do not say what is spoken, and prompts of over 15 seconds are left out and counted.
"""

from __future__ import annotations

import gzip
import re
import sys
import unicodedata
import wave
from pathlib import Path
from typing import NamedTuple

from examples.packages import debian

CACHE = Path(".cache/speech")
VERSION = "1.6.1-1"
LONGEST = 15.0  # seconds; a handful of prompts is longer
FASTEST = 25.0  # characters a second; nobody speaks faster, so the text is not what is spoken


class Language(NamedTuple):
    """Packages of one language: their sha256 (texts, recordings), the voice's folder, the digits in words."""

    texts: str
    recordings: str
    voice: str
    digits: str


LANGUAGES = {
    "en": Language(
        "973e797d28e37fa6ca3c0a9d6fa717e77cf1268ae916bf09fd3503113cdffa50",
        "2be3ea287d83299d143815fa804f11179a75b7affd4a758b98b55f5afc18a35d",
        "en_US_f_Allison",
        "zero one two three four five six seven eight nine",
    ),
    "it": Language(
        "3884d9457e12f21caa018c18f0d587df5d53ebea14b673d8453a134c5941ab3b",
        "5a26638089e134b8ac39363fe249c5c93c50cd8bfdc9b2499ae61ec4a35e2fcb",
        "it_IT_m_Carlo",
        "zero uno due tre quattro cinque sei sette otto nove",
    ),
}


def spoken(text: str, digits: str) -> str | None:
    """The text as it is spoken, in plain lower-case letters; None where it does not say that."""
    text = text.strip()
    if (
        text.startswith(("[", "<", "(", "un suono beep"))
        or "\ufffd" in text
        or re.search(r"\w\?\w| \?|\? ?[a-z]", text)
    ):
        return None  # a tone or silence, or letters that were lost: "Il tempo sar? esattamente"
    text = re.sub(r"[\[(<].*?[\])>]", " ", text)  # remarks about the recording
    text = re.sub(r"(?<![\w.,])(\d)(?![\w]|[.,]\d)", lambda match: f" {digits.split()[int(match[1])]} ", text)
    text = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if not unicodedata.combining(c))
    text = re.sub(r"['\u2018\u2019`]", "'", text)
    text = " ".join(re.sub(r"[^\w']+|_", " ", text).split())
    return text if re.fullmatch(r"[a-z' ]*[a-z][a-z' ]*", text) else None


def seconds(recording: Path) -> float:
    with wave.open(str(recording)) as file:
        return file.getnframes() / file.getframerate()


def is_plausible(words: str, seconds: float) -> bool:
    return seconds <= LONGEST and len(words) <= FASTEST * seconds


def write_manifest(language: str, folder: Path) -> str:
    """The manifest of one language; says how many prompts it holds, and how many were left out."""
    told, name = LANGUAGES[language], f"asterisk-core-sounds-{language}"
    texts = debian(f"{name}={VERSION}", told.texts, folder) / f"usr/share/doc/{name}/core-sounds-{language}.txt.gz"
    sounds = debian(f"{name}-wav={VERSION}", told.recordings, folder) / "usr/share/asterisk/sounds" / told.voice
    lines, left_out = [], 0
    for line in gzip.decompress(texts.read_bytes()).decode("utf-8-sig").splitlines():
        key, colon, text = line.partition(":")
        if line.startswith(";") or not colon:
            continue
        recording, words = sounds / f"{key}.wav", spoken(text, told.digits)
        if words is None or not recording.is_file() or not is_plausible(words, seconds(recording)):
            left_out += 1
            continue
        lines.append(f"{recording.relative_to(folder).as_posix()}\t{words}\n")
    (folder / f"{language}.tsv").write_text("".join(sorted(lines)), encoding="utf-8")
    return f"{folder / language}.tsv: {len(lines)} prompts, {left_out} left out"


def fetch(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for language in LANGUAGES:
        print(write_manifest(language, folder))


if __name__ == "__main__":
    fetch(Path(sys.argv[1]) if len(sys.argv) > 1 else CACHE)

"""A language that is easy to hear: every letter is a tone of its own, and a word is its tones in a row."""

from __future__ import annotations

import wave
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest

RATE, SECONDS = 8000, 0.12  # of one letter
TONES = {"a": 400, "b": 800, "c": 1300, "d": 2000, "e": 2900}


def write_wav(path: Path, text: str, rate: int = RATE, channels: int = 1) -> Path:
    """The tones of a text with a little noise, as 16-bit PCM."""
    random = np.random.default_rng(len(text))
    time = np.arange(round(SECONDS * rate)) / rate
    samples = np.concatenate([np.sin(2 * np.pi * TONES[letter] * time) for letter in text])
    samples = 0.3 * samples + 0.003 * random.standard_normal(len(samples))
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.repeat(np.round(32767 * samples).astype("<i2"), channels).tobytes())
    return path


@pytest.fixture
def say() -> Callable[..., Path]:
    return write_wav


@pytest.fixture
def tones(tmp_path: Path) -> Path:
    return write_tones(tmp_path)


def write_tones(folder: Path) -> Path:
    """A manifest of the 60 words of three different letters; every split has some."""
    lines = []
    for letters in product(TONES, repeat=3):
        if len(set(letters)) == 3:
            word = "".join(letters)
            write_wav(folder / "clips" / f"{word}.wav", word)
            lines.append(f"clips/{word}.wav\t{word}\n")
    path = folder / "tones.tsv"
    path.write_text("".join(lines), encoding="utf-8")
    return path

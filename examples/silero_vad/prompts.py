"""Spoken prompts as clips of frames with labels: Debian's asterisk-core-sounds-en-wav, between two silences."""

from __future__ import annotations

import gzip
import hashlib
import math
import wave
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.signal import resample_poly

SOUNDS = "asterisk-core-sounds-en-wav/usr/share/asterisk/sounds/en_US_f_Allison"
TEXTS = "asterisk-core-sounds-en/usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz"
FRAME, CONTEXT, SILENCE = 512, 64, 8000  # samples at 16 kHz
LOUD = 1e-4  # of the loudest frame's power: 40 dB below it


@dataclass(frozen=True)
class Clip:
    """samples [T * 512]; by frame whether it is speech and whether it counts, [T]; power: mean square of speech."""

    key: str
    samples: np.ndarray
    speech: np.ndarray
    counted: np.ndarray
    power: float

    def cut(self, frames: int, random: np.random.Generator) -> Clip:
        """So many frames from a random place on, with more silence at the end where there are fewer."""
        begin = random.integers(max(0, len(self.speech) - frames) + 1)
        missing = max(0, frames - len(self.speech))
        part, sound = slice(begin, begin + frames), slice(begin * FRAME, (begin + frames) * FRAME)
        return replace(
            self,
            samples=np.pad(self.samples[sound], (0, missing * FRAME)),
            speech=np.pad(self.speech[part], (0, missing)),
            counted=np.pad(self.counted[part], (0, missing), constant_values=True),
        )

    def in_noise(self, snr: float, random: np.random.Generator) -> np.ndarray:
        """Frames [T, 576] with the 64 samples before each, in white noise `snr` dB below the speech's mean power."""
        noise = random.standard_normal(len(self.samples)) * math.sqrt(self.power / 10 ** (snr / 10))
        samples = np.pad(self.samples + noise, (CONTEXT, 0))
        return np.lib.stride_tricks.sliding_window_view(samples, CONTEXT + FRAME)[::FRAME].astype(np.float32)


def read_prompts(folder: Path) -> dict[str, list[Clip]]:
    """Every split's clips. Texts in brackets describe beeps, silences and monkeys: those prompts are left out."""
    with gzip.open(folder / TEXTS, "rt", encoding="utf-8") as file:
        texts = dict(line.strip().split(": ", 1) for line in file if ": " in line)
    splits: dict[str, list[Clip]] = {"train": [], "validation": [], "test": []}
    for key in sorted(key for key, text in texts.items() if text[0] not in "[<("):
        path = folder / SOUNDS / f"{key}.wav"
        if path.exists():
            splits[split_of(key)].append(read_clip(path, key))
    return splits


def split_of(key: str) -> str:
    part = int(hashlib.sha256(key.encode()).hexdigest(), 16) % 20
    return "test" if part < 4 else "validation" if part < 6 else "train"


def read_clip(path: Path, key: str) -> Clip:
    with wave.open(str(path)) as file:  # 8 kHz, 16 bit, mono
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768
    samples = np.pad(resample_poly(samples, 2, 1), SILENCE)
    samples = np.pad(samples, (0, -len(samples) % FRAME))
    power = np.square(samples.reshape(-1, FRAME)).mean(axis=1)
    loud = np.flatnonzero(power > power.max() * LOUD)
    speech, counted = np.zeros(len(power), dtype=bool), np.ones(len(power), dtype=bool)
    speech[loud[0] : loud[-1] + 1] = True
    for edge in (loud[0], loud[-1] + 1):
        counted[edge - 1 : edge + 1] = False
    return Clip(key, samples, speech, counted, float(power[speech].mean()))

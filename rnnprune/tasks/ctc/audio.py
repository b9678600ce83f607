"""Samples of a mono audio file: PCM wav by the standard library, everything else by soundfile."""

from __future__ import annotations

import wave
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from rnnprune.errors import InputRefused, UsageError

INSTALL = "pip install 'rnnprune[speech]'"
Samples = np.ndarray[tuple[int, int], np.dtype[np.float32]]  # [samples, channels]


class Audio(NamedTuple):
    """Samples in -1 to 1, and how many of them make a second."""

    samples: Float32[Tensor, " samples"]
    rate: int


def read_audio(path: Path) -> Audio:
    """Read one file. Raises InputRefused for a file that is missing, damaged, empty, not mono or not finite."""
    if not path.is_file():
        raise InputRefused(f"{path}: {'is not a regular file' if path.exists() else 'does not exist'}")
    try:
        samples, rate = _read_wav(path)
    except (wave.Error, EOFError):  # float, compressed or extensible wav, flac, ogg, or no audio at all
        samples, rate = _read_other(path)
    except OSError as error:
        raise InputRefused(f"{path}: cannot be read ({error.strerror})") from error
    if samples.shape[1] != 1:
        raise InputRefused(f"{path}: {samples.shape[1]} channels, expected one; make it mono: `sox {path.name} -c 1`")
    if not len(samples):
        raise InputRefused(f"{path}: holds no sample")
    if not np.isfinite(samples).all():
        raise InputRefused(f"{path}: holds a sample that is not a finite number")
    return Audio(torch.from_numpy(samples[:, 0].copy()), rate)


def _read_wav(path: Path) -> tuple[Samples, int]:
    """PCM of 8 (unsigned), 16, 24 or 32 bits, scaled to -1 to 1."""
    with wave.open(str(path), "rb") as file:
        channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
        raw = np.frombuffer(file.readframes(file.getnframes()), np.uint8)
    if width not in (1, 2, 3, 4):
        raise wave.Error(f"{8 * width} bits")
    raw = raw[: len(raw) // (width * channels) * width * channels].reshape(-1, width)
    if width == 1:
        raw = np.bitwise_xor(raw, np.uint8(0x80))  # 8 bits are the only ones without a sign
    words = np.zeros((len(raw), 4), np.uint8)
    words[:, 4 - width :] = raw
    return words.view("<i4").astype(np.float32).reshape(-1, channels) / np.float32(2**31), rate


def _read_other(path: Path) -> tuple[Samples, int]:
    try:
        soundfile = import_module("soundfile")
    except ImportError as error:
        raise UsageError(f"{path} is not a PCM wav file, and reading others needs soundfile: {INSTALL}") from error
    try:
        return soundfile.read(path, dtype="float32", always_2d=True)  # type: ignore[no-any-return]
    except (soundfile.LibsndfileError, OSError) as error:
        raise InputRefused(f"{path}: is no audio file that can be read: {error}") from error

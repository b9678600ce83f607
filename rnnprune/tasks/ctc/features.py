"""Log-mel features: how much energy each band of the mel scale has, a hundred times a second.

Frames of 25 ms under a Hann window, every 10 ms; triangular filters whose peaks are evenly spaced on the mel scale
m = 2595 log10(1 + f / 700) (O'Shaughnessy, "Speech Communication", 1987); the logarithm of each band's power; every
band brought to mean 0 and deviation 1 over the utterance.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

WINDOW, HOP = 0.025, 0.010  # seconds
LOWEST = 20.0  # Hz; below it there is hum, not speech
FLOOR = 1e-6  # added to the power: about what dithered 16-bit silence has
FLAT = 1e-3  # added to the deviation, so that silence gives zeros


def log_mel(samples: Float[Tensor, " samples"], rate: int, mels: int) -> Float[Tensor, "frames {mels}"]:
    """Normalised features of samples in -1 to 1, `rate` of them a second, in the samples' dtype.

    frames = 1 + samples // hop: frame t is centred on sample t * hop, what lies outside counts as silence.
    """
    filters, window = _filters(rate, mels)
    spectrum = torch.stft(
        samples,
        fft_size(rate),
        hop_length=round(HOP * rate),
        win_length=len(window),
        window=window.to(samples),
        pad_mode="constant",
        return_complex=True,
    )
    power = spectrum.abs().square().T @ filters.to(samples).T
    return normalised((power + FLOOR).log())


def normalised(features: Float[Tensor, "frames mels"]) -> Float[Tensor, "frames mels"]:
    """Every band with mean 0 and deviation 1 over the utterance: loudness and the microphone's colour fall out."""
    return (features - features.mean(0)) / (features.std(0, correction=0) + FLAT)


def fft_size(rate: int) -> int:
    """The power of two that holds a window."""
    return 1 << (round(WINDOW * rate) - 1).bit_length()


def mel_filters(mels: int, rate: int) -> Float[Tensor, "{mels} bins"]:
    """Triangles over the bins of the spectrum, float64: each rises from its left neighbour's peak to 1 at its own."""
    low, high = (_mel(torch.tensor(f, dtype=torch.float64)) for f in (LOWEST, rate / 2))
    peaks = 700 * (10 ** (torch.linspace(0, 1, mels + 2, dtype=torch.float64) * (high - low) + low).div(2595) - 1)
    bins = torch.linspace(0, rate / 2, fft_size(rate) // 2 + 1, dtype=torch.float64)
    left, peak, right = peaks[:-2, None], peaks[1:-1, None], peaks[2:, None]
    return torch.minimum((bins - left) / (peak - left), (right - bins) / (right - peak)).clamp(min=0)


def _mel(hertz: Float[Tensor, ""]) -> Float[Tensor, ""]:
    return 2595 * torch.log10(1 + hertz / 700)


@lru_cache(maxsize=8)
def _filters(rate: int, mels: int) -> tuple[Tensor, Tensor]:
    """Filters and window in float64; the same for every utterance of a corpus."""
    return mel_filters(mels, rate), torch.hann_window(round(WINDOW * rate), dtype=torch.float64)

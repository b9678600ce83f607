"""Log-mel features against the definition, written out in numpy."""

import math

import numpy as np
import pytest
import torch

from rnnprune.tasks.ctc.features import fft_size, log_mel, mel_filters


def slow_log_mel(samples: np.ndarray, rate: int, mels: int) -> np.ndarray:
    """Frame by frame, bin by bin, band by band."""
    window, hop = round(0.025 * rate), round(0.010 * rate)
    size = 2 ** math.ceil(math.log2(window))
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    bins = np.arange(size // 2 + 1)
    wave = np.exp(-2j * np.pi * np.outer(bins, np.arange(window)) / size)
    bands = [triangle(band, bins * rate / size, rate, mels) for band in range(mels)]
    rows = []
    for frame in range(1 + len(samples) // hop):
        start = frame * hop - size // 2 + (size - window) // 2
        piece = np.array([samples[i] if 0 <= i < len(samples) else 0.0 for i in range(start, start + window)]) * hann
        power = np.abs(wave @ piece) ** 2
        rows.append([np.log(1e-6 + sum(power * band)) for band in bands])
    features = np.array(rows)
    return (features - features.mean(0)) / (features.std(0) + 1e-3)


def triangle(band: int, hertz: np.ndarray, rate: int, mels: int) -> np.ndarray:
    mel = np.linspace(2595 * math.log10(1 + 20 / 700), 2595 * math.log10(1 + rate / 1400), mels + 2)
    peaks = 700 * (10 ** (mel / 2595) - 1)
    return np.interp(hertz, peaks[band : band + 3], [0.0, 1.0, 0.0])


@pytest.mark.parametrize(("rate", "mels", "count"), [(8000, 40, 1337), (16000, 23, 1600), (22050, 8, 600)])
def test_features_equal_a_literal_twin_in_float64(rate, mels, count):
    samples = np.random.default_rng(1).uniform(-1, 1, count)
    found = log_mel(torch.from_numpy(samples), rate, mels)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.numpy(), slow_log_mel(samples, rate, mels), rtol=1e-9, atol=1e-9)
    in_single = log_mel(torch.from_numpy(samples).float(), rate, mels)
    assert in_single.dtype == torch.float32
    torch.testing.assert_close(in_single.double(), found, rtol=0, atol=2e-3)


def test_a_tone_stands_out_in_the_band_whose_peak_is_nearest():
    peaks = torch.linspace(0, 4000, fft_size(8000) // 2 + 1)[mel_filters(20, 8000).argmax(1)]
    tone = torch.sin(2 * math.pi * 1000 * torch.arange(1600) / 8000)
    contrast = log_mel(torch.cat((0 * tone, tone)), 8000, 20)[30] - log_mel(torch.cat((tone, 0 * tone)), 8000, 20)[30]
    power = mel_filters(20, 8000) @ torch.fft.rfft(tone[:256] * torch.hann_window(256)).abs().square().double()
    assert power.argmax() == (peaks - 1000).abs().argmin()
    assert (contrast > 0).all()


def test_loudness_falls_out_and_silence_is_zero():
    samples = torch.from_numpy(np.random.default_rng(2).uniform(-1, 1, 4000))
    torch.testing.assert_close(log_mel(samples, 8000, 40), log_mel(0.1 * samples, 8000, 40), rtol=0, atol=1e-2)
    torch.testing.assert_close(log_mel(torch.zeros(500), 8000, 40), torch.zeros(7, 40), rtol=0, atol=5e-3)

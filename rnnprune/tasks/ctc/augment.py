"""Variants of an utterance for training: spoken faster or slower, with bands and stretches of time wiped out.

After Ko et al., "Audio Augmentation for Speech Recognition" (2015), here on the features instead of the samples, and
Park et al., "SpecAugment" (2019).
"""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from jaxtyping import Float32
from torch import Tensor

TEMPO = 0.15  # largest change of speed
BAND_MASKS, BANDS = 2, 0.2  # how many, and the widest as a share of all bands
TIME_MASKS, FRAMES, SHARE = 2, 20, 0.1  # per utterance; widest in frames, and as a share of the utterance


def augmented(
    features: Float32[Tensor, "frames mels"], random: np.random.Generator, fewest: int
) -> Float32[Tensor, "changed mels"]:
    """A stretched and masked copy, at least `fewest` frames long; wiped out is 0, the mean of every band."""
    frames, mels = features.shape
    changed = max(fewest, round(frames * random.uniform(1 - TEMPO, 1 + TEMPO)))
    out = F.interpolate(features.T[None], changed, mode="linear", align_corners=True)[0].T.contiguous()
    for _ in range(BAND_MASKS):
        width = random.integers(round(BANDS * mels) + 1)
        start = random.integers(mels - width + 1)
        out[:, start : start + width] = 0
    for _ in range(TIME_MASKS):
        width = random.integers(min(FRAMES, int(SHARE * changed)) + 1)
        start = random.integers(changed - width + 1)
        out[start : start + width] = 0
    return out

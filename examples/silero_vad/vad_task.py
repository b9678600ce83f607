"""Speech or not, every 32 ms: the network of the package silero-vad (16 kHz), as a user's own task.

    rnnprune finetune .cache/silero_vad/silero_vad_16k.safetensors \
        --task examples/silero_vad/vad_task.py:make --target 0.9

Spoken prompts with half a second of silence on both sides, in white noise. True is every frame from a prompt's first
loud one (within 40 dB of its loudest) to its last; a frame on either side of those two ends is not counted. AUC: the
share of pairs of a true and a false frame that the scores put in the right order, mean over 20, 5 and 0 dB.
The state dict's names and sizes are the package's; the model is written anew, in plain torch.nn.

B clips in a batch, T frames of 576 samples, H = 128 units.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from prompts import Clip, read_prompts
from scipy.stats import rankdata
from torch import Tensor, nn

CACHE = Path(".cache/silero_vad")
BATCH_SIZE, TIME = 16, 64
TEST_SNRS, TRAIN_SNRS = (20, 5, 0), (-5, 25)  # dB


class Detector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 258, 256, stride=128, bias=False).requires_grad_(False)  # a Fourier basis
        self.conv1 = nn.Conv1d(129, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, 128, 3, padding=1)
        self.lstm_cell = nn.LSTMCell(128, 128)
        self.final_conv = nn.Conv1d(128, 1, 1)

    def forward(self, frames: Tensor) -> Tensor:
        """[B, T, 576] -> logits [B, T]; each frame is judged from itself and those before it."""
        batch, time, _ = frames.shape
        real, imaginary = self.stft_conv(F.pad(frames.flatten(0, 1).unsqueeze(1), (0, 64), "reflect")).chunk(2, dim=1)
        x = (real.square() + imaginary.square()).sqrt()
        for convolution in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = convolution(x).relu()
        state, outputs = None, []
        for step in x.view(batch, time, -1).unbind(dim=1):
            state = self.lstm_cell(step, state)
            outputs.append(state[0])
        logits: Tensor = self.final_conv(torch.stack(outputs, dim=-1).relu())
        return logits.squeeze(1)


class VadTask:
    metric, goal = "AUC", "max"

    def __init__(self, folder: Path) -> None:
        self.splits = read_prompts(folder)

    def build_model(self) -> Detector:
        return Detector()

    def train_batches(self, *, epoch: int, seed: int, rank: int, world_size: int) -> list[tuple[Tensor, ...]]:
        """Frames, labels and weights of two seconds of every prompt, in noise of random strength."""
        random = np.random.default_rng((seed, epoch))
        clips = [self.splits["train"][i].cut(TIME, random) for i in random.permutation(len(self.splits["train"]))]
        items = [(clip.in_noise(random.uniform(*TRAIN_SNRS), random), clip.speech, clip.counted) for clip in clips]
        batches = [items[i : i + BATCH_SIZE] for i in range(0, len(items) - BATCH_SIZE + 1, BATCH_SIZE)]
        mine = batches[rank::world_size][: len(batches) // world_size]
        return [tuple(torch.from_numpy(np.stack(part)) for part in zip(*batch, strict=True)) for batch in mine]

    def loss(self, model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        frames, speech, counted = batch
        return F.binary_cross_entropy_with_logits(model(frames)[counted], speech[counted].float())

    def evaluate(self, model: nn.Module, split: str) -> Mapping[str, float]:
        clips = self.splits[split]
        scores = [self.scores(model, clip)[:, clip.counted] for clip in clips]
        speech = np.concatenate([clip.speech[clip.counted] for clip in clips])
        areas = [area_under_curve(row, speech) for row in np.concatenate(scores, axis=1)]
        return {"AUC": float(np.mean(areas))} | {f"AUC_{snr}dB": a for snr, a in zip(TEST_SNRS, areas, strict=True)}

    def scores(self, model: nn.Module, clip: Clip) -> np.ndarray:
        """Logits [SNRs, T]; the noise is the same in every evaluation."""
        random = np.random.default_rng(int(hashlib.sha256(clip.key.encode()).hexdigest()[:8], 16))
        frames = torch.from_numpy(np.stack([clip.in_noise(snr, random) for snr in TEST_SNRS]))
        logits: np.ndarray = model(frames.to(next(model.parameters()).device)).cpu().numpy()
        return logits


def make(data: Path | None = None) -> VadTask:
    return VadTask(data or CACHE)


def area_under_curve(scores: np.ndarray, positive: np.ndarray) -> float:
    """(R - P (P + 1) / 2) / (P N), R the sum of the positives' ranks (Mann and Whitney); equal scores share a rank."""
    count = int(positive.sum())
    ranks = rankdata(scores)[positive].sum()
    return float((ranks - count * (count + 1) / 2) / (count * (len(positive) - count)))

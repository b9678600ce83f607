"""The recogniser: two convolutions over time and frequency, recurrent layers both ways, one score per label and frame.

After Amodei et al., "Deep Speech 2" (ICML 2016), section 3. B batch, T frames of features, M mels, S frames behind the
convolutions, C channels, H hidden, L labels. What lies behind an utterance's end is hidden from everything that looks
sideways (convolution, batch norm, the backward direction), so an utterance never hears its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rnnprune.architecture import Kind
from rnnprune.errors import InputRefused, UsageError
from rnnprune.tasks.ctc.audio import read_audio
from rnnprune.tasks.ctc.decode import beam_search
from rnnprune.tasks.ctc.features import log_mel
from rnnprune.tasks.spec import MAX_LAYERS, MAX_UNITS, ModelSpec, check_tokens, recurrent

BLANK = "<blank>"
MAX_RATE, MAX_MELS, MAX_STRIDE = 384_000, 1024, 16
KERNEL = (11, 5)  # frames that the two convolutions see
BANDS = 5  # mels that each of them sees


@dataclass(frozen=True)
class CtcModelSpec(ModelSpec):
    """The sizes of a recogniser.

    hidden: units per layer and direction. mels: bands of the features. channels: of the convolutions. stride: frames of
    10 ms per step of the recurrent layers. dropout: 0 <= p < 1, before every recurrent layer. augment: masked and
    stretched features in training. sample_rate: of the audio, per second. labels: the blank, then characters; empty
    until a manifest has given them. Impossible sizes raise UsageError.
    """

    cell: Kind = "gru"
    hidden: int = 256
    layers: int = 3
    bidirectional: bool = True
    mels: int = 40
    channels: int = 32
    stride: int = 2
    dropout: float = 0.2
    augment: bool = False
    sample_rate: int = 8000
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.check_choices(vars(self))
        self.check_sizes(hidden=MAX_UNITS, layers=MAX_LAYERS, mels=MAX_MELS, channels=MAX_UNITS, stride=MAX_STRIDE)
        self.check_sizes(sample_rate=MAX_RATE)
        self.check_dropout(self.dropout)
        if self.labels:
            check_tokens("labels", self.labels, (BLANK,))
            if (long := next((label for label in self.labels[1:] if len(label) != 1), None)) is not None:
                raise UsageError(f"labels: expected single characters, found {long!r:.60}")
        self.check_total()

    def build(self) -> CtcModel:
        """The untrained model, drawn from torch's global generator."""
        return CtcModel(self)


class CtcModel(nn.Module):
    """Plain torch.nn modules and an ordinary state dict; the two directions of a layer are modules of their own."""

    def __init__(self, spec: CtcModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.convolutions = nn.ModuleList(
            [
                _convolution(1, spec.channels, KERNEL[0], spec.stride),
                _convolution(spec.channels, spec.channels, KERNEL[1], 1),
            ]
        )
        bands = _halved(_halved(spec.mels))
        width = spec.hidden * (2 if spec.bidirectional else 1)
        inputs = [spec.channels * bands] + [width] * (spec.layers - 1)
        self.norms = nn.ModuleList(nn.BatchNorm1d(size) for size in [*inputs, width])
        self.layers = nn.ModuleList(RecurrentLayer(spec, size) for size in inputs)
        self.dropout = nn.Dropout(spec.dropout)
        self.output = nn.Linear(width, max(1, len(spec.labels)))

    def forward(
        self, features: Float[Tensor, "B T M"], lengths: Int[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B S L"], Int[Tensor, " B"]]:
        """Scores (logits) of every label and frame, and how many frames of each utterance count.

        What stands in `features` behind an utterance's length is ignored.
        """
        x = features.transpose(1, 2).unsqueeze(1)  # [B, 1, M, T]
        valid = frames_within(lengths, features.shape[1])
        for convolution, stride in zip(self.convolutions, (self.spec.stride, 1), strict=True):
            x = convolution(x.masked_fill(~valid[:, None, None], 0)).clamp(0, 20)  # clipped as in Deep Speech 2
            lengths = frames_after(lengths, stride)
            valid = frames_within(lengths, x.shape[3])
        hidden = x.permute(0, 3, 1, 2).flatten(2)  # [B, S, C * bands]
        for norm, layer in zip(self.norms, self.layers, strict=False):
            hidden = layer(self.dropout(normalise(norm, hidden, valid)), lengths)
        return self.output(normalise(self.norms[-1], hidden, valid)), lengths

    @torch.no_grad()
    def transcribe(self, files: Sequence[Path | str], beam: int = 8) -> list[str]:
        """What is said in each mono audio file, one after the other, by prefix beam search.

        Raises InputRefused for a file that cannot be read, or has another sample rate than the model was trained on.
        """
        self.eval()
        return ["".join(map(self.spec.labels.__getitem__, self._heard(Path(file), beam))) for file in files]

    def _heard(self, file: Path, beam: int) -> tuple[int, ...]:
        samples, rate = read_audio(file)
        if rate != self.spec.sample_rate:
            raise InputRefused(f"{file}: {rate} samples a second, expected {self.spec.sample_rate}; convert it first")
        features = log_mel(samples, rate, self.spec.mels)[None].to(self.norms[0].running_mean)  # type: ignore[arg-type]
        return beam_search(self(features, torch.tensor([features.shape[1]], device=features.device))[0][0], beam)


class RecurrentLayer(nn.Module):
    """One recurrent layer over padded utterances, forward or both ways.

    The backward direction reads each utterance turned round within its own length: as exact as a PackedSequence, and on
    a CPU up to twice as fast to train.
    """

    def __init__(self, spec: CtcModelSpec, inputs: int) -> None:
        super().__init__()
        self.forwards = recurrent(spec.cell, inputs, spec.hidden, 1)
        self.backwards = recurrent(spec.cell, inputs, spec.hidden, 1) if spec.bidirectional else None

    def forward(self, x: Float[Tensor, "B S I"], lengths: Int[Tensor, " B"]) -> Float[Tensor, "B S DH"]:
        """The states of every frame, those of the two directions side by side; behind the length they mean nothing."""
        states = [self.forwards(x)[0]]
        if self.backwards is not None:
            states.append(turned(self.backwards(turned(x, lengths))[0], lengths))
        return torch.cat(states, dim=2)


def turned(x: Float[Tensor, "B S I"], lengths: Int[Tensor, " B"]) -> Float[Tensor, "B S I"]:
    """Every utterance backwards within its own length; the padding behind it stays where it is."""
    place = torch.arange(x.shape[1], device=x.device)
    last = lengths[:, None] - 1
    place = torch.where(place <= last, last - place, place)
    return x.gather(1, place[:, :, None].expand_as(x))


def normalise(norm: nn.Module, x: Float[Tensor, "B S I"], valid: Bool[Tensor, "B S"]) -> Float[Tensor, "B S I"]:
    """Batch norm over the frames that count; the others become zero."""
    out = torch.zeros_like(x)
    out[valid] = norm(x[valid])
    return out


def frames_within(lengths: Int[Tensor, " B"], frames: int) -> Bool[Tensor, "B {frames}"]:
    """True for the frames of each utterance, False for the padding behind them."""
    return torch.arange(frames, device=lengths.device) < lengths[:, None]


def frames_after(lengths: Int[Tensor, " B"], stride: int) -> Int[Tensor, " B"]:
    """How many frames a convolution with this stride leaves: the quotient, rounded up."""
    return (lengths + stride - 1) // stride


def _convolution(inputs: int, outputs: int, frames: int, stride: int) -> nn.Conv2d:
    """Halves the bands; `stride` in time; padded by zeros, as an utterance's end is."""
    return nn.Conv2d(inputs, outputs, (BANDS, frames), (2, stride), (BANDS // 2, frames // 2))


def _halved(bands: int) -> int:
    return (bands + 1) // 2

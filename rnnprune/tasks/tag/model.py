"""The models of `tag` and `classify`: embedding (of tokens), recurrent layers, linear output; in plain torch.nn.

B batch, T time, F features, H hidden units of one direction, D directions, C labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from rnnprune.architecture import Kind
from rnnprune.errors import UsageError
from rnnprune.tasks.options import Level
from rnnprune.tasks.spec import MAX_LAYERS, MAX_UNITS, ModelSpec, check_tokens, recurrent
from rnnprune.tasks.text import UNKNOWN

Inputs = Int[Tensor, "batch time"] | Float[Tensor, "batch time features"]


@dataclass(frozen=True)
class SequenceModelSpec(ModelSpec):
    """The sizes that both models share.

    level: how a text is cut into tokens. hidden: units per layer and direction. embedding: units, of tokens only.
    dropout: 0 <= p < 1, before, between and after the recurrent layers. features: numbers per frame, 0 for tokens.
    vocabulary, labels: empty until data has given them. Impossible sizes raise UsageError.
    """

    may_be_empty: ClassVar[tuple[str, ...]] = ("vocabulary",)

    level: Level = "word"
    cell: Kind = "lstm"
    hidden: int = 128
    layers: int = 1
    bidirectional: bool = True
    embedding: int = 64
    dropout: float = 0.0
    features: int = 0
    vocabulary: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.check_choices(vars(self))
        self.check_sizes(hidden=MAX_UNITS, layers=MAX_LAYERS, embedding=MAX_UNITS)
        self.check_dropout(self.dropout)
        if not 0 <= self.features <= MAX_UNITS or (self.features and self.vocabulary):
            raise UsageError(
                f"features: expected 0 with a vocabulary, else at most {MAX_UNITS:,}; found {self.features}"
            )
        if self.vocabulary:
            check_tokens("vocabulary", self.vocabulary, (UNKNOWN,))
        check_tokens("labels", self.labels, ())
        self.check_total()

    def build(self) -> SequenceModel:
        """The untrained model, drawn from torch's global generator."""
        raise NotImplementedError


class Standardise(nn.Module):
    """(x - mean) * scale for frames [..., F]: buffers, so that a checkpoint brings its training data's along."""

    mean: Tensor
    scale: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))

    def forward(self, frames: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch features"]:
        """Frames of mean 0 and variance 1, feature by feature."""
        return (frames - self.mean) * self.scale


class SequenceModel(nn.Module):
    """Tokens or frames through the recurrent layers, packed: what pads a batch is never computed with."""

    embedding: nn.Embedding | Standardise

    def __init__(self, spec: SequenceModelSpec) -> None:
        super().__init__()
        self.bidirectional = spec.bidirectional
        tokens = len(spec.vocabulary)
        self.embedding = Standardise(spec.features) if spec.features else nn.Embedding(tokens, spec.embedding)
        self.dropout = nn.Dropout(spec.dropout)
        self.rnn = recurrent(
            spec.cell,
            spec.features or spec.embedding,
            spec.hidden,
            spec.layers,
            dropout=spec.dropout,
            bidirectional=spec.bidirectional,
        )
        self.output = nn.Linear(spec.hidden * (1 + spec.bidirectional), len(spec.labels))

    def encode(self, inputs: Inputs, lengths: Int64[Tensor, " batch"]) -> tuple[PackedSequence, Tensor]:
        """The last layer's outputs, and its last states side by side, [B, D * H]; lengths: on the CPU, each >= 1."""
        x = self.dropout(self.embedding(inputs))
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        outputs, state = self.rnn(packed)
        h = state[0] if isinstance(state, tuple) else state
        return outputs, torch.cat(tuple(h[-2:] if self.bidirectional else h[-1:]), dim=-1)


class TagModel(SequenceModel):
    """A label for every step."""

    def forward(self, inputs: Inputs, lengths: Int64[Tensor, " batch"]) -> Float[Tensor, "batch longest labels"]:
        """Scores of every label at every step; past an item's length they say nothing."""
        outputs, _ = self.encode(inputs, lengths)
        hidden, _ = pad_packed_sequence(outputs, batch_first=True)
        scores: Tensor = self.output(self.dropout(hidden))
        return scores


class ClassifyModel(SequenceModel):
    """A label for the whole sequence, from the last states of both directions."""

    def forward(self, inputs: Inputs, lengths: Int64[Tensor, " batch"]) -> Float[Tensor, "batch labels"]:
        """Scores of every label."""
        _, last = self.encode(inputs, lengths)
        scores: Tensor = self.output(self.dropout(last))
        return scores


@dataclass(frozen=True)
class TagModelSpec(SequenceModelSpec):
    """The sizes of a TagModel."""

    def build(self) -> TagModel:
        """The untrained model, drawn from torch's global generator."""
        return TagModel(self)


@dataclass(frozen=True)
class ClassifyModelSpec(SequenceModelSpec):
    """The sizes of a ClassifyModel."""

    def build(self) -> ClassifyModel:
        """The untrained model, drawn from torch's global generator."""
        return ClassifyModel(self)

"""Encoder, attention and decoder in plain torch.nn, with an ordinary state dict.

The decoder's recurrent layers run before the attention and do not see it ("global attention", Luong, Pham, Manning,
"Effective Approaches to Attention-based Neural Machine Translation", EMNLP 2015): training is one call over all tokens
of a batch, and answering a call per token with the state carried along.

B batch, S source tokens, T target tokens, H hidden, E embedding, V target vocabulary, L layers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from rnnprune.tasks.seq2seq.spec import Seq2SeqModelSpec
from rnnprune.tasks.seq2seq.tokens import PAD, Tokens
from rnnprune.tasks.spec import recurrent

Part = Float[Tensor, "_L _B _H"]  # "_": two states of one call may differ in size
State = Part | tuple[Part, Part]  # of a GRU or RNN, of an LSTM


class Memory(NamedTuple):
    """What the decoder looks at: keys to compare with, values to take, and which of them are padding (None: none)."""

    keys: Float[Tensor, "B S H"]
    values: Float[Tensor, "B S H"]
    padding: Bool[Tensor, "B S"] | None

    def select(self, rows: Int64[Tensor, " rows"]) -> Memory:
        """These rows of the batch."""
        return Memory(self.keys[rows], self.values[rows], None if self.padding is None else self.padding[rows])


class DotAttention(nn.Module):
    """score(q, k) = q k, Luong et al., equation 8, "dot"."""

    def keys(self, values: Float[Tensor, "B S H"]) -> Float[Tensor, "B S H"]:
        """The values themselves."""
        return values

    def forward(self, queries: Float[Tensor, "B T H"], keys: Float[Tensor, "B S H"]) -> Float[Tensor, "B T S"]:
        """How well every key fits every query."""
        return queries @ keys.transpose(1, 2)


class AdditiveAttention(nn.Module):
    """score(q, k) = v tanh(W q + U k + b): Bahdanau, Cho, Bengio (ICLR 2015), appendix A.1.2."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(hidden, hidden, bias=False)
        self.score = nn.Parameter(torch.empty(hidden).uniform_(-1, 1) / math.sqrt(hidden))

    def keys(self, values: Float[Tensor, "B S H"]) -> Float[Tensor, "B S H"]:
        """U k: once for each source."""
        keys: Tensor = self.key(values)
        return keys

    def forward(self, queries: Float[Tensor, "B T H"], keys: Float[Tensor, "B S H"]) -> Float[Tensor, "B T S"]:
        """How well every key fits every query."""
        return torch.tanh(self.query(queries).unsqueeze(2) + keys.unsqueeze(1)) @ self.score


class Seq2SeqModel(nn.Module):
    """A bidirectional encoder of H / 2 units each way, a decoder of H that starts from its last states, attention."""

    def __init__(self, spec: Seq2SeqModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.source = Tokens(spec.source_level, spec.source_vocabulary)
        self.target = Tokens(spec.target_level, spec.target_vocabulary)
        self.source_embedding = nn.Embedding(len(spec.source_vocabulary), spec.embedding)
        self.target_embedding = nn.Embedding(len(spec.target_vocabulary), spec.embedding)
        self.encoder = recurrent(
            spec.cell, spec.embedding, spec.hidden // 2, spec.layers, dropout=spec.dropout, bidirectional=True
        )
        self.decoder = recurrent(spec.cell, spec.embedding, spec.hidden, spec.layers, dropout=spec.dropout)
        self.attention = DotAttention() if spec.attention == "dot" else AdditiveAttention(spec.hidden)
        self.combine = nn.Linear(2 * spec.hidden, spec.hidden, bias=False)
        self.output = nn.Linear(spec.hidden, len(spec.target_vocabulary))
        self.dropout = nn.Dropout(spec.dropout)

    def forward(self, source: Int64[Tensor, "B S"], before: Int64[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
        """Scores of the token after each of the target's, teacher forced; both are filled up with PAD."""
        memory, state = self.encode(source)
        return self.decode(before, memory, state)[0]

    def encode(self, source: Int64[Tensor, "B S"]) -> tuple[Memory, State]:
        """What the decoder looks at and starts from. The padding is neither read nor looked at."""
        embedded = self.dropout(self.source_embedding(source))
        padding = source == PAD
        if padding.any():
            lengths = (~padding).sum(1).cpu()
            packed = pack_padded_sequence(embedded, lengths, batch_first=True, enforce_sorted=False)
            frames, state = self.encoder(packed)
            values = pad_packed_sequence(frames, batch_first=True, total_length=source.shape[1])[0]
            return Memory(self.attention.keys(values), values, padding), both_ways(state)
        values, state = self.encoder(embedded)
        return Memory(self.attention.keys(values), values, None), both_ways(state)

    def decode(
        self, before: Int64[Tensor, "B T"], memory: Memory, state: State
    ) -> tuple[Float[Tensor, "B T V"], State]:
        """Scores of the token after each one given, and the state to go on from."""
        queries, state = self.decoder(self.dropout(self.target_embedding(before)), state)
        scores = self.attention(queries, memory.keys)
        if memory.padding is not None:
            scores = scores.masked_fill(memory.padding.unsqueeze(1), -math.inf)
        context = scores.softmax(-1) @ memory.values  # Luong et al., the sum before equation 5
        attended = torch.tanh(self.combine(torch.cat((context, queries), -1)))  # equation 5
        return self.output(self.dropout(attended)), state

    @torch.no_grad()
    def translate(self, texts: Sequence[str], beam: int | None = None) -> list[str]:
        """The answer to every text. beam: hypotheses kept, 1 is greedy; the spec's own if not given."""
        from rnnprune.tasks.seq2seq.decoding import answers

        numbers = answers(self, [self.source.encode(text) for text in texts], beam or self.spec.beam)
        return [self.target.decode(answer) for answer in numbers]


def both_ways(state: State) -> State:
    """The last states of both directions [2 L, B, H / 2] as one [L, B, H], forward first."""
    if isinstance(state, tuple):
        h, c = state
        return _side_by_side(h), _side_by_side(c)
    return _side_by_side(state)


def _side_by_side(part: Tensor) -> Tensor:
    return torch.cat((part[0::2], part[1::2]), -1)

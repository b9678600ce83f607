"""The language model task: one text file in, the next character or word out; bits per character or perplexity.

Sizes: batch, time, window = time + 1 (inputs and targets overlap in all but one token), vocab, hidden.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Int32, Int64
from torch import Tensor, nn

from rnnprune.architecture import Kind
from rnnprune.errors import UsageError
from rnnprune.tasks import text as corpus_text
from rnnprune.tasks.options import Goal, Level, Split
from rnnprune.tasks.source import DataOptions, entry, find_data, read_entry
from rnnprune.tasks.spec import MAX_LAYERS, MAX_UNITS, ModelSpec, check_tokens, recurrent
from rnnprune.tasks.text import IGNORED, SPECIAL, Corpus, StreamBatch, StreamBatches, WindowBatches

BATCH_SIZE, LENGTH = 32, 100
State = Float[Tensor, "layers batch hidden"] | tuple[Float[Tensor, "layers batch hidden"], ...] | None


@dataclass(frozen=True)
class LmModelSpec(ModelSpec):
    """The sizes of a language model.

    hidden, embedding: units. dropout: 0 <= p < 1, before, between and after the recurrent layers. tied: the embedding
    is the output's matrix (Press, Wolf, EACL 2017), which asks for embedding == hidden. carry: how it is trained, see
    LmTask. vocabulary: empty until a text has given one. Impossible sizes raise UsageError.
    """

    level: Level = "char"
    cell: Kind = "lstm"
    hidden: int = 512
    layers: int = 1
    embedding: int = 128
    dropout: float = 0.0
    tied: bool = False
    carry: bool = False
    vocabulary: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.check_choices(vars(self))
        self.check_sizes(hidden=MAX_UNITS, layers=MAX_LAYERS, embedding=MAX_UNITS)
        self.check_dropout(self.dropout)
        if self.tied and self.embedding != self.hidden:
            raise UsageError(
                f"tied: one matrix is embedding and output, so both have the same units; embedding {self.embedding}, "
                f"hidden {self.hidden}"
            )
        if self.vocabulary:
            _check_vocabulary(self.vocabulary, self.level)
        self.check_total()

    def build(self) -> LmModel:
        """The untrained model, drawn from torch's global generator."""
        return LmModel(self)


def _check_vocabulary(vocabulary: tuple[str, ...], level: Level) -> None:
    check_tokens("vocabulary", vocabulary, SPECIAL[level])
    if level == "char" and (long := next((token for token in vocabulary[1:] if len(token) != 1), None)) is not None:
        raise UsageError(f"vocabulary: expected single characters, found {long!r}")


class LmModel(nn.Module):
    """Embedding, recurrent layers, linear output: plain torch.nn modules and an ordinary state dict."""

    def __init__(self, spec: LmModelSpec) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(spec.vocabulary), spec.embedding)
        self.rnn = recurrent(spec.cell, spec.embedding, spec.hidden, spec.layers, dropout=spec.dropout)
        self.output = nn.Linear(spec.hidden, len(spec.vocabulary))
        if spec.tied:
            self.embedding.weight = self.output.weight  # with a linear layer's initial values: an embedding's are large
        self.dropout = nn.Dropout(spec.dropout)

    def forward(
        self, tokens: Int[Tensor, "batch time"], state: State = None
    ) -> tuple[Float[Tensor, "batch time vocab"], State]:
        """Scores of every next token, and the state to go on from."""
        hidden, state = self.rnn(self.dropout(self.embedding(tokens)), state)
        return self.output(self.dropout(hidden)), state


@torch.no_grad()
def mean_nll(model: nn.Module, tokens: Int32[Tensor, " tokens"], streams: int, length: int) -> float:
    """Mean negative log likelihood in nats of every token but the first.

    The state is carried through a segment in pieces of `length` tokens, `streams` segments side by side; both numbers
    bound memory and leave the result alone.
    """
    device = _device_of(model)
    inputs, targets = corpus_text.segments_of(tokens)
    total = torch.zeros((), dtype=torch.float64)
    for row in range(0, len(inputs), streams):
        state = None
        for column in range(0, inputs.shape[1], length):
            part = slice(row, row + streams), slice(column, column + length)
            logits, state = model(inputs[part].to(device), state)
            nll = _cross_entropy(logits, targets[part].to(device), "none")
            total += nll.sum(dtype=torch.float64).cpu()
    return float(total) / (len(tokens) - 1)


def _cross_entropy(
    logits: Float[Tensor, "batch time vocab"], targets: Int64[Tensor, "batch time"], reduction: str
) -> Float[Tensor, "*loss"]:
    """-log softmax(logits)[target], in float32 at least."""
    scores = logits.flatten(0, 1)
    scores = scores if scores.dtype == torch.float64 else scores.float()
    return F.cross_entropy(scores, targets.flatten(), ignore_index=IGNORED, reduction=reduction)


def _as_hidden(parts: tuple[Tensor, ...]) -> State:
    """(h, c) for an LSTM, h alone for the others."""
    return parts if len(parts) > 1 else parts[0]


def _device_of(model: nn.Module) -> torch.device:
    return next((tensor.device for tensor in (*model.parameters(), *model.buffers())), torch.device("cpu"))


class Carried(NamedTuple):
    """The state after a batch of the stream, to begin the batch after it with; no gradient reaches back through it."""

    place: int
    state: tuple[Float[Tensor, "layers batch hidden"], ...]


class LmTask:
    """A language model on one text, after the Task protocol.

    batch_size: windows per training batch and process, and segments scored side by side. length: tokens per window.
    notes: what a person should know about how the data was found.

    Windows are shuffled and read from a fresh state, or, with `spec.carry`, every row of a batch goes on in the text
    where it stood in the batch before: backpropagation ends at the window, the state does not. The state is kept in
    `carried`, with the place of its batch, and used for the batch that follows and no other: whatever else was scored
    or trained in between, a stream that begins anew begins from a fresh state. Whoever goes on with a training run
    inside an epoch puts `carried` back.
    """

    def __init__(
        self,
        spec: LmModelSpec,
        corpus: Corpus,
        *,
        batch_size: int = BATCH_SIZE,
        length: int = LENGTH,
        notes: tuple[str, ...] = (),
    ) -> None:
        """Raises UsageError for impossible sizes, InputRefused for a text too short to train and score on."""
        if batch_size < 1 or length < 1:
            raise UsageError(f"batch size {batch_size}, sequence length {length}: both must be at least 1")
        corpus_text.refuse_short(corpus, length, spec.level)
        self.metric: str = "bpc" if spec.level == "char" else "perplexity"
        self.goal: Goal = "min"
        self.spec, self.corpus, self.notes = spec, corpus, notes
        self.batch_size, self.length = batch_size, length
        self.carried: Carried | None = None

    @classmethod
    def from_text(
        cls, path: Path, spec: LmModelSpec, *, vocab: int = 10_000, batch_size: int = BATCH_SIZE, length: int = LENGTH
    ) -> LmTask:
        """A task for a new model; the vocabulary is taken from the training split.

        vocab: how many words to keep beside `<unk>` and `<eos>`; characters are all kept. Raises UsageError when there
        is no such file, InputRefused when it is not UTF-8 or too short.
        """
        if vocab < 1:
            raise UsageError(f"vocab: expected a whole number of at least 1, found {vocab}")
        text = corpus_text.read_text(path)
        splits = corpus_text.split_by_position(corpus_text.tokenize(text.content, spec.level))
        spec = replace(spec, vocabulary=corpus_text.build_vocabulary(splits.train, spec.level, vocab))
        return cls(spec, corpus_text.build_corpus(text, splits, spec.vocabulary), batch_size=batch_size, length=length)

    @classmethod
    def from_checkpoint(cls, metadata: Mapping[str, object], options: DataOptions | None = None) -> LmTask:
        """The task that a checkpoint's `rnnprune` entry describes, on the stored data file unless one is given.

        Raises InputRefused for metadata that `from_dict` refuses, UsageError when the stored file is gone or changed.
        """
        options = options or DataOptions()
        stored = read_entry(metadata)
        spec = LmModelSpec.from_dict(stored.model)
        found = find_data(stored, options, "text", batch_size=BATCH_SIZE, length=LENGTH)
        text = corpus_text.read_text(found.path)
        splits = corpus_text.split_by_position(corpus_text.tokenize(text.content, spec.level))
        corpus = corpus_text.build_corpus(text, splits, spec.vocabulary)
        batch_size, length = found.options.batch_size_or(BATCH_SIZE), found.options.length_or(LENGTH)
        return cls(spec, corpus, batch_size=batch_size, length=length, notes=found.notes)

    @property
    def metadata(self) -> dict[str, Any]:
        """What a checkpoint stores under `rnnprune`, and `from_checkpoint` reads."""
        batches = {"batch_size": self.batch_size, "length": self.length}
        return entry("lm", self.spec.to_dict(), self.corpus.path, self.corpus.sha256, batches)

    def build_model(self) -> LmModel:
        """The untrained model, drawn from torch's global generator."""
        return self.spec.build()

    def train_batches(
        self, *, epoch: int, seed: int, rank: int = 0, world_size: int = 1
    ) -> WindowBatches | StreamBatches:
        """One process's batches of one epoch; the ranks share the epoch's windows, or streams, out among them.

        All batches of all ranks have the same size; the few windows left over (others in every epoch) are skipped.
        Raises UsageError for an impossible rank, or more processes than windows.
        """
        if not 0 <= rank < world_size:
            raise UsageError(f"rank {rank} of {world_size}: expected 0 <= rank < world_size")
        carry = self.spec.carry
        starts = corpus_text.window_starts(self.corpus.train, self.length, epoch, seed, shuffled=not carry)
        batch = min(self.batch_size, len(starts) // world_size)
        if batch == 0:
            raise UsageError(f"{len(starts)} training windows cannot feed {world_size} processes; use a longer text")
        steps = len(starts) // (batch * world_size)
        kept = starts[: steps * world_size * batch]
        shards = kept.view(world_size, batch, steps).permute(2, 0, 1) if carry else kept.view(steps, world_size, batch)
        batches = WindowBatches(self.corpus.train, shards[:, rank], self.length + 1)
        return StreamBatches(batches) if carry else batches

    def loss(self, model: nn.Module, batch: Int64[Tensor, "batch window"] | StreamBatch) -> Float[Tensor, ""]:
        """Mean cross entropy in nats of each window's tokens after its first, from a fresh or the carried state."""
        return self.loss_and_logits(model, batch)[0]

    def loss_and_logits(
        self, model: nn.Module, batch: Int64[Tensor, "batch window"] | StreamBatch
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "tokens vocab"]]:
        """The loss, and the logits of every token that it counts."""
        if not isinstance(batch, StreamBatch):
            return self._loss_from(model, batch, None)[:2]
        before = self.carried if self.carried is not None and self.carried.place == batch.place - 1 else None
        state_before = None if before is None else _as_hidden(before.state)
        loss, logits, state = self._loss_from(model, batch.windows, state_before)
        parts = state if isinstance(state, tuple) else (state,)
        self.carried = Carried(batch.place, tuple(part.detach() for part in parts))
        return loss, logits

    def _loss_from(self, model: nn.Module, windows: Tensor, state: State) -> tuple[Tensor, Tensor, Any]:
        windows = windows.to(_device_of(model), non_blocking=True)
        logits, state = model(windows[:, :-1], state)
        return _cross_entropy(logits, windows[:, 1:], "mean"), logits.flatten(0, 1), state

    def evaluate(self, model: nn.Module, split: Split) -> dict[str, float]:
        """Bits per character or perplexity of a split: every token after its first is scored once."""
        tokens: Tensor = {"validation": self.corpus.validation, "test": self.corpus.test}[split]
        nll = mean_nll(model, tokens, self.batch_size, self.length)
        if self.metric == "bpc":
            return {"bpc": nll / math.log(2)}
        return {"perplexity": math.exp(nll) if nll < 700 else math.inf}  # exp() of more raises OverflowError

"""The seq2seq task: pairs of texts in one file; character, word or sentence error rate, or BLEU and chrF."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from rnnprune.errors import UsageError
from rnnprune.tasks.batching import Batches, bucketed
from rnnprune.tasks.options import Goal, Split
from rnnprune.tasks.seq2seq.decoding import answers, padded
from rnnprune.tasks.seq2seq.model import Seq2SeqModel
from rnnprune.tasks.seq2seq.pairs import Corpus, read_corpus
from rnnprune.tasks.seq2seq.scores import require_scorer, score
from rnnprune.tasks.seq2seq.spec import Seq2SeqModelSpec
from rnnprune.tasks.seq2seq.tokens import PAD, START, Tokens, build_vocabulary
from rnnprune.tasks.source import DataOptions, entry, find_data, read_entry

BATCH_SIZE = 64


class PairBatch(NamedTuple):
    """Both sides end with their end mark and are filled up with PAD."""

    source: Int64[Tensor, "B S"]
    target: Int64[Tensor, "B T"]


class Seq2SeqTask:
    """Pairs of texts after the Task protocol. notes: what a person should know about how the data was found."""

    def __init__(
        self, spec: Seq2SeqModelSpec, corpus: Corpus, *, batch_size: int = BATCH_SIZE, notes: tuple[str, ...] = ()
    ) -> None:
        """Raises UsageError where the library that computes the metric is missing."""
        require_scorer(spec.metric)
        self.metric: str = spec.metric
        self.goal: Goal = "max" if spec.metric == "BLEU" else "min"
        self.spec, self.corpus, self.batch_size = spec, corpus, batch_size
        self.notes = (*notes, *corpus.notes)
        source = Tokens(spec.source_level, spec.source_vocabulary)
        target = Tokens(spec.target_level, spec.target_vocabulary)
        self.train = [(source.encode(pair.source), target.encode(pair.target)) for pair in corpus.train]

    @classmethod
    def from_pairs(
        cls, path: Path, spec: Seq2SeqModelSpec, options: DataOptions | None = None, *, vocab: int = 4000
    ) -> Seq2SeqTask:
        """A task for a new model; the vocabularies and the longest answer are those of the training split.

        vocab: words or pieces to keep on each side; characters are all kept. Raises UsageError when there is no such
        file, InputRefused when it does not hold enough pairs.
        """
        if vocab < 1:
            raise UsageError(f"vocab: expected a whole number of at least 1, found {vocab}")
        options = options or DataOptions()
        options.refuse_length("seq2seq")
        corpus = read_corpus(path, skip_bad=options.skip_bad)
        sources, targets = zip(*corpus.train, strict=True)
        target_vocabulary = build_vocabulary(targets, spec.target_level, vocab)
        target = Tokens(spec.target_level, target_vocabulary)
        spec = replace(
            spec,
            longest=1 + max(len(target.encode(text)) for text in targets),
            source_vocabulary=build_vocabulary(sources, spec.source_level, vocab),
            target_vocabulary=target_vocabulary,
        )
        return cls(spec, corpus, batch_size=options.batch_size_or(BATCH_SIZE))

    @classmethod
    def from_checkpoint(cls, metadata: Mapping[str, object], options: DataOptions | None = None) -> Seq2SeqTask:
        """The task that a checkpoint's `rnnprune` entry describes, on the stored data file unless one is given.

        Raises InputRefused for metadata that `from_dict` refuses, UsageError when the stored file is gone or changed.
        """
        options = options or DataOptions()
        options.refuse_length("seq2seq")
        stored = read_entry(metadata)
        spec = Seq2SeqModelSpec.from_dict(stored.model)
        found = find_data(stored, options, "file of pairs", batch_size=BATCH_SIZE)
        corpus = read_corpus(found.path, skip_bad=found.options.skip_bad)
        return cls(spec, corpus, batch_size=found.options.batch_size_or(BATCH_SIZE), notes=found.notes)

    @property
    def metadata(self) -> dict[str, Any]:
        """What a checkpoint stores under `rnnprune`, and `from_checkpoint` reads."""
        corpus, batches = self.corpus, {"batch_size": self.batch_size}
        return entry("seq2seq", self.spec.to_dict(), corpus.path, corpus.sha256, batches, left_out=bool(corpus.notes))

    def build_model(self) -> Seq2SeqModel:
        """The untrained model, drawn from torch's global generator."""
        return cast(Seq2SeqModel, self.spec.build())

    def train_batches(self, *, epoch: int, seed: int, rank: int = 0, world_size: int = 1) -> Batches[PairBatch]:
        """Pairs of like lengths together, of the target first: its padding is computed, the source's is not."""
        widest = 1 + max(len(source) for source, _ in self.train)
        lengths = [len(target) * widest + len(source) for source, target in self.train]
        indices = bucketed(lengths, self.batch_size, epoch=epoch, seed=seed, rank=rank, world_size=world_size)
        return Batches(indices, self._collate)

    def loss(self, model: nn.Module, batch: PairBatch) -> Float[Tensor, ""]:
        """Mean cross entropy in nats of every target token, END included, given the true ones before it."""
        return _loss(self._logits(model, batch), batch)

    def loss_and_logits(
        self, model: nn.Module, batch: PairBatch
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "tokens V"]]:
        """The loss, and the logits of every token that is no padding, given the true ones before it."""
        logits = self._logits(model, batch)
        return _loss(logits, batch), logits[batch.target.flatten() != PAD]

    def _logits(self, model: nn.Module, batch: PairBatch) -> Float[Tensor, "positions V"]:
        before = F.pad(batch.target[:, :-1], (1, 0), value=START)
        logits: Tensor = model(batch.source, before)
        return logits.flatten(0, 1)

    def retold(self, teacher: nn.Module) -> Seq2SeqTask:
        """The task with the teacher's answers, as it is scored (its beam), in place of the training targets.

        Sequence-level distillation: Kim, Rush, "Sequence-Level Knowledge Distillation", EMNLP 2016, section 3.2.
        """
        told = cast(Seq2SeqModel, teacher)
        sources = list(dict.fromkeys(tuple(source) for source, _ in self.train))
        with torch.no_grad():
            given = dict(zip(sources, answers(told, sources, told.spec.beam), strict=True))
        retold = copy.copy(self)
        retold.train = [(source, given[tuple(source)]) for source, _ in self.train]
        return retold

    def evaluate(self, model: nn.Module, split: Split) -> dict[str, float]:
        """The figures of a split: every source once, against all its targets."""
        references = self.corpus.validation if split == "validation" else self.corpus.test
        given = cast(Seq2SeqModel, model).translate(list(references))
        return score(self.spec.metric, given, list(references.values()))

    def _collate(self, items: Sequence[int]) -> PairBatch:
        sources, targets = zip(*(self.train[item] for item in items), strict=True)
        return PairBatch(padded(sources), padded(targets))


def _loss(logits: Float[Tensor, "positions V"], batch: PairBatch) -> Float[Tensor, ""]:
    return F.cross_entropy(logits.float(), batch.target.flatten(), ignore_index=PAD)
